"""What the log of runs holds, whichever of a run's beginning and end comes to be written, and how looks wait for it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import duckdb
import pytest

from cdc.engine import Engine
from cdc.errors import ReplicaError
from cdc.metrics import Metrics
from cdc.replica import run_log
from cdc.replica.database import ReplicaDatabase
from cdc.replica.writer import Writer
from cdc.run_recorder import RunRecorder
from cdc.runs import Run
from cdc.status import SyncResult
from tests.unit.writer.batches import WAIT, held, new_writer

DONE = SyncResult((), 7, records=3)


def recorder(writer: Writer, replica: ReplicaDatabase) -> RunRecorder:
    metrics = Metrics().for_database("default")
    parts = SimpleNamespace(id="default", writer=writer, replica=replica, metrics=metrics)
    return RunRecorder(cast(Engine, parts))


def told(replica: ReplicaDatabase) -> list[tuple[Any, ...]]:
    records = replica.read(lambda cursor: run_log.latest(cursor, 100))
    return [(each.status, each.records, each.duration_ms, each.ended_at is not None) for each in records]


def end(of: RunRecorder, run: Run) -> None:
    written = of.end(run, DONE, None)
    assert written is not None
    written.result(WAIT)


def test_a_run_that_ends_before_its_beginning_is_written_is_one_row(
    writer: Writer, replica: ReplicaDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Run] = []
    monkeypatch.setattr(run_log, "begin", lambda _cursor, run: begun.append(run))
    let_go = held(writer)
    of, run = recorder(writer, replica), Run("incremental")
    of.begin(run)
    written = of.end(run, DONE, None)
    let_go()
    assert written is not None
    written.result(WAIT)
    assert (told(replica), begun) == ([("success", 3, 7, True)], [])


def test_a_run_whose_beginning_is_written_is_the_same_row_at_its_end(
    writer: Writer, replica: ReplicaDatabase
) -> None:
    of, run = recorder(writer, replica), Run("full")
    of.begin(run)
    writer.submit(lambda _: None).result(WAIT)
    assert told(replica) == [("running", 0, 0, False)]
    end(of, run)
    assert told(replica) == [("success", 3, 7, True)]


def test_a_beginning_that_could_not_be_written_costs_the_end_nothing(
    writer: Writer, replica: ReplicaDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_cursor: duckdb.DuckDBPyConnection, _run: Run) -> None:
        raise ReplicaError("no", hint="none")

    monkeypatch.setattr(run_log, "begin", fail)
    of, run = recorder(writer, replica), Run("full")
    of.begin(run)
    writer.submit(lambda _: None).result(WAIT)
    end(of, run)
    assert told(replica) == [("success", 3, 7, True)]


def test_a_run_whose_end_the_stopping_writer_refuses_is_there_as_running(replica: ReplicaDatabase) -> None:
    made = new_writer(replica)
    made.start()
    let_go = held(made)
    of, run = recorder(made, replica), Run("full")
    of.begin(run)
    made._queue.stop()
    assert of.end(run, DONE, None) is None
    let_go()
    assert made.stop(WAIT)
    assert told(replica) == [("running", 0, 0, False)]


def test_a_look_waits_for_what_is_being_written(writer: Writer, replica: ReplicaDatabase) -> None:
    of, run = recorder(writer, replica), Run("incremental")
    of.begin(run)
    of.end(run, DONE, None)
    assert [each.id for each in of.read(lambda cursor: run_log.latest(cursor, 10))] == [run.id]


def test_no_two_looks_wait_for_a_writer_that_is_at_something_long(
    writer: Writer, replica: ReplicaDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def wait_in_vain(_futures: object, timeout: float) -> None:
        waits.append(timeout)

    monkeypatch.setattr("cdc.run_recorder.wait", wait_in_vain)
    let_go: Callable[[], None] = held(writer)
    of, run = recorder(writer, replica), Run("incremental")
    written = of.end(run, DONE, None)
    for _ in range(3):
        assert of.read(lambda cursor: run_log.latest(cursor, 10)) == []
    assert len(waits) == 1
    let_go()
    assert written is not None
    written.result(WAIT)
    assert told(replica) == [("success", 3, 7, True)]
