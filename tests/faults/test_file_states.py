"""Files that a service must refuse, and files that only look bad."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from cdc.sandbox.databases import Database, Host, create_database
from cdc.sandbox.service import Service
from tests.faults.conftest import assert_equal_after_stop, wait_live
from tests.faults.test_start_errors import refused
from tests.replica import Replica

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def mysql_database(mysql_server: Host) -> Iterator[Database]:
    made = create_database(mysql_server)
    made.execute("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)")
    yield made
    made.drop()


@pytest.fixture
def copied(mysql_database: Database, replica_factory: Callable[..., Replica], tmp_path: Path) -> Path:
    """The file of a replica that has ended in order."""
    replica_factory(mysql_database.url).start().stop()
    return tmp_path / "replica.db"


def test_the_copy_of_another_database_is_refused(
    mysql_database: Database, copied: Path, tmp_path: Path
) -> None:
    other = create_database(mysql_database.server)
    error = refused(tmp_path, other.url, duckdb_path=copied)
    other.drop()
    assert mysql_database.name in error
    assert "duckdb_path" in error


DAMAGES = {
    "a_later_format": "UPDATE _duckling.meta SET value = '99' WHERE name = 'format'",
    "no_format": "DELETE FROM _duckling.meta WHERE name = 'format'",
    "a_format_that_is_no_number": "UPDATE _duckling.meta SET value = 'x' WHERE name = 'format'",
    "no_source": "DELETE FROM _duckling.meta WHERE name = 'source'",
    "no_position_column": "ALTER TABLE _duckling.cdc_binlog_position DROP COLUMN gtid",
    "an_unknown_state": "UPDATE _duckling.table_states SET state = 'half'",
    "a_broken_definition": "UPDATE _duckling.table_states SET definition = '{'",
    "a_definition_that_lacks_fields": "UPDATE _duckling.table_states SET definition = '{}'",
    "a_broken_position": "UPDATE _duckling.cdc_binlog_position SET gtid = 'not-a-gtid'",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_bookkeeping_is_refused_with_a_way_out(
    mysql_database: Database, copied: Path, tmp_path: Path, damage: str
) -> None:
    with duckdb.connect(str(copied)) as file:
        file.execute(DAMAGES[damage])
    before = copied.read_bytes()
    error = refused(tmp_path, mysql_database.url, duckdb_path=copied)
    assert "duckdb_path" in error
    assert copied.read_bytes() == before


def header_checksum(data: bytes | bytearray) -> bytes:
    """DuckDB's checksum of a file's first block: 4,088 bytes behind the checksum's own eight."""
    found = 5381
    for (word,) in struct.iter_unpack("<Q", data[8:4096]):
        found ^= word * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    return found.to_bytes(8, "little")


def test_a_file_of_a_later_duckdb_is_refused(mysql_database: Database, copied: Path, tmp_path: Path) -> None:
    """The version of the storage format stands behind the file's magic word, at byte 12."""
    data = bytearray(copied.read_bytes())
    assert data[8:12] == b"DUCK"
    assert data[:8] == header_checksum(data)
    data[12:20] = (10_000).to_bytes(8, "little")
    data[:8] = header_checksum(data)
    copied.write_bytes(data)
    error = refused(tmp_path, mysql_database.url, duckdb_path=copied)
    assert "version number 10000" in error
    assert "duckdb_path" in error
    assert copied.read_bytes() == data


def test_a_damaged_file_is_refused_as_such(mysql_database: Database, copied: Path, tmp_path: Path) -> None:
    data = bytearray(copied.read_bytes())
    data[100] ^= 0xFF
    copied.write_bytes(data)
    error = refused(tmp_path, mysql_database.url, duckdb_path=copied)
    assert "corrupt" in error
    assert "another process" not in error
    assert copied.read_bytes() == data


def test_a_file_that_may_only_be_read_is_refused(
    mysql_database: Database, copied: Path, tmp_path: Path
) -> None:
    """By its file system for root, who may write any file; by its mode for everybody else."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    path = folder / "replica.db"
    root = os.geteuid() == 0
    if root:
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    try:
        path.write_bytes(copied.read_bytes())
        if root:
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        else:
            path.chmod(0o444)
            folder.chmod(0o555)
        error = refused(tmp_path, mysql_database.url, duckdb_path=path)
    finally:
        if root:
            subprocess.run(["umount", "-l", folder], check=True)
        else:
            folder.chmod(0o755)
    assert "duckdb_path" in error


@pytest.mark.parametrize("left", ["whole", "cut", "gone"])
def test_a_log_that_a_kill_left_behind_is_replayed_as_far_as_it_goes(
    mysql_database: Database, service_factory: Callable[..., Service], left: str
) -> None:
    """Rows and position are in one transaction: whatever is lost of the log is read again from the source."""
    service = service_factory(mysql_database.url, checkpoint_idle=3600).start()
    wait_live(service)
    for number in range(8):
        mysql_database.execute(f"INSERT INTO t VALUES ({number + 100})", "DELETE FROM t ORDER BY id LIMIT 1")
        service.post("/sync/incremental")
    service.kill()
    wal = service.duckdb_path.with_name(service.duckdb_path.name + ".wal")
    size = wal.stat().st_size
    assert size > 0
    if left == "cut":
        os.truncate(wal, size * 2 // 3)
    elif left == "gone":
        wal.unlink()
    service.start()
    wait_live(service)
    assert_equal_after_stop(service, mysql_database.url)


def test_a_log_that_memory_does_not_hold_is_replayed_with_more_for_the_moment(
    mysql_database: Database, service_factory: Callable[..., Service]
) -> None:
    """A kill leaves a large log, and the next start has little memory: nothing is lost by that."""
    mysql_database.execute(
        "CREATE TABLE wide (id INT PRIMARY KEY, body TEXT)",
        "CREATE TABLE d (n INT PRIMARY KEY)",
        "INSERT INTO d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
    )
    service = service_factory(mysql_database.url, checkpoint_wal_bytes=1 << 30, checkpoint_idle=3600).start()
    wait_live(service)
    number = "a.n + b.n * 10 + c.n * 100 + d.n * 1000"
    text = ", ".join(f"SHA2({number} + {part}, 512)" for part in range(60))
    mysql_database.execute(f"INSERT INTO wide SELECT {number}, CONCAT({text}) FROM d a, d b, d c, d")
    service.post("/sync/incremental")
    service.kill()
    wal = service.duckdb_path.with_name(service.duckdb_path.name + ".wal")
    assert wal.stat().st_size > 64 << 20
    little = service_factory(mysql_database.url, duckdb_memory_limit="20MB").start()
    wait_live(little)
    [row] = little.query("SELECT current_setting('memory_limit') AS now")
    assert row["now"] == "19.0 MiB"
    assert "replica.replayed" in little.log.read_text()
    assert_equal_after_stop(little, mysql_database.url)
