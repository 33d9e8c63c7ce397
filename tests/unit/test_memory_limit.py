"""How far DuckDB's memory limit grows, and that what does not fit in fits in then."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from cdc.config import AUTO, Settings, byte_size, load_settings
from cdc.errors import ConfigError, ReplicaError, ReplicaFatalError
from cdc.metrics import Metrics
from cdc.replica import memory, state, write_session
from cdc.replica.apply import append_rows, apply_rows
from cdc.replica.database import ReplicaDatabase
from cdc.replica.duckdb_errors import OUT_OF_MEMORY
from cdc.replica.memory import MemoryLimit, available_bytes
from cdc.replica.tables import create
from cdc.replica.writer import Writer
from cdc.schema import Column, Table
from cdc.source.rows import DELETE, INSERT

SMALL = 48_000_000
TABLES = [Table("shop", f"t{n}", (Column("id", "int", "int"),), ("id",)) for n in range(80)]
"""Each keeps about half a megabyte of an index in memory, once it is written to."""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits share the machine with those of other tests' replicas, as long as these are remembered."""
    monkeypatch.setattr(MemoryLimit, "_growing", weakref.WeakSet())


def test_a_fixed_limit_never_grows() -> None:
    limit = MemoryLimit("2GB", machine_bytes=64 << 30)
    assert (limit.bytes, limit.can_grow, limit.grow()) == (2_000_000_000, False, False)
    assert limit.bytes == 2_000_000_000


def test_auto_doubles_up_to_half_of_the_machine() -> None:
    limit = MemoryLimit(AUTO, machine_bytes=3_000_000_000)
    sizes = [limit.bytes]
    while limit.grow():
        sizes.append(limit.bytes)
    assert sizes == [72_000_000, 144_000_000, 288_000_000, 576_000_000, 1_152_000_000, 1_500_000_000]
    assert not limit.can_grow


def test_auto_begins_where_it_was_but_not_beyond_the_machine_of_today() -> None:
    limit = MemoryLimit(AUTO, machine_bytes=3_000_000_000)
    assert limit.grow(1_024_000_000)
    assert limit.bytes == 1_024_000_000
    assert not limit.grow(1)
    assert limit.grow(9_000_000_000)
    assert limit.bytes == 1_500_000_000


def test_the_databases_of_one_process_share_half_of_the_machine() -> None:
    one, other, fixed = (MemoryLimit(s, machine_bytes=4_000_000_000) for s in (AUTO, AUTO, "9GB"))
    while one.grow():
        assert one.bytes + other.bytes <= 2_000_000_000
    assert one.bytes == 2_000_000_000 - 72_000_000
    assert not other.can_grow
    assert fixed.bytes == 9_000_000_000
    del one
    gc.collect()
    assert other.grow()


def test_a_machine_of_little_memory_still_gets_the_first_amount() -> None:
    limit = MemoryLimit(AUTO, machine_bytes=128 << 20)
    assert (limit.bytes, limit.can_grow) == (72_000_000, False)


MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("groups", "files", "found"),
    [
        ("", {}, MACHINE),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/\n", {"memory.max": "1000000\n"}, 1_000_000),  # a container
        ("0::/\n", {"memory.max": f"{2**63}\n"}, MACHINE),
        (
            "0::/system.slice/duckling.service\n",
            {"system.slice/memory.max": "3000000\n", "system.slice/duckling.service/memory.max": "max\n"},
            3_000_000,
        ),
        ("0::/../other\n", {"memory.max": "5000000\n"}, 5_000_000),  # a group outside of the container's view
        (
            "4:cpu:/a\n3:memory:/a/b\n1:name=systemd:/a\n",
            {"memory/a/b/memory.limit_in_bytes": "4000000\n", "memory/memory.limit_in_bytes": f"{2**63}\n"},
            4_000_000,
        ),
    ],
)
def test_a_containers_or_a_services_limit_counts(
    tmp_path: Path, groups: str, files: dict[str, str], found: int
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    if groups:
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert available_bytes(tmp_path) == found


@pytest.mark.parametrize(
    ("text", "size"), [("512MB", 512_000_000), ("1.5 GiB", 3 << 29), ("100", 100), ("2g", 2_000_000_000)]
)
def test_sizes_are_read_as_duckdb_reads_them(text: str, size: int) -> None:
    assert byte_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0MB", "12QB", "80%"])
def test_a_wrong_size_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match="duckdb_memory_limit"):
        load_settings(duckdb_memory_limit=text)


def test_the_default_grows() -> None:
    assert Settings().duckdb_memory_limit == AUTO


@pytest.fixture
def write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], tuple[Writer, ReplicaDatabase]]]:
    """`write(memory_limit)`: a writer on the same file each time, with SMALL bytes for the first."""
    monkeypatch.setattr(memory, "FIRST_BYTES", SMALL)
    monkeypatch.setattr(write_session, "_LOOK_EVERY", 0.0)
    opened: list[tuple[Writer, ReplicaDatabase]] = []

    def close() -> None:
        for writer, database in opened:
            writer.stop(10)
            database.close()
        opened.clear()

    def make(limit: str) -> tuple[Writer, ReplicaDatabase]:
        close()
        database = ReplicaDatabase(tmp_path / "copy.db", memory_limit=limit, threads=1)
        database.open()
        metrics = Metrics().for_database("default")
        writer = Writer(database, metrics, name="default", checkpoint_wal_bytes=1 << 30, checkpoint_idle=3600)
        writer.start()
        writer.submit(lambda cursor: state.prepare(cursor, "default", "shop")).result()
        opened.append((writer, database))
        return opened[-1]

    yield make
    close()


def fill(writer: Writer, tables: list[Table]) -> None:
    """Tables of 2,000 rows, each in a transaction of its own."""
    rows = pa.table({"c0": pa.array(range(2_000), pa.int32())})
    for table in tables:

        def job(cursor: duckdb.DuckDBPyConnection, table: Table = table) -> None:
            create(cursor, table, table.name)
            append_rows(cursor, table, table.name, rows)

        writer.submit(job).result()


def contents(database: ReplicaDatabase) -> list[tuple[int, int, int]]:
    """Number, least and greatest of the numbers in each table."""

    def read(cursor: duckdb.DuckDBPyConnection) -> list[tuple[int, int, int]]:
        return [
            cursor.execute(f"SELECT count(*), min(id), max(id) FROM {t.name}").fetchall()[0] for t in TABLES
        ]

    return database.read(read)


def touch_all(cursor: duckdb.DuckDBPyConnection) -> None:
    """One transaction over all tables, 0 becomes -1 in each: what it changes must fit into memory at once."""
    rows, operations = pa.table({"c0": pa.array([0, -1], pa.int32())}), np.array([DELETE, INSERT], np.uint8)
    for table in TABLES:
        apply_rows(cursor, table, table.name, rows, operations, overlap=False)


def test_a_checkpoint_makes_room_for_ever_more_tables(
    write: Callable[[str], tuple[Writer, ReplicaDatabase]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_session, "_WORK_FOR_RELIEF", 0.0)
    writer, database = write(f"{SMALL}B")
    fill(writer, TABLES)
    assert contents(database) == [(2_000, 0, 1_999)] * len(TABLES)


def test_what_does_not_fit_at_once_raises_the_limit_and_it_is_remembered(
    write: Callable[[str], tuple[Writer, ReplicaDatabase]],
) -> None:
    writer, database = write(AUTO)
    fill(writer, TABLES)
    writer.submit(touch_all).result()
    assert contents(database) == [(2_000, -1, 1_999)] * len(TABLES)
    grown = database.memory.bytes
    assert grown > SMALL
    _, again = write(AUTO)
    assert again.memory.bytes == grown
    [[limit]] = again.read(lambda c: c.execute("SELECT current_setting('memory_limit')").fetchall())
    assert float(limit.removesuffix(" MiB")) == pytest.approx(grown / (1 << 20), abs=0.1)
    assert contents(again) == [(2_000, -1, 1_999)] * len(TABLES)


def test_with_a_fixed_limit_it_is_refused_whole_and_told(
    write: Callable[[str], tuple[Writer, ReplicaDatabase]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_session, "_WORK_FOR_RELIEF", 0.0)
    writer, database = write(f"{SMALL}B")
    fill(writer, TABLES)
    with pytest.raises(ReplicaError, match="memory") as caught:
        writer.submit(touch_all).result()
    assert caught.value.code == OUT_OF_MEMORY
    assert "DUCKDB_MEMORY_LIMIT" in (caught.value.hint or "")
    assert contents(database) == [(2_000, 0, 1_999)] * len(TABLES)
    one_more = pa.table({"c0": pa.array([2_000], pa.int32())})
    writer.submit(lambda cursor: append_rows(cursor, TABLES[0], "t0", one_more)).result()
    assert contents(database)[0] == (2_001, 0, 2_000)
    assert database.memory.bytes == SMALL


def count_rows(cursor: duckdb.DuckDBPyConnection, name: str) -> int:
    found: int = cursor.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
    return found


def test_a_commit_that_lacks_memory_is_settled_by_opening_the_file_again(
    write: Callable[[str], tuple[Writer, ReplicaDatabase]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB reports a failure and keeps what it failed to commit: in its log, in half of its index, or not.

    Whoever asked is told that nobody knows; after that the file holds all of it or nothing, and its index agrees.
    """
    monkeypatch.setattr(write_session.WriteSession, "tidy", lambda _: None)
    writer, _ = write(f"{SMALL}B")
    rows = pa.table({"c0": pa.array(range(2_000), pa.int32())})
    failures = 0
    for number in range(200):
        table = Table("shop", f"u{number}", (Column("id", "int", "int"),), ("id",))
        writer.submit(partial(create, table=table, name=table.name)).result()
        append = partial(append_rows, table=table, name=table.name, rows=rows)
        try:
            writer.submit(append).result()
        except ReplicaFatalError:
            failures += 1
            found = writer.submit(partial(count_rows, name=table.name)).result()
            assert found in (0, 2_000)
            if found == 0:
                writer.submit(append).result()
            else:
                with pytest.raises(ReplicaError, match="Duplicate key"):
                    writer.submit(append).result()
        if failures == 3:
            break
    assert failures == 3
