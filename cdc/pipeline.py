"""One database: its file, its writer, its stream and its syncs, started and stopped together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import duckdb
import structlog

from cdc.backoff import Backoff
from cdc.config import Settings
from cdc.engine import Engine
from cdc.errors import ConflictError, DucklingError, NotFoundError, SourceUnavailableError, StoppedError
from cdc.full_sync import FullSync
from cdc.metrics import DatabaseMetrics
from cdc.position import Position
from cdc.replica import state, tables
from cdc.replica.database import ReplicaDatabase
from cdc.replica.writer import Writer
from cdc.runs import Run
from cdc.schema import quote_duckdb
from cdc.source.connection import SourceEndpoint
from cdc.source.preflight import Finding, require
from cdc.source.server import binlog_end, server_facts
from cdc.source_monitor import SourceMonitor
from cdc.status import (
    PipelineState,
    PipelineStatus,
    PositionStatus,
    SyncLogEntry,
    SyncResult,
    TableProgress,
    TableResult,
    TableState,
    TableStatus,
    ValidationReport,
)
from cdc.stream_loop import StreamLoop
from cdc.types import TypeChoices
from cdc.validate import validate

log = structlog.get_logger(__name__)

T = TypeVar("T")

_RUNS_KEPT = 100
_PATIENCE = 3600.0
"""Seconds that an incremental sync waits for a stream that is wanted: a copy may have to end first."""
_COPY_TRIES = 5
"""Attempts at an automatic copy of the same tables before they are left to a human."""


class Pipeline:
    """Keeps one DuckDB file equal to one MySQL database.

    `check_start` opens the file and looks at the source, and raises what is wrong; `start` does the rest in
    threads and reports in `status`. One sync at a time; those that the pipeline starts by itself (tables
    that are new or changed) wait for their turn.
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
        self._metrics = metrics
        self._clock = clock
        replica = ReplicaDatabase(
            settings.duckdb_path,
            memory_limit=settings.duckdb_memory_limit,
            threads=settings.duckdb_threads,
        )
        writer = Writer(
            replica,
            metrics,
            name=database_id,
            checkpoint_wal_bytes=settings.checkpoint_wal_bytes,
            checkpoint_idle=settings.checkpoint_idle,
        )
        self._engine = Engine(database_id, settings, SourceEndpoint(settings), replica, writer, metrics)
        self._stream = StreamLoop(self._engine, needs_copy=self._want_copies)
        self._monitor = SourceMonitor(self._engine, lambda: self._stream.applied)
        self._changed = threading.Condition()
        self._runs: deque[Run] = deque(maxlen=_RUNS_KEPT)
        self._active: Run | None = None
        self._asked: Run | None = None
        self._wanted: dict[str, None] = {}
        """Tables to copy without being asked, in order."""
        self._attempts: dict[str, int] = {}
        self._stopping = threading.Event()
        self._stream_wanted = settings.cdc_enabled
        self._copy_wanted = settings.auto_start_sync
        """Whether an empty replica is to be filled without being asked."""
        self._clearing = False
        self._last_error: DucklingError | None = None
        self._retrying = False
        self._thread = threading.Thread(target=self._work, name=f"sync-{database_id}", daemon=True)
        self._opened = False
        self._started = False

    # Start and stop ----------------------------------------------------------------------------------

    def check_start(self) -> None:
        """Opens the file and looks at the source. Raises the DucklingError that forbids a start."""
        findings: list[Finding] = []
        try:
            self._open()
            _, _, findings = self._engine.inspect()
            if self.settings.cdc_enabled:
                require(findings)
        except SourceUnavailableError as error:
            if self._position() is None:
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
        if self._opened:
            return
        self._engine.replica.open()
        cursor = self._engine.replica.cursor()
        try:
            cursor.execute("BEGIN")
            state.prepare(cursor, self.id, self._engine.endpoint.database)
            left = tables.drop_leftovers(cursor)
            choices = TypeChoices.of(self.settings)
            for record in state.load_tables(cursor).values():
                if record.state in (TableState.COPYING, TableState.CATCHING_UP):
                    mark = TableState.NEEDS_RESYNC if record.definition else TableState.PENDING
                    state.save_table(cursor, record.name, mark, reason="the service ended during its copy")
                elif (
                    record.definition is not None
                    and choices.applied_to(record.definition) != record.definition
                ):
                    # The rows there are of another type, or were converted by another rule.
                    reason = "a setting changed what its columns become"
                    state.save_table(cursor, record.name, TableState.NEEDS_RESYNC, reason=reason)
            cursor.execute("COMMIT")
        except duckdb.Error as error:
            raise self._engine.replica.open_error(error) from error
        finally:
            cursor.close()
        if left:
            log.info("copy.leftovers_dropped", database=self.id, tables=len(left))
        self._opened = True

    def start(self) -> None:
        """Opens the file if need be and starts the threads; returns at once. Raises ReplicaError."""
        self._open()
        if self._started:
            return
        self._started = True
        self._engine.writer.start()
        self._monitor.start()
        self._thread.start()

    def stop(self, timeout: float = 9.0) -> None:
        """Ends everything within `timeout` seconds: the batch in hand is committed, the file closed."""
        deadline = self._clock() + timeout
        self._stopping.set()
        with self._changed:
            active = self._active
            self._changed.notify_all()
        if active is not None:
            active.cancel()
        self._stream.stop(max(0.1, (deadline - self._clock()) * 0.6))
        self._engine.endpoint.close()
        self._monitor.stop(max(0.1, deadline - self._clock()))
        if self._started:
            # A sync that is cut short drops its staging tables through the writer, so it ends first.
            self._thread.join(max(0.1, (deadline - self._clock()) * 0.5))
            ended = self._engine.writer.stop(max(0.1, deadline - self._clock()))
            self._thread.join(max(0.1, deadline - self._clock()))
            if not ended:
                log.error("pipeline.stop_timed_out", database=self.id, seconds=timeout)
        self._engine.replica.close()

    def start_stream(self) -> None:
        """Starts the stream, or lets the first copy start it. Starting twice is fine."""
        with self._changed:
            self._stream_wanted = self._copy_wanted = True
            self._stream.forgive()
            self._changed.notify_all()

    def stop_stream(self) -> None:
        """Stops the stream at a transaction boundary; what was read before is committed."""
        with self._changed:
            self._stream_wanted = False
        self._stream.stop()
        self._engine.writer.submit(lambda _: None).result()

    def wait_streaming(self, timeout: float) -> None:
        """Returns once the stream is connected and no copy is under way or due.

        Raises the error that stands in the way: at once where nothing will change by itself, else after
        `timeout` seconds.
        """
        deadline = self._clock() + timeout
        while not (self._stream.reader is not None and self._settled()):
            error = self._stream.last_error or self._last_error
            if self._stopping.is_set() or not self._stream_wanted or self._clearing:
                raise ConflictError(
                    "the stream stands still", hint="POST /cdc/start", code="STREAM_NOT_RUNNING"
                )
            if error is not None and not self._may_stream() and not self._stream.running:
                raise error
            remaining = deadline - self._clock()
            if remaining <= 0:
                raise error or SourceUnavailableError(
                    f"the stream was not up after {timeout:.0f} s", hint="see GET /cdc/status"
                )
            with self._changed:
                self._changed.wait(min(remaining, 0.05))

    def _settled(self) -> bool:
        """Whether no copy is under way or due."""
        return self._active is None and self._asked is None and not self._wanted

    # Syncs -------------------------------------------------------------------------------------------

    def start_full_sync(self) -> Run:
        """Copies every table. Raises ConflictError while another sync runs."""
        return self._ask(Run("full"))

    def start_table_sync(self, table: str, mode: Literal["full"] | None = None) -> Run:  # noqa: ARG002
        """Copies one table again. Raises ConflictError; the run fails with NotFoundError."""
        key = self._engine.names.key
        if key(table) not in {key(name) for name in self._tables()} | {
            key(found.name) for found in self._engine.catalogue()
        }:
            raise NotFoundError(
                f"there is no table {table!r}", hint="see GET /tables", code="TABLE_NOT_FOUND"
            )
        if not self._stream.running and self._position() is not None:
            raise ConflictError(
                "a single table can't be copied while the stream stands still: it could not join",
                hint="POST /cdc/start first, or POST /sync/full",
                code="STREAM_NOT_RUNNING",
            )
        return self._ask(Run("table", (table,)))

    def start_incremental_sync(self) -> Run:
        """A run that ends when all that the source has committed by now is applied."""
        run = Run("incremental")
        with self._changed:
            self._check_started()
            self._runs.append(run)
        threading.Thread(
            target=self._incremental, args=(run,), name=f"incremental-{self.id}", daemon=True
        ).start()
        return run

    def _ask(self, run: Run) -> Run:
        with self._changed:
            self._check_started()
            if self._active is not None or self._asked is not None or self._clearing:
                raise ConflictError(
                    "a sync of this database is running", hint="wait for it: GET /sync/progress"
                )
            self._asked = run
            self._runs.append(run)
            self._changed.notify_all()
        return run

    def _check_started(self) -> None:
        if self._stopping.is_set() or not self._started:
            raise StoppedError("the service is starting or stopping", hint="try again in a moment")

    def current_run(self) -> Run | None:
        """The copy under way, or waiting to begin."""
        return self._active or self._asked

    def run(self, run_id: str) -> Run:
        """A run of late by its id. Raises NotFoundError."""
        for run in self._runs:
            if run.id == run_id:
                return run
        raise NotFoundError("there is no such run", hint="see GET /sync/status", code="RUN_NOT_FOUND")

    def _want_copies(self, names: list[str]) -> None:
        """The stream or a copy met tables that must be copied (again)."""
        with self._changed:
            for name in names:
                self._wanted.setdefault(name)
            self._changed.notify_all()

    # The thread that carries syncs out ---------------------------------------------------------------

    def _work(self) -> None:
        backoff = Backoff(self.settings.retry_max_seconds)
        self._want_unfinished()
        while not self._stopping.is_set():
            try:
                run = self._next_run()
                if run is None:
                    continue
                self._carry_out(run, backoff)
            except Exception as failure:
                log.exception("pipeline.unexpected", database=self.id)
                self._note(_as_duckling(failure, "the pipeline"))
                self._stopping.wait(backoff.pause())

    def _want_unfinished(self) -> None:
        """Tables that were to be copied when the service ended."""
        unfinished = (TableState.PENDING, TableState.NEEDS_RESYNC)
        self._want_copies([r.name for r in self._tables().values() if r.state in unfinished])

    def _next_run(self) -> Run | None:
        """What to do next; starts the stream where one is wanted and possible. None after a wait."""
        position = self._position()
        with self._changed:
            if self._clearing:
                self._changed.wait()
                return None
            if self._asked is not None:
                self._active, self._asked = self._asked, None
                return self._active
            if self._stream_wanted and position is not None and self._may_stream():
                self._stream.start()
            if position is None and self._copy_wanted and self._stream_wanted:
                self._active = Run("full", automatic=True)
            elif self._wanted and self._stream.running and position is not None:
                self._active = Run("table", tuple(self._wanted), automatic=True)
            else:
                self._changed.wait(timeout=1.0)
                return None
            self._runs.append(self._active)
            return self._active

    def _may_stream(self) -> bool:
        """Not while it runs, nor after it stopped for a reason that needs a human."""
        return not self._stream.running and self._stream.state not in (
            PipelineState.NEEDS_RESYNC,
            PipelineState.FAILED,
        )

    def _carry_out(self, run: Run, backoff: Backoff) -> None:
        with self._changed:
            taken = [name for name in self._wanted if not run.tables or name in run.tables]
            for name in taken:
                del self._wanted[name]
        try:
            result = self._copy(run)
        except Exception as failure:
            if not isinstance(failure, DucklingError):
                log.exception("sync.unexpected", database=self.id)
            error = _as_duckling(failure, "the sync")
            self._note(error)
            self._log_run(run, None, error)
            self._again(taken, error)
            self._finish(run, None, error)
            if run.automatic:
                self._stopping.wait(backoff.pause())
            return
        self._retrying = False
        for table in result.tables:
            self._attempts.pop(table.table, None)
        self._last_error = None
        backoff.reset()
        self._log_run(run, result, None)
        self._finish(run, result, None)

    def _copy(self, run: Run) -> SyncResult:
        """Copies what the run names, joined to the stream if that runs; else it starts behind the copy."""
        if run.kind == "full" and self._stream.running and self._stream.reader is None:
            self._stream.stop()  # it only tries to connect: a full copy replaces its position
        joined = self._stream.running
        result = FullSync(
            self._engine, run, self._stream, needs_copy=self._want_copies, clock=self._clock
        ).carry_out()
        if not joined and self._stream_wanted:
            self._stream.state = PipelineState.STOPPED
            self._stream.start()
        return result

    def _again(self, taken: list[str], error: DucklingError) -> None:
        """A copy failed: tables that were to be copied anyway come again, up to a number of times."""
        self._retrying = True
        if isinstance(error, NotFoundError):
            return
        with self._changed:
            for name in taken:
                tries = self._attempts.get(name, 0) + 1
                self._attempts[name] = tries
                if tries < _COPY_TRIES or error.retryable:
                    self._wanted.setdefault(name)

    def _finish(self, run: Run, result: SyncResult | None, error: DucklingError | None) -> None:
        with self._changed:
            self._active = None
            self._changed.notify_all()
        if error is not None:
            run.fail(error)
        elif result is not None:
            run.succeed(result)

    def _note(self, error: DucklingError) -> None:
        if isinstance(error, StoppedError):
            return
        self._last_error = error
        self._metrics.error_met(error.code)
        log.error("sync.failed", database=self.id, code=error.code, error=error.message, hint=error.hint)

    def _log_run(self, run: Run, result: SyncResult | None, error: DucklingError | None) -> None:
        rows: list[tuple[str | None, str, int, int, str, str | None]] = [
            (each.table, each.sync_type, each.records, each.duration_ms, each.status, each.error)
            for each in (result.tables if result else ())
        ]
        if error is not None:
            rows.append((None, "snapshot", 0, 0, "error", error.message))

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            for row in rows:
                state.log_run(cursor, run.id, *row)

        try:
            self._engine.writer.submit(job).result()
        except DucklingError as failure:
            log.warning("sync.not_logged", database=self.id, error=failure.message)

    def _incremental(self, run: Run) -> None:
        started = self._clock()
        before = self._stream.counts()
        try:
            self.wait_streaming(_PATIENCE)
            connection = self._engine.endpoint.connect(purpose="incremental sync")
            try:
                facts = server_facts(connection)
                file, offset, gtid = binlog_end(connection, facts)
            finally:
                connection.close()
            end = Position(facts.flavor, facts.server_uuid, file, offset, gtid)
            self._stream.meet(end).reached.result()
            self._engine.writer.submit(lambda _: None).result()
            self.wait_streaming(_PATIENCE)  # tables that changed on the way are copied again
        except Exception as failure:  # noqa: BLE001 - it goes to whoever waits for the run
            error = _as_duckling(failure, "the sync")
            self._note(error)
            run.fail(error)
            return
        after = self._stream.counts()
        records = (after.inserts + after.updates + after.deletes) - (
            before.inserts + before.updates + before.deletes
        )
        duration = round((self._clock() - started) * 1000)
        results = tuple(
            TableResult(table.name, 0, duration, "success", "micro-batch")
            for table in self._stream.tables.values()
        )
        result = SyncResult(results, duration, micro_batches=after.transactions - before.transactions)
        run.expect("*", 0).rows = records
        run.succeed(result)

    # What there is -----------------------------------------------------------------------------------

    def validate(self, mode: Literal["count", "checksum"], table: str | None = None) -> ValidationReport:
        """See `cdc.validate.validate`."""
        self.wait_streaming(self.settings.connect_timeout)
        return validate(self._engine, self._stream, mode, table)

    def clear(self) -> int:
        """Stops the stream, drops every replicated table and all state; returns how many tables went.

        The replica stays empty until a full sync is asked for, the stream is started or the service restarts.
        """
        with self._changed:
            self._check_started()
            if self._active is not None or self._asked is not None or self._clearing:
                raise ConflictError("a sync of this database is running", hint="wait for it")
            self._clearing = True
            self._copy_wanted = False
            self._wanted.clear()
        try:
            return self._clear()
        finally:
            with self._changed:
                self._clearing = False
                self._changed.notify_all()

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
        self._stream.tables = {}
        self._stream.state = PipelineState.STOPPED
        log.info("replica.cleared", database=self.id, tables=dropped)
        return dropped

    def reader(self) -> duckdb.DuckDBPyConnection:
        """A cursor for reading; the caller closes it."""
        return self._engine.replica.cursor()

    def table_names(self) -> list[str]:
        """Tables that can be read: those copied at least once."""
        return [record.name for record in self._tables().values() if record.definition is not None]

    def sync_log(self, limit: int = 100) -> list[SyncLogEntry]:
        """The latest runs, newest first."""
        return self._read(lambda cursor: state.read_log(cursor, limit))

    def watermarks(self) -> list[dict[str, Any]]:
        """Watermarks of tables that are synced by timestamp; none while the stream serves them."""
        return []

    def _tables(self) -> dict[str, state.TableRecord]:
        return self._read(state.load_tables)

    def _position(self) -> Position | None:
        return self._read(lambda cursor: state.load_position(cursor, self.id))

    def _read(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        cursor = self._engine.replica.cursor()
        try:
            # One moment for all that is read: a table may be dropped between two statements.
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            return work(cursor)
        finally:
            cursor.close()

    def status(self) -> PipelineStatus:
        """How things stand now."""
        stream, counts = self._stream, self._stream.counts()
        error = stream.last_error if stream.state is not PipelineState.STREAMING else self._last_error
        error = error or self._last_error
        position = stream.applied or (self._position() if self._opened else None)
        return PipelineStatus(
            id=self.id,
            state=self._state(),
            mode="cdc" if self.settings.cdc_enabled else "none",
            running=stream.reader is not None,
            enabled=self._stream_wanted,
            connected_at=stream.connected_at,
            last_event_at=_moment(counts.last_event),
            lag_seconds=stream.lag_seconds(),
            lag_bytes=self._monitor.lag_bytes,
            events=counts.events,
            inserts=counts.inserts,
            updates=counts.updates,
            deletes=counts.deletes,
            transactions=counts.transactions,
            errors=stream.errors,
            reconnects=stream.reconnects,
            last_error=error.message if error else None,
            last_error_code=error.code if error else None,
            hint=error.hint if error else None,
            queue_size=self._engine.writer.queued,
            current=position.status() if position else PositionStatus(),
            source=self._monitor.end.status() if self._monitor.end else PositionStatus(),
            tables=self._table_statuses() if self._opened else (),
        )

    def _state(self) -> PipelineState:
        if self._stopping.is_set():
            return PipelineState.STOPPING
        if not self._started:
            return PipelineState.STOPPED
        if not self._engine.writer.alive or not self._thread.is_alive():
            return PipelineState.FAILED
        if self._stream.running:
            return self._stream.state
        if self._active is not None:
            return PipelineState.COPYING
        if self._retrying and self._stream_wanted:
            return PipelineState.RETRYING
        return self._stream.state

    def _table_statuses(self) -> tuple[TableStatus, ...]:
        progress = {p.table: p for p in self._active.progress()} if self._active else {}

        def read(cursor: duckdb.DuckDBPyConnection) -> tuple[TableStatus, ...]:
            statuses = []
            for record in state.load_tables(cursor).values():
                rows = None
                if record.definition is not None:
                    found = cursor.execute(f"SELECT count(*) FROM {quote_duckdb(record.name)}").fetchall()
                    rows = int(found[0][0])
                mark = _live_state(record.state, progress.get(record.name))
                statuses.append(TableStatus(record.name, mark, rows, record.reason, record.hint))
            return tuple(statuses)

        return self._read(read)


def _as_duckling(failure: Exception, what: str) -> DucklingError:
    """`failure` itself, or an error of ours for one that nobody expected."""
    if isinstance(failure, DucklingError):
        return failure
    error = DucklingError(
        f"{what} failed in a way that is not foreseen ({failure.__class__.__name__})",
        hint="see the log of the service",
    )
    error.__cause__ = failure
    return error


def _live_state(recorded: TableState, progress: TableProgress | None) -> TableState:
    """A table that is copied again stays live in the file; people want to see the copy."""
    if progress is not None and progress.state in ("copying", "catching_up"):
        return TableState(progress.state)
    return recorded


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
