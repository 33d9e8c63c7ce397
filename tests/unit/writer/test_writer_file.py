"""The file under the writer: opened again, kept from closing, checkpointed."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import duckdb
import pytest

from cdc.errors import DucklingError, ReplicaError, ReplicaFatalError
from cdc.replica.database import ReplicaDatabase
from cdc.replica.writer import Writer
from tests.unit.writer.batches import WAIT, batch, ids, new_writer, saved, settle, target
from tests.waiting import wait_until


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
        replica.memory.base += 1
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
    monkeypatch.setattr("cdc.replica.checkpoints.SMALL_LOG", 1 << 10)
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


def test_who_reads_waits_while_the_file_is_opened_again(
    replica: ReplicaDatabase, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for long: memory was lacking, say. Where it can't be opened, they are told at once."""
    writer.deliver(target(), batch(1, 2, at=100))
    settle(writer)
    begun, go_on = threading.Event(), threading.Event()
    opened = ReplicaDatabase.open

    def opens_late(self: ReplicaDatabase) -> None:
        begun.set()
        assert go_on.wait(WAIT)
        opened(self)

    monkeypatch.setattr(ReplicaDatabase, "open", opens_late)
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(ReplicaFatalError):
            writer.submit(fatal).result(WAIT)
        assert begun.wait(WAIT)
        asked = threads.submit(ids, replica)
        wait_until(lambda: replica._changed._waiters, "the reader waits")  # type: ignore[attr-defined]
        assert not asked.done()
        go_on.set()
        assert asked.result(WAIT) == [1, 2]

    def fails_once(_: ReplicaDatabase) -> None:
        monkeypatch.setattr(ReplicaDatabase, "open", opened)
        wait_until(lambda: replica._changed._waiters, "the reader waits")  # type: ignore[attr-defined]
        raise ReplicaError("the disk is away", hint="wait")

    monkeypatch.setattr(ReplicaDatabase, "open", fails_once)
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(ReplicaFatalError):
            writer.submit(fatal).result(WAIT)
        asked = threads.submit(ids, replica)
        with suppress(ReplicaError):  # or it met the file that was open a moment later
            assert asked.result(WAIT) == [1, 2]
    wait_until(lambda: _answers(writer), "the file is open again")
    assert ids(replica) == [1, 2]
