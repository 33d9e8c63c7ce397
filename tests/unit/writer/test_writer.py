"""The one thread that writes, on a real DuckDB file: order, transactions, failures."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import duckdb
import pytest

from cdc.errors import DucklingError, ReplicaError, StoppedError
from cdc.replica.database import ReplicaDatabase
from cdc.replica.writer import Writer
from cdc.source.rows import RowBuffer
from tests.unit.writer.batches import WAIT, batch, ids, new_writer, saved, settle, target


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
    rows.ops[-1] = 3  # the image before an update that does not follow
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
