"""One database: its file, its writer, its stream and its syncs, started and stopped together."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import duckdb
import structlog

from cdc.config import Settings
from cdc.engine import Engine
from cdc.errors import (
    ConflictError,
    DucklingError,
    NotFoundError,
    RunCancelledError,
    SourceUnavailableError,
    recalled,
)
from cdc.liveness import lifeless
from cdc.metrics import DatabaseMetrics
from cdc.reopening import reopen
from cdc.replica import run_log, state, tables
from cdc.replica.database import ReplicaDatabase
from cdc.replica.watermarks import Watermark
from cdc.replica.writer import Writer
from cdc.runs import Run
from cdc.source.connection import SourceEndpoint
from cdc.source.log_findings import concerns_log
from cdc.source.preflight import Finding, require
from cdc.source_monitor import SourceMonitor
from cdc.status import (
    PipelineStatus,
    SyncLogEntry,
    SyncResult,
    ValidationReport,
)
from cdc.status_report import pipeline_status
from cdc.syncs import Syncs
from cdc.validation.details import TableDetails, table_details
from cdc.validation.validations import ValidationRun, Validations

log = structlog.get_logger(__name__)


class Pipeline:
    """Keeps one DuckDB file equal to one MySQL database.

    `check_start` opens the file and looks at the source, and raises what is wrong; `start` does the rest in
    threads and reports in `status`.
    """

    def __init__(
        self,
        database_id: str,
        settings: Settings,
        metrics: DatabaseMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = database_id
        self.settings = settings
        self._clock = clock
        replica = ReplicaDatabase(
            settings.duckdb_path,
            memory_limit=settings.duckdb_memory_limit,
            threads=settings.duckdb_threads,
            name=database_id,
        )
        writer = Writer(
            replica,
            metrics,
            name=database_id,
            checkpoint_wal_bytes=settings.checkpoint_wal_bytes,
            checkpoint_idle=settings.checkpoint_idle,
        )
        self._engine = Engine(database_id, settings, SourceEndpoint(settings), replica, writer, metrics)
        self._syncs = Syncs(self._engine, clock=clock)
        self._stream = self._syncs.stream
        self._validations = Validations(
            self._engine,
            lambda: None if self._syncs.mode == "polling" else self._stream,
            needs_copy=self._syncs.queue.want_copies,
        )
        self._monitor = SourceMonitor(self._engine, lambda: self._stream.applied)
        self._opened = False
        self._started = False

    # Start and stop ----------------------------------------------------------------------------------

    def check_start(self) -> None:
        """Opens the file and looks at the source. Raises the DucklingError that forbids a start."""
        findings: list[Finding] = []
        try:
            self._open()
            _, _, findings = self._engine.inspect()
            self._syncs.fallback.learn(findings)
            polling = self._syncs.mode == "polling"
            require(finding for finding in findings if not (polling and concerns_log(finding)))
        except SourceUnavailableError as error:
            if self._engine.position() is None:
                self._close()
                raise
            # There is a copy to read, and the source may come back: that is what retrying is for.
            log.warning("source.unavailable", database=self.id, error=error.message, hint=error.hint)
        except DucklingError:
            self._close()
            raise
        for finding in findings:
            if finding.severity != "info":
                log.warning(
                    "preflight.finding",
                    database=self.id,
                    code=finding.code,
                    severity=finding.severity,
                    subject=finding.subject,
                    finding=finding.message,
                    fix=finding.fix,
                )

    def _close(self) -> None:
        self._engine.replica.close()
        self._opened = False

    def _open(self) -> None:
        if not self._opened:
            reopen(self._engine)
            self._opened = True

    def start(self) -> None:
        """Opens the file if need be and starts the threads; returns at once. Raises ReplicaError."""
        self._open()
        if self._started:
            return
        self._started = True
        self._engine.writer.start()
        self._monitor.start()
        self._syncs.start()

    def stop(self, timeout: float = 9.0) -> None:
        """Ends everything within `timeout` seconds: the batch in hand is committed, the file closed."""
        deadline = self._clock() + timeout
        self._validations.stop()
        self._syncs.begin_stop()
        self._stream.stop(max(0.1, (deadline - self._clock()) * 0.6))
        self._engine.endpoint.close()
        self._monitor.stop(max(0.1, deadline - self._clock()))
        if self._started:
            # A sync that is cut short drops its staging tables through the writer, so it ends first.
            self._syncs.join((deadline - self._clock()) * 0.5)
            # A copy that ended in spite of all has started it again.
            self._stream.stop(max(0.1, (deadline - self._clock()) * 0.5))
            ended = self._engine.writer.stop(max(0.1, deadline - self._clock()))
            self._syncs.join(deadline - self._clock())
            self._syncs.close_sessions()
            if not ended:
                log.error("pipeline.stop_timed_out", database=self.id, seconds=timeout)
        self._engine.replica.close()

    def start_stream(self) -> None:
        """Starts the stream, or lets the first copy start it. Starting twice is fine."""
        self._syncs.start_stream()

    def stop_stream(self) -> None:
        """Stops the stream at a transaction boundary; what was read before is committed."""
        self._syncs.stop_stream()
        self._engine.writer.settle().result()

    def wait_streaming(self, timeout: float) -> None:
        """See `cdc.syncs.Syncs.wait_streaming`."""
        self._syncs.wait_streaming(timeout)

    # Syncs -------------------------------------------------------------------------------------------

    def start_full_sync(self) -> Run:
        """Copies every table. Raises ConflictError while another sync runs."""
        return self._syncs.queue.ask(Run("full"))

    def start_table_sync(self, table: str, mode: Literal["full"] | None = None) -> Run:
        """A watermark sync of one table, where it has a watermark and no stream runs; else, and with mode
        "full", a fresh copy. Raises ConflictError, and NotFoundError for a table that is nowhere."""
        key = self._engine.names.key
        known = self._engine.replica.read(state.load_tables)
        if key(table) not in {key(name) for name in known} | {
            key(found.name) for found in self._engine.catalogue()
        }:
            raise NotFoundError(
                f"there is no table {table!r}", hint="see GET /tables", code="TABLE_NOT_FOUND"
            )
        if self._syncs.mode != "cdc" and mode is None:
            marks = self._syncs.fallback.watermarks()
            marked = next((name for name in marks if key(name) == key(table)), None)
            if marked is not None:
                return self._syncs.queue.ask(Run("incremental", (marked,)))
        stands = not self._stream.running and self._engine.position() is not None
        if stands and self._syncs.mode != "polling":
            raise ConflictError(
                "a single table can't be copied while the stream stands still: it could not join",
                hint="POST /cdc/start first, or POST /sync/full",
                code="STREAM_NOT_RUNNING",
            )
        return self._syncs.queue.ask(Run("table", (table,)))

    def start_incremental_sync(self) -> Run:
        """A run that ends when all that the source has committed by now is applied. Raises ConflictError."""
        return self._syncs.ask_incremental(Run("incremental"))

    def current_run(self) -> Run | None:
        """The sync under way, or waiting to begin."""
        return self._syncs.queue.current

    def run(self, run_id: str) -> Run:
        """A run by its id; one of an earlier process is restored from the log. Raises NotFoundError."""
        run = self._syncs.queue.run(run_id) or self._validations.run(run_id)
        if run is not None:
            return run
        found = self._syncs.read_log(lambda cursor: run_log.find(cursor, run_id))
        if found is None:
            raise NotFoundError("there is no such run", hint="see GET /sync/status", code="RUN_NOT_FOUND")
        return _restored(*found)

    def cancel_run(self, run_id: str) -> Run:
        """Asks a run to end; one that has ended stays as it is. Raises NotFoundError."""
        run = self.run(run_id)
        if not run.done:
            run.cancel()
        return run

    def recent_runs(self, limit: int = 100) -> list[run_log.RunRecord]:
        """The latest runs, newest first."""
        return self._syncs.read_log(lambda cursor: run_log.latest(cursor, limit))

    # What there is -----------------------------------------------------------------------------------

    def start_validation(
        self, mode: Literal["count", "checksum"], table: str | None = None, *, repair: bool = False
    ) -> ValidationRun:
        """Compares with the source, see `cdc.validation`. Raises ConflictError, NotPossibleError."""
        if self._syncs.mode != "polling":
            self.wait_streaming(self.settings.connect_timeout)
        return self._validations.start(mode, table, repair=repair)

    def table_details(self, table: str, *, skip_source_count: bool = False) -> TableDetails:
        """See `cdc.validation.details`."""
        return table_details(self._engine, table, skip_source_count=skip_source_count)

    def validate(self, mode: Literal["count", "checksum"], table: str | None = None) -> ValidationReport:
        """As `start_validation`, and waits for what is found."""
        return self.start_validation(mode, table).report()

    def clear(self) -> int:
        """Stops the stream, drops every replicated table and all state; returns how many tables went.

        The replica stays empty until a full sync is asked for, the stream is started or the service restarts.
        """
        with self._syncs.queue.clearing():
            return self._clear()

    def _clear(self) -> int:
        self._stream.stop()

        def job(cursor: duckdb.DuckDBPyConnection) -> int:
            known = list(state.load_tables(cursor))
            for name in known:
                tables.drop(cursor, name)
                state.forget_table(cursor, name)
            state.forget_position(cursor, self.id)
            return len(known)

        dropped = self._engine.writer.submit(job).result()
        self._stream.forget()
        log.info("replica.cleared", database=self.id, tables=dropped)
        return dropped

    def reader(self) -> duckdb.DuckDBPyConnection:
        """A cursor for reading; the caller closes it."""
        return self._engine.replica.cursor()

    def serving(self) -> AbstractContextManager[None]:
        """While a client's query runs, DuckDB may use what queries get."""
        return self._engine.replica.grant.serving()

    def table_names(self) -> list[str]:
        """Tables that can be read: those copied at least once."""
        known = self._engine.replica.read(state.load_tables)
        return [record.name for record in known.values() if record.definition is not None]

    def sync_log(self, limit: int = 100) -> list[SyncLogEntry]:
        """What the latest runs did, newest first."""
        return self._syncs.read_log(lambda cursor: run_log.read_log(cursor, limit))

    def watermarks(self) -> list[Watermark]:
        """How far each table is that is kept by watermark syncs; none while the stream serves them."""
        if self._syncs.mode == "cdc":
            return []
        return sorted(self._syncs.fallback.watermarks().values(), key=lambda each: each.table)

    def lifeless(self) -> str | None:
        """See `cdc.liveness.lifeless`; a pipeline that was not started lives."""
        return lifeless(self._engine, self._syncs, self._monitor) if self._started else None

    def status(self) -> PipelineStatus:
        """How things stand now."""
        return pipeline_status(
            self._engine, self._syncs, self._monitor, opened=self._opened, started=self._started
        )


def _restored(record: run_log.RunRecord, results: tuple[Any, ...]) -> Run:
    """A run of an earlier process, as it ended."""
    run = Run.restored(record.id, record.kind, record.tables, automatic=record.automatic)
    if record.error is None:
        run.succeed(SyncResult(results, record.duration_ms, snapshots=len(results), records=record.records))
    elif record.status == "cancelled":
        run.fail(RunCancelledError(record.error, hint="start it again"))
    else:
        run.fail(recalled(record.error, record.error_code))
    return run
