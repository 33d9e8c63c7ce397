"""What does not fit into DuckDB's memory fits in when the limit has grown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from cdc.config import AUTO
from cdc.errors import ReplicaError, ReplicaFatalError
from cdc.metrics import Metrics
from cdc.replica import memory, state, write_session
from cdc.replica.apply import append_rows, apply_rows
from cdc.replica.database import ReplicaDatabase
from cdc.replica.duckdb_errors import OUT_OF_MEMORY
from cdc.replica.tables import create
from cdc.replica.writer import Writer
from cdc.schema import Column, Table
from cdc.source.rows import DELETE, INSERT

SMALL = 48_000_000
TABLES = [Table("shop", f"t{n}", (Column("id", "int", "int"),), ("id",)) for n in range(80)]
"""Each keeps about half a megabyte of an index in memory, once it is written to."""


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
