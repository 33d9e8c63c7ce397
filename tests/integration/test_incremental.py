"""Incremental syncs by the log: they end when all is applied, and not before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from cdc.errors import DucklingError, ReplicaError, RunCancelledError
from cdc.incremental import LogEnd
from cdc.position import Position
from cdc.replica.batch_transactions import BatchTransactions
from cdc.replica.target import BatchTarget
from cdc.replica.write_session import WriteSession
from cdc.runs import Run
from cdc.sandbox.databases import Database
from cdc.source.batcher import Batch
from cdc.source.meetings import Meeting
from cdc.source.stream import BinlogReader
from cdc.stream_loop import StreamLoop
from tests.replica import Replica
from tests.sessions import dump_threads
from tests.waiting import SECONDS, wait_until

pytestmark = [pytest.mark.timeout(90), pytest.mark.crossed]


def test_an_incremental_sync_returns_when_what_was_committed_before_is_applied(
    database: Database, replica: Replica
) -> None:
    database.execute("CREATE TABLE ticks (id INT PRIMARY KEY)")
    replica.start()
    for tick in range(20):
        database.execute(f"INSERT INTO ticks VALUES ({tick})")
        replica.catch_up()
        assert replica.value("SELECT max(id) FROM ticks") == tick


def test_an_incremental_sync_does_not_take_a_refused_batch_for_applied(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader may not have heard of the refusal when the sync looks whether the stream is up."""
    database.execute("CREATE TABLE ticks (id INT PRIMARY KEY)")
    replica.start()
    apply, position, fail, meet = (
        BatchTransactions._apply,
        LogEnd.position,
        BinlogReader.fail,
        StreamLoop.meet,
    )
    met = threading.Event()
    refused: list[Batch] = []
    asked: list[LogEnd] = []
    failures: list[Callable[[], None]] = []

    def refuse_one(batches: BatchTransactions, target: BatchTarget, batch: Batch, replace: bool) -> None:
        if batch.rows and not refused:
            refused.append(batch)
            met.wait(SECONDS)
            raise ReplicaError("the disk is full", hint="make room")
        apply(batches, target, batch, replace)

    def watched(stream: StreamLoop, target: Position | None, *, hold: bool = False) -> Meeting:
        meeting = meet(stream, target, hold=hold)
        meeting.reached.add_done_callback(lambda _: met.set())
        return meeting

    def heard_of_it_late(log_end: LogEnd) -> Position:
        asked.append(log_end)
        if len(asked) > 1:
            for failure in failures:
                failure()
        return position(log_end)

    monkeypatch.setattr(BatchTransactions, "_apply", refuse_one)
    monkeypatch.setattr(StreamLoop, "meet", watched)
    monkeypatch.setattr(LogEnd, "position", heard_of_it_late)
    monkeypatch.setattr(BinlogReader, "fail", lambda *args: failures.append(lambda: fail(*args)))
    database.execute("INSERT INTO ticks VALUES (1)")
    with suppress(ReplicaError):  # it may say so, or wait until the batch has come again
        replica.catch_up()
        assert replica.value("SELECT count(*) FROM ticks") == 1
    assert len(asked) > 1
    replica.settle()
    replica.assert_equal()


def test_an_incremental_sync_can_be_cancelled_while_the_stream_waits_for_the_writer(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream has lost its connection, and can't end before the writer is through with what it has in hand."""
    database.execute("CREATE TABLE ticks (id INT PRIMARY KEY)")
    replica.start()
    replica.catch_up()
    go_on = threading.Event()
    position, pause = LogEnd.position, Run.pause
    asked: list[LogEnd] = []
    paused: list[float] = []

    def count(log_end: LogEnd) -> Position:
        asked.append(log_end)
        return position(log_end)

    def cancelled_at_the_third(run: Run, seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 3:
            run.cancel()
        pause(run, seconds)

    monkeypatch.setattr(LogEnd, "position", count)
    monkeypatch.setattr(Run, "pause", cancelled_at_the_third)
    replica.pipeline._engine.writer.submit(lambda _: go_on.wait(SECONDS))
    try:
        for dump in dump_threads(database.server.url()):
            database.execute(f"KILL {dump}")
        wait_until(lambda: not replica.pipeline._stream.reader or not _meets(replica), "the reader has ended")
        with pytest.raises(RunCancelledError):
            replica.catch_up()
    finally:
        go_on.set()
    assert len(paused) == 3
    assert len(asked) <= 3


def _meets(replica: Replica) -> bool:
    try:
        replica.pipeline._stream.meet(None).reached.result(SECONDS)
    except DucklingError:
        return False
    return True


def test_an_incremental_sync_with_nothing_new_writes_nothing_but_its_record(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE ticks (id INT PRIMARY KEY)", "INSERT INTO ticks VALUES (1)")
    replica.start()
    replica.catch_up()
    replica.pipeline.recent_runs(1)  # its record is written
    commit = WriteSession.commit
    commits: list[WriteSession] = []
    # However slow the machine is: the beginning waits for the end, and a look at the log for both.
    monkeypatch.setattr("cdc.replica.write_queue._NOTE_PATIENCE", SECONDS)
    monkeypatch.setattr("cdc.run_recorder._READ_PATIENCE", SECONDS)

    def counted(session: WriteSession) -> None:
        commits.append(session)
        commit(session)

    monkeypatch.setattr(WriteSession, "commit", counted)
    replica.catch_up()
    replica.pipeline.recent_runs(1)
    assert len(commits) == 1
