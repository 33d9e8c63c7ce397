"""A service that dies and comes back, and what it leaves in its file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from cdc.errors import ReplicaError
from cdc.sandbox.service import Service
from tests.replica import assert_equal, opened
from tests.waiting import SECONDS, wait_until


def live(service: Service) -> bool:
    """Whether the stream is connected, every table is in it and no copy is under way."""
    try:
        sync = service.get("/sync/status")
        connected = service.get("/cdc/status")["status"]["isRunning"]
    except ReplicaError:
        service.pid  # noqa: B018 - raises with the log's last words where the process has ended
        return False
    states = {table["state"] for table in sync["tables"]}
    return connected and not sync["isRunning"] and states <= {"streaming"}


def wait_live(service: Service, timeout: float = SECONDS) -> None:
    """Returns when the service streams all tables, after `timeout` seconds at most."""
    wait_until(lambda: live(service), "the service streams every table", timeout=timeout)


def assert_equal_after_stop(service: Service, url: str) -> None:
    """Asserts that the service applies what is committed, ends with status 0, and leaves an equal copy."""
    service.post("/sync/incremental")
    assert service.stop() == 0
    with opened(service.duckdb_path) as copy:
        assert_equal(url, copy)


@contextmanager
def remains(service: Service, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A copy of the dead service's file and its write-ahead log, opened: the originals stay as they are."""
    folder.mkdir()
    for name in (service.duckdb_path, service.duckdb_path.with_name(service.duckdb_path.name + ".wal")):
        if name.exists():
            shutil.copyfile(name, folder / name.name)
    with duckdb.connect(str(folder / service.duckdb_path.name)) as copy:
        yield copy


EVERYTHING = os.environ.get("FAULTS") == "all"
"""Whether the long cases run in full; otherwise a sample of each does."""


def sample(everything: int, some: int) -> int:
    """A number of rounds, rows or seconds: all of them with FAULTS=all."""
    return everything if EVERYTHING else some
