"""What the log of runs and the metrics are told of runs: that one was asked for, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

import duckdb
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError, StoppedError, as_duckling
from cdc.replica import run_log
from cdc.runs import Run
from cdc.status import SyncResult, TableResult

log = structlog.get_logger(__name__)

_Job = Callable[[duckdb.DuckDBPyConnection], None]


class RunRecorder:
    """Has the writer note the runs of one database. That it could not is logged, and no reason to stop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def begin(self, run: Run) -> None:
        """The run was asked for, or begins by itself."""
        self._record(self._engine.writer.note, lambda cursor: run_log.begin(cursor, run))

    def end(self, run: Run, result: SyncResult | None, error: DucklingError | None) -> Future[None] | None:
        """The run has ended with `result` or `error`. Returns what is done once that is in the log, or can't be;
        None where the writer takes nothing any more."""
        status = "success" if error is None else "cancelled" if isinstance(error, StoppedError) else "error"
        self._engine.metrics.sync_ended(run.kind, status, time.monotonic() - run.started)

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
        return self._record(self._engine.writer.submit, job)

    def _record(self, submit: Callable[[_Job], Future[None]], job: _Job) -> Future[None] | None:
        try:
            future = submit(job)
        except DucklingError as failure:
            log.warning("sync.not_logged", database=self._engine.id, error=failure.message)
            return None
        future.add_done_callback(self._recorded)
        return future

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
