"""The validations of one database: started, followed, cancelled, and what they found."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

import duckdb
import structlog

from cdc.engine import Engine
from cdc.errors import ConflictError, DucklingError, RunCancelledError, StoppedError, as_duckling
from cdc.replica import run_log
from cdc.run_recorder import RunRecorder
from cdc.runs import Run
from cdc.status import SyncResult, TableComparison, TableResult, ValidationReport
from cdc.stream_loop import StreamLoop
from cdc.validation.validation import Validation

log = structlog.get_logger(__name__)

_KEPT = 100


class ValidationRun(Run):
    """One validation, under way or done; `report` is there once it has succeeded."""

    def __init__(self, tables: tuple[str, ...] = ()) -> None:
        super().__init__("validation", tables)
        self._report: ValidationReport | None = None

    def report(self, timeout: float | None = None) -> ValidationReport:
        """What was found; raises the error that ended the run, TimeoutError after `timeout` seconds."""
        self.wait(timeout)
        assert self._report is not None
        return self._report

    def complete(self, report: ValidationReport) -> None:
        """The run has ended with `report`."""
        self._report = report
        self.succeed(SyncResult(_repairs(report), report.duration_ms))

    def check_cancelled(self) -> None:
        """Raises RunCancelledError once the run is to end."""
        if self.cancelled:
            raise RunCancelledError("the validation was cancelled", hint="start it again")


class Validations:
    """Each in a thread of its own. Contents are compared by one at a time, for they keep the source busy."""

    def __init__(
        self,
        engine: Engine,
        stream: Callable[[], StreamLoop | None],
        *,
        needs_copy: Callable[[list[str]], None],
    ) -> None:
        """`stream` gives what ties both sides together, None where rows come by watermarks."""
        self._engine = engine
        self._recorder = RunRecorder(engine)
        self._stream = stream
        self._needs_copy = needs_copy
        self._lock = threading.Lock()
        self._runs: deque[ValidationRun] = deque(maxlen=_KEPT)
        self._comparing: ValidationRun | None = None
        self._stopping = False

    def start(
        self, mode: Literal["count", "checksum"], table: str | None, *, repair: bool = False
    ) -> ValidationRun:
        """Begins one. Raises ConflictError while contents are being compared already."""
        run = ValidationRun((table,) if table is not None else ())
        with self._lock:
            if self._stopping:
                raise StoppedError("the service is stopping", hint="try again when it is back")
            if mode == "checksum":
                if self._comparing is not None and not self._comparing.done:
                    raise ConflictError(
                        "the contents of this database are being compared",
                        hint="wait for it",
                        code="VALIDATION_ALREADY_RUNNING",
                    )
                self._comparing = run
            self._runs.append(run)
        validation = Validation(self._engine, self._stream(), run, mode, table, repair=repair)
        threading.Thread(
            target=self._carry_out,
            args=(run, validation, repair),
            name=f"validation-{self._engine.id}",
            daemon=True,
        ).start()
        return run

    def run(self, run_id: str) -> ValidationRun | None:
        """A validation by its id."""
        with self._lock:
            return next((run for run in self._runs if run.id == run_id), None)

    def stop(self) -> None:
        """Cancels what is under way; nothing new begins."""
        with self._lock:
            self._stopping = True
            running = [run for run in self._runs if not run.done]
        for run in running:
            run.cancel()

    # The thread --------------------------------------------------------------------------------------

    def _carry_out(self, run: ValidationRun, validation: Validation, repair: bool) -> None:
        started = time.monotonic()
        try:
            if repair:
                self._record(lambda cursor: run_log.begin(cursor, run))
            report = validation.carry_out()
        except Exception as failure:
            if not isinstance(failure, DucklingError):
                log.exception("validation.unexpected", database=self._engine.id)
            self._failed(run, as_duckling(failure, "the validation"), repair, time.monotonic() - started)
            return
        again = [each.table for each in report.results if each.repair and each.repair.copied_again]
        if again:
            self._needs_copy(again)
        if repair:
            self._record(
                lambda cursor: run_log.end(
                    cursor, run, "success", _repairs(report), duration_ms=report.duration_ms
                )
            )
        equal = sum(each.matches for each in report.results)
        self._engine.metrics.validated(equal=equal, different=len(report.results) - equal, at=time.time())
        _log_differences(self._engine.id, report)
        run.complete(report)

    def _failed(self, run: ValidationRun, error: DucklingError, repair: bool, seconds: float) -> None:
        cancelled = isinstance(error, StoppedError)
        if not cancelled:
            self._engine.metrics.error_met(error.code)
            self._engine.metrics.validation_failed()
            log.warning(
                "validation.failed",
                database=self._engine.id,
                code=error.code,
                error=error.message,
                hint=error.hint,
            )
        if repair:
            self._record(
                lambda cursor: run_log.end(
                    cursor,
                    run,
                    "cancelled" if cancelled else "error",
                    duration_ms=round(seconds * 1000),
                    error=error.message,
                    error_code=error.code,
                )
            )
        run.fail(error)

    def _record(self, job: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        """Notes a repair in the log of runs, and waits for that."""
        recorded = self._recorder.write(job)
        if recorded is not None:
            recorded.exception()


def _repairs(report: ValidationReport) -> tuple[TableResult, ...]:
    return tuple(
        TableResult(each.table, each.repair.rows, report.duration_ms, "success", "repair")
        for each in report.results
        if each.repair is not None
    )


def _log_differences(database: str, report: ValidationReport) -> None:
    for each in report.results:
        if not each.matches:
            _log_difference(database, each)


def _log_difference(database: str, each: TableComparison) -> None:
    log.warning(
        "validation.difference",
        database=database,
        table=each.table,
        source_rows=each.source_rows,
        copy_rows=each.replica_rows,
        missing=each.missing,
        extra=each.extra,
        changed=each.changed,
        error=each.error,
        repaired=each.repair is not None,
    )
