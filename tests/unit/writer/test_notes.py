"""Notes: jobs that are content to be part of the next one's transaction."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import duckdb
import pytest

from cdc.errors import ReplicaError, ReplicaFatalError, StoppedError
from cdc.replica.database import ReplicaDatabase
from cdc.replica.writer import Writer
from tests.unit.writer.batches import WAIT, batch, held, ids, new_writer, saved, target
from tests.waiting import wait_until


def transaction(cursor: duckdb.DuckDBPyConnection) -> int:
    found: int = cursor.execute("SELECT txid_current()").fetchall()[0][0]
    return found


def insert(i: int) -> Callable[[duckdb.DuckDBPyConnection], None]:
    def job(cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.execute("INSERT INTO t VALUES (?)", [i])

    return job


def fail(_: duckdb.DuckDBPyConnection) -> None:
    raise ReplicaError("no", hint="none")


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
