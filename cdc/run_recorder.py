"""What the log of runs and the metrics are told of runs: that one was asked for, and how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

import duckdb
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError, StoppedError, as_duckling
from cdc.replica import run_log
from cdc.runs import Run
from cdc.status import SyncResult, TableResult

log = structlog.get_logger(__name__)

T = TypeVar("T")
_Job = Callable[[duckdb.DuckDBPyConnection], None]

_READ_PATIENCE = 0.5
"""Seconds that a look at the log waits for what is being written to it: the writer may be at something long."""


class RunRecorder:
    """Has the writer note the runs of one database. That it could not is logged, and no reason to stop.

    A beginning is a note that goes with another job's transaction, and is withdrawn where the end comes first.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._beginnings: dict[str, Future[None]] = {}
        """Of the runs under way, by id."""
        self._lock = threading.Lock()
        self._latest: Future[None] | None = None
        """What was given to the writer last, until a look has waited for it."""

    def begin(self, run: Run) -> None:
        """The run was asked for, or begins by itself."""
        noted = self._record(self._engine.writer.note, lambda cursor: run_log.begin(cursor, run))
        if noted is not None:
            self._beginnings[run.id] = noted

    def end(self, run: Run, result: SyncResult | None, error: DucklingError | None) -> Future[None] | None:
        """The run has ended with `result` or `error`. Returns what is done once that is in the log, or can't be;
        None where the writer takes nothing any more."""
        status = "success" if error is None else "cancelled" if isinstance(error, StoppedError) else "error"
        self._engine.metrics.sync_ended(run.kind, status, time.monotonic() - run.started)
        noted = self._beginnings.pop(run.id, None)
        if noted is not None:
            self._engine.writer.withdraw(noted)  # where it still waits: the end says all of it

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            run_log.end(
                cursor,
                run,
                status,
                _worth_noting(run, result),
                records=result.total if result is not None else None,
                duration_ms=result.duration_ms if result is not None else 0,
                error=error.message if error is not None else None,
                error_code=error.code if error is not None else None,
            )

        return self.write(job)

    def write(self, job: _Job) -> Future[None] | None:
        """Has `job` write to the log of runs, in a transaction of its own. Returns as `end` does."""
        with self._lock:
            future = self._record(self._engine.writer.submit, job)
            self._latest = future or self._latest
        return future

    def _record(self, submit: Callable[[_Job], Future[None]], job: _Job) -> Future[None] | None:
        try:
            future = submit(job)
        except DucklingError as failure:
            log.warning("sync.not_logged", database=self._engine.id, error=failure.message)
            return None
        future.add_done_callback(self._recorded)
        return future

    def read(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """What `question` finds in the log of runs: all that has ended is in there, unless the writer is busy."""
        latest = self._latest
        if latest is not None:
            wait([latest], timeout=_READ_PATIENCE)
            with self._lock:
                if self._latest is latest:
                    self._latest = None  # no look waits for it again
        return self._engine.replica.read(question)

    def _recorded(self, future: Future[None]) -> None:
        failure = future.exception()
        if failure is not None:
            error = as_duckling(failure, "the log of runs")
            log.warning("sync.not_logged", database=self._engine.id, error=error.message)


def _worth_noting(run: Run, result: SyncResult | None) -> tuple[TableResult, ...]:
    """Tables that get a row in the log of runs; of an incremental sync only those that had something."""
    if result is None:
        return ()
    if run.kind != "incremental":
        return result.tables
    return tuple(each for each in result.tables if each.records or each.error)
