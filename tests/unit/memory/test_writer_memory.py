"""The writer sets memory aside, and gets more where that was too little."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from cdc.config import AUTO
from cdc.replica import memory_demand, write_session
from cdc.replica.database import ReplicaDatabase
from cdc.replica.memory import FIRST_BYTES
from cdc.replica.memory_demand import BYTES_A_ROW, INDEX_BYTES_A_ROW, REPLAY_BYTES
from cdc.replica.writer import Writer
from cdc.source.batcher import FlushReason
from cdc.source.rows import INSERT, UPDATE
from tests.unit.memory.files import Clock, limit_of, megabytes, opened
from tests.unit.writer.batches import WAIT, batch, ids, new_writer, settle, target
from tests.waiting import wait_until


@pytest.mark.usefixtures("exactly")
def test_updates_all_over_a_table_have_room_until_the_checkpoint(
    replica: ReplicaDatabase, writer: Writer
) -> None:
    into = target()
    writer.deliver(into, batch(*range(3_000), at=100, reason=FlushReason.ROWS))
    settle(writer)
    assert replica.memory.bytes == FIRST_BYTES
    writer.deliver(into, batch(7, 8, at=200, operation=UPDATE, reason=FlushReason.ROWS))
    settle(writer)
    kept = replica.memory.bytes - FIRST_BYTES
    assert kept == 3_000 * (BYTES_A_ROW + INDEX_BYTES_A_ROW)
    assert replica.memory.given == FIRST_BYTES + kept
    writer._session.checkpoint("a test")
    assert limit_of(replica) == megabytes(replica.memory.bytes) == megabytes(FIRST_BYTES)
    assert ids(replica) == list(range(3_000))


@pytest.mark.usefixtures("exactly")
def test_a_transaction_in_parts_has_room_for_all_of_its_tables(
    replica: ReplicaDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_demand, "BYTES_A_TABLE", FIRST_BYTES)
    day = 1 << 9 | 1 << 5 | 1
    into = target()
    writer.deliver(into, batch(1))
    writer.deliver(into, batch(day, table="d"))
    writer.deliver(into, batch(2, at=100))
    settle(writer)
    assert (into.error, replica.memory.bytes) == (None, 3 * FIRST_BYTES - FIRST_BYTES // 4)


def test_more_memory_for_what_is_held_does_not_close_the_file(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader would be told that it is shut."""
    monkeypatch.setattr(write_session, "_LOOK_EVERY", 0.0)
    monkeypatch.setattr(write_session, "_WORK_FOR_RELIEF", 1e9)
    database = opened(tmp_path / "other.db", clock)
    before = database._connection
    monkeypatch.setattr(database, "held_bytes", lambda _: database.memory.base)
    made = new_writer(database, clock=clock)
    made._session._relief_took = 1.0
    made.start()
    made.deliver(target(), batch(1, at=100, operation=INSERT))
    settle(made)
    assert made.stop(WAIT)
    assert database._connection is before
    assert database.memory.base > FIRST_BYTES
    assert limit_of(database) == megabytes(database.memory.bytes)
    database.close()


@pytest.mark.parametrize("limit", [AUTO, "100MB"])
def test_a_checkpoint_that_lacked_memory_has_more_the_next_time(
    limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB gives up on the file for it: with no more memory that would come again and again."""
    database = opened(tmp_path / "other.db", limit=limit)
    before = database.memory.base
    made = new_writer(database)
    made.start()
    made.deliver(target(), batch(1, at=100))
    settle(made)

    def lacks(_: object) -> None:
        raise duckdb.FatalException("Failed to create checkpoint: could not allocate block of size 256.0 KiB")

    with monkeypatch.context() as patched:
        patched.setattr(database, "checkpoint", lacks)
        made._session.checkpoint("a test")
    assert database.memory.base == (before * 2 if limit == AUTO else before)
    made.deliver(target(), batch(2, at=200))
    settle(made)
    assert ids(database) == [1, 2]
    assert made.stop(WAIT)
    database.close()


def test_a_checkpoint_of_many_columns_has_room_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the base alone it is fatal: DuckDB keeps a block of each column."""
    database = opened(tmp_path / "other.db")
    cursor = database.cursor()
    columns = ", ".join(f"c{n} VARCHAR" for n in range(200))
    cursor.execute(f"CREATE TABLE wide (id BIGINT PRIMARY KEY, {columns})")
    values = ", ".join(f"'x' || hash(i + {n}) || repeat('y', 40)" for n in range(200))

    def insert(until: int) -> None:
        [[first]] = cursor.execute("SELECT count(*) FROM wide").fetchall()
        for number in range(first, until, 400):
            rows = f"range({number}, {number + 400}) AS r(i)"
            cursor.execute(f"INSERT INTO wide SELECT i, {values} FROM {rows}")
            if database.held_bytes(cursor) > FIRST_BYTES // 2:
                database.checkpoint(cursor)
                assert limit_of(database) == megabytes(FIRST_BYTES)

    insert(6_000)
    monkeypatch.setattr(memory_demand, "BYTES_A_COLUMN", 0)
    with pytest.raises(duckdb.FatalException, match="block"):
        insert(90_000)
    cursor.close()
    database.close(checkpoint=False)


def test_a_large_log_is_replayed_with_room_until_the_first_checkpoint(
    replica: ReplicaDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.replica.database.SMALL_LOG", 1)
    writer.deliver(target(), batch(1, at=100))
    settle(writer)
    replica.close(checkpoint=False)
    replica.open()
    assert limit_of(replica) == megabytes(replica.memory.bytes)
    assert replica.memory.bytes >= FIRST_BYTES + REPLAY_BYTES
    cursor = replica.cursor()
    replica.checkpoint(cursor)
    cursor.close()
    assert limit_of(replica) == megabytes(FIRST_BYTES)


def test_a_transaction_in_parts_that_may_get_no_more_memory_has_a_checkpoint_before_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the log holds would be replayed into memory otherwise, and be in its way again."""
    database = opened(tmp_path / "other.db", limit="100MB")
    made = new_writer(database)
    made.start()
    made.deliver(target(), batch(1, at=100))
    settle(made)
    assert database.wal_bytes > 0
    into = target()
    made.deliver(into, batch(2))
    settle_part = made._batches._rows.apply

    def starve(*_: object) -> None:
        raise duckdb.OutOfMemoryException("could not allocate block")

    wait_until(lambda: made._batches.unfinished is into, "the first part is applied")
    monkeypatch.setattr(made._batches._rows, "apply", starve)
    made.deliver(into, batch(3, at=200))
    wait_until(lambda: into.error is not None, "the second part has failed")
    monkeypatch.setattr(made._batches._rows, "apply", settle_part)
    settle(made)
    assert database.wal_bytes == 0
    made.deliver(target(), batch(2, 3, at=200))
    settle(made)
    assert ids(database) == [1, 2, 3]
    assert made.stop(WAIT)
    database.close()
