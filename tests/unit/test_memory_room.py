"""What DuckDB may use follows what is known to be needed: set aside until a checkpoint, more while clients ask."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from cdc.config import AUTO
from cdc.replica import memory, state, tables, write_session
from cdc.replica.database import ReplicaDatabase
from cdc.replica.memory import BYTES_A_ROW, BYTES_A_TABLE, FIRST_BYTES, QUERY_BYTES, MemoryLimit
from cdc.replica.writer import Writer
from cdc.source.batcher import FlushReason
from cdc.source.rows import DELETE, INSERT, UPDATE
from tests.unit.writer.batches import WAIT, T, batch, ids, new_writer, settle, target

MACHINE = 64 << 30


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits share the machine with those of other tests' replicas, as long as these are remembered."""
    monkeypatch.setattr(MemoryLimit, "_growing", weakref.WeakSet())
    monkeypatch.setattr(memory, "available_bytes", lambda: MACHINE)


def opened(path: Path, clock: Clock, limit: str = AUTO) -> ReplicaDatabase:
    database = ReplicaDatabase(path, memory_limit=limit, threads=1, clock=clock)
    database.open()
    cursor = database.cursor()
    state.prepare(cursor, "default", "shop")
    if not tables.any_row(cursor, "duckdb_tables", "table_name = 't'"):
        tables.create_staging(cursor, T)
        tables.swap(cursor, "t")
    cursor.close()
    return database


@pytest.fixture
def replica(tmp_path: Path, clock: Clock) -> Iterator[ReplicaDatabase]:
    database = opened(tmp_path / "copy.db", clock)
    yield database
    database.close()


@pytest.fixture
def writer(replica: ReplicaDatabase, clock: Clock) -> Iterator[Writer]:
    made = new_writer(replica, clock=clock)
    made.start()
    yield made
    assert made.stop(WAIT)


def limit_of(database: ReplicaDatabase) -> int:
    """DuckDB's limit as it says itself, in MB."""
    [[text]] = database.read(lambda c: c.execute("SELECT current_setting('memory_limit')").fetchall())
    size, unit = str(text).split()
    return round(float(size) * {"MiB": 1 << 20, "GiB": 1 << 30}[unit] / 1e6)


def megabytes(size: int) -> int:
    return round(size / 1e6)


def test_what_is_set_aside_comes_on_top_and_goes_with_a_checkpoint() -> None:
    limit = MemoryLimit(AUTO, machine_bytes=MACHINE)
    limit.reserve("t", 10_000_000)
    limit.reserve("t", 4_000_000)
    limit.reserve("u", 1_000_000)
    assert (limit.bytes, limit.reserved, limit.base) == (FIRST_BYTES + 11_000_000, 11_000_000, FIRST_BYTES)
    assert limit.grow()
    assert limit.bytes == 2 * FIRST_BYTES + 11_000_000
    limit.release()
    assert (limit.bytes, limit.reserved) == (2 * FIRST_BYTES, 0)


def test_no_more_is_set_aside_than_half_of_the_machine() -> None:
    limit = MemoryLimit(AUTO, machine_bytes=1_000_000_000)
    limit.reserve("t", 9_000_000_000)
    assert (limit.bytes, limit.can_grow, limit.grow()) == (500_000_000, False, False)
    assert limit.for_queries == 500_000_000


def test_a_fixed_limit_sets_nothing_aside_and_gives_queries_no_more() -> None:
    limit = MemoryLimit("100MB", machine_bytes=MACHINE)
    limit.reserve("t", 10_000_000)
    assert (limit.bytes, limit.reserved, limit.for_queries) == (100_000_000, 0, 100_000_000)


def test_the_configuration_stays_locked_but_for_the_limit(replica: ReplicaDatabase) -> None:
    cursor = replica.cursor()
    for statement in ("SET GLOBAL threads = 3", "SET GLOBAL allowed_configs = ['threads']"):
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            cursor.execute(statement)
    with pytest.raises(duckdb.Error, match="locked"):
        cursor.execute("SET GLOBAL enable_external_access = true")
    cursor.close()


def test_clients_get_more_while_they_ask_and_for_a_while_after(
    replica: ReplicaDatabase, clock: Clock
) -> None:
    assert limit_of(replica) == megabytes(FIRST_BYTES)
    with replica.serving():
        assert limit_of(replica) == megabytes(FIRST_BYTES + QUERY_BYTES)
        with replica.serving():
            pass
        clock.now += 100
        replica.adjust_memory()
        assert limit_of(replica) == megabytes(FIRST_BYTES + QUERY_BYTES)
    clock.now += 9
    replica.adjust_memory()
    assert limit_of(replica) == megabytes(FIRST_BYTES + QUERY_BYTES)
    clock.now += 2
    replica.adjust_memory()
    assert limit_of(replica) == megabytes(FIRST_BYTES)


def test_a_limit_below_what_is_in_use_waits_until_it_is_not(
    replica: ReplicaDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = replica.cursor()
    with replica.serving():
        cursor.execute("CREATE TEMP TABLE held AS SELECT hash(i) AS h FROM range(4_000_000) AS r(i)")
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO t SELECT i FROM range(300_000) AS r(i)")
    clock.now += 100
    monkeypatch.setattr(replica.memory, "bytes", 1_000)
    replica.adjust_memory()
    cursor.execute("ROLLBACK")
    cursor.execute("DROP TABLE held")
    cursor.close()
    assert limit_of(replica) == megabytes(FIRST_BYTES + QUERY_BYTES)
    monkeypatch.undo()
    replica.adjust_memory()
    assert limit_of(replica) == megabytes(FIRST_BYTES)


def test_a_file_that_is_not_open_is_told_when_it_is(replica: ReplicaDatabase) -> None:
    replica.close()
    with replica.serving():
        replica.memory.reserve("t", 50_000_000)
    replica.open()
    assert limit_of(replica) == megabytes(FIRST_BYTES + 50_000_000)


def test_a_full_batch_of_updates_has_room_for_the_whole_table_until_the_checkpoint(
    replica: ReplicaDatabase, writer: Writer
) -> None:
    into = target()
    writer.deliver(into, batch(*range(3_000), at=100, reason=FlushReason.ROWS))
    settle(writer)
    assert replica.memory.reserved == BYTES_A_TABLE
    writer.deliver(into, batch(7, at=200, operation=UPDATE, reason=FlushReason.ROWS))
    settle(writer)
    assert replica.memory.reserved == BYTES_A_TABLE + 3_000 * BYTES_A_ROW
    assert limit_of(replica) == megabytes(FIRST_BYTES + BYTES_A_TABLE + 3_000 * BYTES_A_ROW)
    writer._session.checkpoint("a test")
    assert replica.memory.reserved == 0
    assert limit_of(replica) == megabytes(FIRST_BYTES)
    assert ids(replica) == list(range(3_000))


def test_the_tables_of_small_batches_are_looked_at_soon(
    replica: ReplicaDatabase, writer: Writer, clock: Clock
) -> None:
    """Behind them, for who waits for a few rows waits for no look at the catalogue."""
    into = target()
    writer.deliver(into, batch(*range(3_000), at=100))
    settle(writer)
    writer.deliver(into, batch(1, at=200, operation=DELETE))
    settle(writer)
    assert replica.memory.reserved == BYTES_A_TABLE
    clock.now += 0.3
    writer.deliver(into, batch(3_000, at=300))
    settle(writer)
    writer.settle().result(WAIT)
    rows = (replica.memory.reserved - BYTES_A_TABLE) // BYTES_A_ROW
    assert rows in (3_000, 3_001)  # behind the one batch or the other
    clock.now += 0.3
    writer._session.checkpoint("a test")
    writer.deliver(into, batch(3_001, at=400))
    settle(writer)
    assert replica.memory.reserved == 0  # only inserts since


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


def test_a_large_log_is_replayed_with_room_until_the_first_checkpoint(
    replica: ReplicaDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.replica.database.SMALL_LOG", 1)
    writer.deliver(target(), batch(1, at=100))
    settle(writer)
    replica.close(checkpoint=False)
    replica.open()
    assert limit_of(replica) == megabytes(FIRST_BYTES + memory.REPLAY_BYTES)
    replica.memory.release()
    replica.adjust_memory()
    assert limit_of(replica) == megabytes(FIRST_BYTES)
