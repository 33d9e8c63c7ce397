"""The one thread that writes, on a real DuckDB file."""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cdc.errors import DucklingError, ReplicaError, ReplicaFatalError, StoppedError
from cdc.metrics import Metrics
from cdc.position import Position
from cdc.replica import state, tables
from cdc.replica.database import ReplicaDatabase
from cdc.replica.target import BatchTarget
from cdc.replica.writer import Writer
from cdc.schema import Column, Table
from cdc.source.batcher import Batch, FlushReason
from cdc.source.rows import RowBuffer, RowLayout
from cdc.source.table_map import TableMap
from cdc.values.binlog import FieldType, binlog_column
from tests.waiting import wait_until

WAIT = 3
T = Table("shop", "t", (Column("id", "int", "int"),), ("id",))
D = Table("shop", "d", (Column("day", "date", "date"),), ("day",))
_MAPS = {
    "t": TableMap("shop", "t", (binlog_column(FieldType.LONG, b"", name="id"),), named=True),
    "d": TableMap("shop", "d", (binlog_column(FieldType.DATE, b"", name="day"),), named=True),
}


def batch(*ids: int, at: int | None = None, table: str = "t") -> Batch:
    """Inserts of `ids`; `at` is the boundary's offset, None for a part. Days are numbers too, 0 is no day."""
    layout = RowLayout.of(_MAPS[table], ("id" if table == "t" else "day",))
    rows = RowBuffer(_MAPS[table], layout)
    for i in ids:
        image = b"\xfe" + (struct.pack("<i", i) if table == "t" else i.to_bytes(3, "little"))
        rows.insert(image, 0, len(image))
    position = None if at is None else Position("mysql", "a-server", "binlog.000001", at)
    return Batch([(table, rows)], rows=len(ids), transactions=1, position=position, reason=FlushReason.IDLE)


def save(cursor: duckdb.DuckDBPyConnection, position: Position) -> None:
    state.save_position(cursor, "default", position)


def target(on_error: Callable[[DucklingError], None] = lambda _: None) -> BatchTarget:
    return BatchTarget({"t": T, "d": D}, save_position=save, on_error=on_error)


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[ReplicaDatabase]:
    database = ReplicaDatabase(tmp_path / "copy.db", memory_limit="256MB", threads=1)
    database.open()
    cursor = database.cursor()
    state.prepare(cursor, "default", "shop")
    for each in (T, D):
        tables.create_staging(cursor, each)
        tables.swap(cursor, each.name)
    cursor.close()
    yield database
    database.close()


def new_writer(replica: ReplicaDatabase, *, clock: Callable[[], float] = time.monotonic) -> Writer:
    """A writer that makes no checkpoint for the size of its log, nor when idle. Not started."""
    return Writer(
        replica,
        Metrics().for_database("default"),
        name="default",
        checkpoint_wal_bytes=1 << 30,
        checkpoint_idle=3600.0,
        clock=clock,
    )


@pytest.fixture
def writer(replica: ReplicaDatabase) -> Iterator[Writer]:
    made = new_writer(replica)
    made.start()
    yield made
    assert made.stop(10.0)


def ids(replica: ReplicaDatabase) -> list[int]:
    cursor = replica.cursor()
    try:
        return [i for (i,) in cursor.execute("SELECT id FROM t ORDER BY id").fetchall()]
    finally:
        cursor.close()


def settle(writer: Writer) -> None:
    writer.settle().result(WAIT)


def saved(writer: Writer) -> int | None:
    position = writer.submit(lambda cursor: state.load_position(cursor, "default")).result(WAIT)
    return position.offset if position else None


def test_rows_and_their_position_are_there_together(writer: Writer, replica: ReplicaDatabase) -> None:
    into = target()
    writer.deliver(into, batch(1, 2, at=100))
    settle(writer)
    assert (ids(replica), saved(writer)) == ([1, 2], 100)
    assert into.applied is not None
    assert into.applied.offset == 100


def test_an_insert_of_a_key_that_exists_replaces_its_row(writer: Writer, replica: ReplicaDatabase) -> None:
    """The source may delete without logging it (a cascade, sql_log_bin = 0): a plain INSERT would fail."""
    into = target()
    writer.deliver(into, batch(1, 2, at=100))
    writer.deliver(into, batch(2, 3, at=200))
    settle(writer)
    assert into.error is None
    assert (ids(replica), saved(writer)) == ([1, 2, 3], 200)


def test_an_insert_of_a_key_that_exists_replaces_its_row_in_a_transaction_of_parts_too(
    writer: Writer, replica: ReplicaDatabase
) -> None:
    into = target()
    writer.deliver(into, batch(1, at=100))
    writer.deliver(into, batch(1, 2))
    writer.deliver(into, batch(2, 3, at=200))
    settle(writer)
    assert into.error is None
    assert (ids(replica), saved(writer)) == ([1, 2, 3], 200)


def test_a_transaction_in_parts_is_seen_whole_or_not_at_all(writer: Writer, replica: ReplicaDatabase) -> None:
    into = target()
    writer.deliver(into, batch(1))
    writer.deliver(into, batch(2))
    assert ids(replica) == []
    writer.deliver(into, batch(3, at=100))
    settle(writer)
    assert ids(replica) == [1, 2, 3]


def test_discarding_a_target_rolls_its_open_parts_back_and_frees_the_writer(
    writer: Writer, replica: ReplicaDatabase
) -> None:
    into = target()
    writer.deliver(into, batch(1))
    waiting = writer.submit(lambda _: "done")
    writer.discard(into, StoppedError("the stream ended"))
    assert waiting.result(WAIT) == "done"
    assert (ids(replica), saved(writer)) == ([], None)
    with pytest.raises(StoppedError):
        writer.deliver(into, batch(2, at=200))


def test_stopping_rolls_back_an_open_part_and_completes_every_future(replica: ReplicaDatabase) -> None:
    made = new_writer(replica)
    made.start()
    made.deliver(target(), batch(1))
    waiting = [made.settle() for _ in range(3)]
    assert made.stop(10.0)
    assert all(future.done() for future in waiting)
    assert ids(replica) == []
    with pytest.raises(StoppedError):
        made.settle()


def test_a_job_runs_before_batches_that_were_delivered_after_it(writer: Writer) -> None:
    """Else a stream that always has a batch waiting keeps copies and their callers out for ever."""
    into = target()
    busy, go_on = threading.Event(), threading.Event()

    def hold(_: duckdb.DuckDBPyConnection) -> None:
        busy.set()
        go_on.wait(WAIT)

    held = writer.submit(hold)
    assert busy.wait(WAIT)
    writer.deliver(into, batch(1, at=100))
    job = writer.submit(lambda cursor: cursor.execute("SELECT count(*) FROM t").fetchall()[0][0])
    writer.deliver(into, batch(2, at=200))
    go_on.set()
    held.result(WAIT)
    assert job.result(WAIT) == 1


def test_a_refused_row_names_its_table_and_leaves_nothing_behind(
    writer: Writer, replica: ReplicaDatabase
) -> None:
    """A zero date is NULL here, which no key takes; the error must let the stream set that table aside."""
    told: Future[DucklingError] = Future()
    into = target(told.set_result)
    both = batch(1, at=100)
    both.buffers += batch(0, at=100, table="d").buffers
    writer.deliver(into, both)
    error = told.result(WAIT)
    assert (ids(replica), saved(writer)) == ([], None)
    assert error.table == "d"
    assert "conflict" not in error.message


def test_an_unexpected_failure_names_its_table(writer: Writer) -> None:
    """Whatever a library raises: one table's rows must not stop all others for ever."""
    told: Future[DucklingError] = Future()
    broken = batch(1, 2, at=100)
    [(_, rows)] = broken.buffers
    assert isinstance(rows, RowBuffer)
    rows.nulls.pop()
    writer.deliver(target(told.set_result), broken)
    assert told.result(WAIT).table == "t"


def test_a_failed_target_takes_no_more_and_others_go_on(writer: Writer, replica: ReplicaDatabase) -> None:
    told: Future[DucklingError] = Future()
    bad, good = target(told.set_result), target()
    writer.deliver(bad, batch(0, at=100, table="d"))
    told.result(WAIT)
    with pytest.raises(ReplicaError):
        writer.deliver(bad, batch(1, at=200))
    writer.deliver(good, batch(2, at=300))
    settle(writer)
    assert ids(replica) == [2]


def test_whoever_is_blocked_by_a_full_queue_is_freed_when_the_target_fails(writer: Writer) -> None:
    busy, go_on = threading.Event(), threading.Event()

    def hold(_: duckdb.DuckDBPyConnection) -> None:
        busy.set()
        go_on.wait(WAIT)

    writer.submit(hold)
    assert busy.wait(WAIT)
    into = target()
    for i in range(2):
        writer.deliver(into, batch(i, at=i))
    ended: Future[None] = Future()

    def third() -> None:
        try:
            writer.deliver(into, batch(9, at=9))
        except BaseException as error:  # noqa: BLE001 - for the test to see
            ended.set_exception(error)
        else:
            ended.set_result(None)

    thread = threading.Thread(target=third)
    thread.start()
    discarding = threading.Thread(target=writer.discard, args=(into, ReplicaError("it failed")))
    discarding.start()
    go_on.set()
    with pytest.raises(ReplicaError, match="it failed"):
        ended.result(WAIT)
    thread.join(WAIT)
    discarding.join(WAIT)
    assert not discarding.is_alive()


def test_a_job_that_fails_is_rolled_back_and_its_caller_told(
    writer: Writer, replica: ReplicaDatabase
) -> None:
    def job(cursor: duckdb.DuckDBPyConnection) -> Any:
        cursor.execute("INSERT INTO t VALUES (1)")
        cursor.execute("SELECT * FROM no_such_table")

    with pytest.raises(ReplicaError):
        writer.submit(job).result(WAIT)
    settle(writer)
    assert ids(replica) == []


def test_after_a_fatal_error_the_file_is_opened_again_and_nothing_committed_is_lost(
    writer: Writer, replica: ReplicaDatabase
) -> None:
    into = target()
    writer.deliver(into, batch(1, 2, at=100))
    settle(writer)

    def gives_up(_: duckdb.DuckDBPyConnection) -> None:
        raise duckdb.FatalException("FATAL Error: database has been invalidated")

    with pytest.raises(ReplicaFatalError):
        writer.submit(gives_up).result(WAIT)
    wait_until(lambda: _answers(writer), "the file is open again")
    resumed = target()
    writer.deliver(resumed, batch(3, at=200))
    settle(writer)
    assert (ids(replica), saved(writer)) == ([1, 2, 3], 200)


def _answers(writer: Writer) -> bool:
    try:
        settle(writer)
    except DucklingError:
        return False
    return True


def fatal(_: duckdb.DuckDBPyConnection) -> None:
    raise ReplicaFatalError("DuckDB gave up", hint="it is opened again")


def test_a_stream_whose_batches_were_dropped_while_the_file_was_shut_is_told(
    replica: ReplicaDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not go on behind them: their rows would be missing, and the position beyond them."""
    told: list[DucklingError] = []
    into = target(told.append)
    opened, attempts = ReplicaDatabase.open, []

    def fails_once(self: ReplicaDatabase) -> None:
        attempts.append(1)
        if len(attempts) == 1:
            writer.deliver(into, batch(1, at=100))  # as another thread may, a moment before
            raise ReplicaError("the disk is away", hint="wait")
        opened(self)

    monkeypatch.setattr(ReplicaDatabase, "open", fails_once)
    with pytest.raises(ReplicaFatalError):
        writer.submit(fatal).result(WAIT)
    wait_until(lambda: told, "the stream is told")
    with pytest.raises(ReplicaError, match="away"):
        writer.deliver(into, batch(2, at=200))
    wait_until(lambda: len(attempts) > 1 and writer._queue.failed is None, "the file is open again")
    settle(writer)
    assert (ids(replica), saved(writer)) == ([], None)


def test_a_writer_outlives_a_memory_limit_that_can_not_be_noted(
    replica: ReplicaDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[type[DucklingError]] = []

    for kind in (ReplicaError, ReplicaFatalError):

        def refuses(*_: object, kind: type[DucklingError] = kind) -> None:
            refused.append(kind)
            raise kind("DuckDB can't write its file", hint="check the disk")

        monkeypatch.setattr("cdc.replica.write_session.state.remember", refuses)
        replica.memory.bytes += 1
        settle(writer)
        wait_until(lambda: kind in refused, "it was tried")  # noqa: B023
        wait_until(lambda: writer._queue.failed is None and not writer._busy, "the file is open")
        writer.deliver(target(), batch(len(refused), at=100 * len(refused)))
        settle(writer)
    assert writer.alive
    assert ids(replica) == [1, 2]


def test_a_file_that_a_query_keeps_from_being_closed_is_opened_again_when_it_ends(
    replica: ReplicaDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB gives the same engine again for a file that is still open, with its configuration locked."""
    monkeypatch.setattr("cdc.replica.database._CLOSE_TRIES", 2)
    go_on, began = threading.Event(), threading.Event()

    def waits(value: int) -> int:
        began.set()
        go_on.wait(WAIT * 10)
        return value

    reader = replica.cursor()
    reader.create_function("waits", waits, ["BIGINT"], "BIGINT")
    thread = threading.Thread(target=lambda: suppressed(reader))
    thread.start()
    assert began.wait(WAIT)
    with pytest.raises(ReplicaFatalError):
        writer.submit(fatal).result(WAIT * 3)
    wait_until(lambda: writer._queue.failed, "closing failed")
    go_on.set()
    thread.join(WAIT)
    wait_until(lambda: writer._queue.failed is None, "the file is open again")
    writer.deliver(target(), batch(5, at=500))
    settle(writer)
    assert ids(replica) == [5]


def suppressed(reader: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):  # it is interrupted, or its file closed
        reader.execute("SELECT waits(1)").fetchall()


def test_many_small_commits_are_checkpointed_so_that_a_start_is_quick(
    replica: ReplicaDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit in the write-ahead log takes its time when it is replayed, however little it holds."""
    monkeypatch.setattr("cdc.replica.checkpoints._MOST_COMMITS", 50)
    sizes = []
    for number in range(1, 121):
        writer.deliver(target(), batch(number, at=number))
        settle(writer)
        sizes.append(replica.wal_bytes)
    falls = [at for at, (before, after) in enumerate(itertools.pairwise(sizes)) if after < before]
    assert len(falls) >= 2
    assert len(ids(replica)) == 120


def test_a_log_that_a_start_had_to_replay_is_not_left_to_the_next_start(
    replica: ReplicaDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that is killed again and again would come to no checkpoint by its own commits."""
    monkeypatch.setattr("cdc.replica.checkpoints._WORTH", 1 << 10)
    for number in range(30):
        writer.deliver(target(), batch(number, at=number))
    settle(writer)
    assert writer.stop(WAIT)
    replica.close(checkpoint=False)
    left = replica.wal_bytes
    replica.open()
    assert replica.wal_bytes == left > 1 << 10
    again = new_writer(replica)
    again.start()
    again.deliver(target(), batch(30, at=30))
    again.submit(lambda _: None).result(WAIT)
    assert again.stop(WAIT)
    assert replica.wal_bytes < 1 << 10
    assert len(ids(replica)) == 31


# Notes: jobs that are content to be part of the next one's transaction ---------------------------------


def transaction(cursor: duckdb.DuckDBPyConnection) -> int:
    found: int = cursor.execute("SELECT txid_current()").fetchall()[0][0]
    return found


def insert(i: int) -> Callable[[duckdb.DuckDBPyConnection], None]:
    def job(cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.execute("INSERT INTO t VALUES (?)", [i])

    return job


def fail(_: duckdb.DuckDBPyConnection) -> None:
    raise ReplicaError("no", hint="none")


def held(writer: Writer) -> Callable[[], None]:
    """Keeps the writer from everything else until the returned function is called."""
    busy, go_on = threading.Event(), threading.Event()

    def hold(_: duckdb.DuckDBPyConnection) -> None:
        busy.set()
        go_on.wait(WAIT)

    writer.submit(hold)
    assert busy.wait(WAIT)
    return go_on.set


def test_a_note_is_part_of_the_next_jobs_transaction(writer: Writer) -> None:
    let_go = held(writer)
    note = writer.note(transaction)
    other = writer.note(transaction)
    job = writer.submit(transaction)
    let_go()
    assert note.result(WAIT) == other.result(WAIT) == job.result(WAIT)


def test_a_note_that_no_job_comes_for_gets_a_transaction_of_its_own(
    writer: Writer, replica: ReplicaDatabase
) -> None:
    writer.note(insert(1)).result(WAIT)
    assert ids(replica) == [1]


def test_a_note_does_not_keep_batches_waiting(writer: Writer) -> None:
    let_go = held(writer)
    note = writer.note(lambda cursor: cursor.execute("SELECT count(*) FROM t").fetchall()[0][0])
    writer.deliver(target(), batch(1, at=100))
    let_go()
    assert note.result(WAIT) == 1
    wait_until(writer.hungry, "the writer is idle")


def test_a_job_that_fails_takes_no_note_with_it_and_a_note_that_fails_no_job(
    writer: Writer, replica: ReplicaDatabase
) -> None:
    let_go = held(writer)
    good, bad = writer.note(insert(1)), writer.note(fail)
    failing, working = writer.submit(fail), writer.submit(insert(2))
    let_go()
    good.result(WAIT)
    working.result(WAIT)
    for each in (bad, failing):
        with pytest.raises(ReplicaError):
            each.result(WAIT)
    assert ids(replica) == [1, 2]


def test_a_note_within_a_transaction_in_parts_waits_for_its_end(
    writer: Writer, replica: ReplicaDatabase
) -> None:
    into = target()
    writer.deliver(into, batch(1))
    note = writer.note(insert(5))
    writer.deliver(into, batch(2))
    writer.deliver(into, batch(3, at=100))
    note.result(WAIT)
    assert (ids(replica), saved(writer)) == ([1, 2, 3, 5], 100)


def test_a_note_that_is_withdrawn_in_time_is_not_written(writer: Writer, replica: ReplicaDatabase) -> None:
    let_go = held(writer)
    note, other = writer.note(insert(1)), writer.note(insert(2))
    assert writer.withdraw(note)
    assert not writer.withdraw(note)
    let_go()
    other.result(WAIT)
    assert not writer.withdraw(other)
    assert (ids(replica), note.done()) == ([2], False)


def test_stopping_writes_the_notes(replica: ReplicaDatabase) -> None:
    made = new_writer(replica, clock=lambda: 0.0)  # no note is ever due
    made.start()
    note = made.note(insert(1))
    assert made.stop(10.0)
    note.result(0)
    assert ids(replica) == [1]
    with pytest.raises(StoppedError):
        made.note(insert(2))


def test_notes_are_refused_with_the_file(writer: Writer, replica: ReplicaDatabase) -> None:
    """As jobs are: whoever waits is told."""
    let_go = held(writer)
    note = writer.note(insert(1))
    writer._queue.fail(ReplicaError("the file is gone", hint="none"))
    let_go()
    with pytest.raises(ReplicaError):
        note.result(WAIT)
    with pytest.raises(ReplicaError):
        writer.note(insert(2))
    assert ids(replica) == []


def test_a_note_comes_to_its_turn_beside_a_stream_that_never_falls_idle(writer: Writer) -> None:
    into = target()
    enough = threading.Event()

    def pump() -> None:
        for number in itertools.count(1):
            writer.deliver(into, batch(number, at=number))
            if enough.is_set():
                return

    pumping = threading.Thread(target=pump)
    pumping.start()
    try:
        wait_until(lambda: into.applied, "batches come")
        writer.note(lambda _: None).result(WAIT)
    finally:
        enough.set()
        pumping.join()


def test_a_note_outlasts_a_job_for_which_the_file_is_opened_again(
    writer: Writer, replica: ReplicaDatabase
) -> None:
    def fatal(_: duckdb.DuckDBPyConnection) -> None:
        raise ReplicaFatalError("DuckDB gave up", hint="it is opened again")

    let_go = held(writer)
    note = writer.note(insert(1))
    job = writer.submit(fatal)
    let_go()
    with pytest.raises(ReplicaFatalError):
        job.result(WAIT)
    note.result(WAIT)
    assert ids(replica) == [1]


def test_discarding_a_target_beside_a_writer_that_dies_does_not_wait_for_ever(
    replica: ReplicaDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = new_writer(replica)
    ending, go_on = threading.Event(), threading.Event()
    close = made._session.close

    def slow_close() -> None:
        ending.set()
        go_on.wait(WAIT)
        close()

    def fault() -> None:
        raise UnforeseenError("as no library should")

    monkeypatch.setattr(made._session, "close", slow_close)
    into = target()
    into.on_idle = fault
    made.start()
    made.attach(into)
    made.settle().result(WAIT)
    assert ending.wait(WAIT)
    discarding = threading.Thread(target=made.discard, args=(into, StoppedError("it ends", hint="none")))
    discarding.start()
    discarding.join(WAIT)
    go_on.set()
    assert not discarding.is_alive()
    with pytest.raises(ReplicaError):
        made.deliver(target(), batch(1, at=1))


class UnforeseenError(Exception):
    """What nobody foresaw."""
