"""The disk is full while rows are applied, or while the file is checkpointed: loud, and nothing is lost.

Two ways to be full: the largest file that the process may write (setrlimit(2), RLIMIT_FSIZE), which any account can
set, and a small file system in memory, which only root can mount.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdc.errors import ReplicaError
from cdc.sandbox.databases import Database, Host, create_database
from cdc.sandbox.service import Service
from tests.faults.conftest import assert_equal_after_stop, wait_live
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

ROOM = 6 << 20
WAYS = ["file_size", "file_system"] if os.geteuid() == 0 else ["file_size"]


class Limit:
    """Room for `service`'s files that ends, and comes back."""

    def __init__(self, way: str, folder: Path) -> None:
        self.way = way
        self.folder = folder

    def narrow(self, service: Service) -> None:
        if self.way == "file_size":
            resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))

    def widen(self, service: Service) -> None:
        if self.way == "file_size":
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(service.pid, resource.RLIMIT_FSIZE, unlimited)
        else:
            subprocess.run(["mount", "-o", "remount,size=400m", self.folder], check=True)


@contextmanager
def limited(way: str, folder: Path) -> Iterator[Limit]:
    folder.mkdir()
    if way == "file_system":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={2 * ROOM}", "none", folder], check=True)
    try:
        yield Limit(way, folder)
    finally:
        if way == "file_system":
            subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(params=WAYS)
def limit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Limit]:
    with limited(request.param, tmp_path / "disk") as made:
        yield made


def fill(database: Database) -> None:
    """About 16 MB in 16 transactions, of text that can't be compressed away."""
    for part in range(16):
        texts = ", ".join(f"SHA2(n + {part * 1000} + RAND({i}), 512)" for i in range(8))
        database.execute(f"INSERT INTO t SELECT n + {part * 1000}, CONCAT({texts}) FROM numbers")


@pytest.fixture
def numbered(mysql_server: Host) -> Iterator[Database]:
    database = create_database(mysql_server)
    database.execute(
        "CREATE TABLE t (id INT PRIMARY KEY, body TEXT)",
        "CREATE TABLE numbers (n INT PRIMARY KEY)",
        "INSERT INTO numbers WITH RECURSIVE s AS (SELECT 0 AS n UNION ALL SELECT n + 1 FROM s WHERE n < 999)"
        " SELECT n FROM s",
    )
    yield database
    database.drop()


def applied(service: Service) -> int:
    """Rows that a reader sees; -1 while the file is being opened again."""
    try:
        return int(service.query("SELECT count(*) AS n FROM t")[0]["n"])
    except ReplicaError:
        return -1


@pytest.mark.parametrize(
    "settings",
    [{"checkpoint_wal_bytes": 1 << 30}, {"checkpoint_wal_bytes": 2 << 20}],
    ids=["while_applying", "while_checkpointing"],
)
def test_a_full_disk_is_told_and_the_stream_goes_on_when_there_is_room(
    numbered: Database, service_factory: Callable[..., Service], limit: Limit, settings: dict[str, int]
) -> None:
    service = service_factory(
        numbered.url, duckdb_path=limit.folder / "replica.db", checkpoint_idle=3600, **settings
    ).start()
    service.duckdb_path = limit.folder / "replica.db"
    wait_live(service)
    limit.narrow(service)
    fill(numbered)
    status = wait_until(
        lambda: (now := service.get("/cdc/status")["status"])["lastError"] and now, "it is told"
    )
    assert status["errors"] > 0
    seen = wait_until(lambda: (n := applied(service)) >= 0 and n + 1, "readers are served") - 1
    assert seen % 1000 == 0
    limit.widen(service)
    wait_until(lambda: applied(service) == 16_000, "all is applied")
    assert (
        int(
            service.query("SELECT count(*) AS n FROM _duckling.sync_log WHERE sync_type = 'snapshot'")[0]["n"]
        )
        == 2
    )
    assert_equal_after_stop(service, numbered.url)


def test_a_kill_while_the_disk_is_full_loses_nothing(
    numbered: Database, service_factory: Callable[..., Service], limit: Limit
) -> None:
    service = service_factory(numbered.url, duckdb_path=limit.folder / "replica.db").start()
    service.duckdb_path = limit.folder / "replica.db"
    wait_live(service)
    limit.narrow(service)
    fill(numbered)
    wait_until(lambda: service.get("/cdc/status")["status"]["lastError"], "it is told")
    if limit.way == "file_system":
        limit.widen(service)  # DuckDB needs room to start
    service.kill()
    service.start()
    wait_live(service)
    assert_equal_after_stop(service, numbered.url)
