"""The syncs of one database: asked for or due by themselves, carried out one after another in one thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import duckdb
import structlog

from cdc.backoff import Backoff
from cdc.engine import Engine
from cdc.errors import (
    ConflictError,
    DucklingError,
    NotFoundError,
    RunCancelledError,
    SourceUnavailableError,
    StoppedError,
    as_duckling,
)
from cdc.full_sync import FullSync
from cdc.incremental import LogEnd, catch_up_with_source
from cdc.replica import run_log, state
from cdc.runs import Run
from cdc.status import PipelineState, SyncResult, TableResult, TableState
from cdc.stream_loop import StreamLoop
from cdc.watermark.fallback import Fallback, Mode

log = structlog.get_logger(__name__)

_RUNS_KEPT = 100
_PATIENCE = 3600.0
"""Seconds that an incremental sync waits for a stream that is wanted: a copy may have to end first."""
_LOOK_PAUSE = 5.0
"""Seconds between two looks at a source that is to be polled, while there is nothing to poll."""
_COPY_TRIES = 5
"""Attempts at an automatic copy of the same tables before they are left to a human."""


class Syncs:
    """The queue of syncs, the thread that carries them out, and the stream that they start and join.

    One sync at a time. Those that nobody asked for (tables that are new or changed) wait for their turn.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self.stream = StreamLoop(engine, needs_copy=self.want_copies)
        self.fallback = Fallback(engine, self.stream, clock=clock)
        self._log_end = LogEnd(engine)
        self._changed = threading.Condition()
        self._runs: deque[Run] = deque(maxlen=_RUNS_KEPT)
        self._active: Run | None = None
        self._asked: Run | None = None
        self._waiting: Run | None = None
        """The incremental sync under way: it waits for the stream, in a thread of its own."""
        self._wanted: dict[str, None] = {}
        """Tables to copy without being asked, in order."""
        self._attempts: dict[str, int] = {}
        self._stopping = threading.Event()
        self.stream_wanted = engine.settings.cdc_enabled
        self._copy_wanted = engine.settings.auto_start_sync
        """Whether an empty replica is to be filled without being asked."""
        self._look_not_before = 0.0
        self._clearing = False
        self.last_error: DucklingError | None = None
        self.retrying = False
        self._thread = threading.Thread(target=self._work, name=f"sync-{engine.id}", daemon=True)
        self._started = False

    # Start and stop ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread; what has to be copied is copied without being asked."""
        self._started = True
        self._thread.start()

    def begin_stop(self) -> None:
        """No new sync begins, the one under way or waiting is cancelled."""
        self._stopping.set()
        with self._changed:
            runs = (self._active, self._asked, self._waiting)
            self._changed.notify_all()
        for run in runs:
            if run is not None:
                run.cancel()

    def join(self, timeout: float) -> None:
        """Waits for the thread to end, `timeout` seconds at most."""
        if self._started:
            self._thread.join(max(0.1, timeout))

    def close_sessions(self) -> None:
        """Ends the sessions with the source that are kept from one sync to the next."""
        self.fallback.close()
        self._log_end.close()

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether `begin_stop` was called."""
        return self._stopping.is_set()

    @property
    def mode(self) -> Mode:
        """How the copy is kept."""
        return self.fallback.mode(stream_wanted=self.stream_wanted)

    @property
    def mode_reason(self) -> str | None:
        """Why it is polled; None where it is not."""
        return self.fallback.reason(stream_wanted=self.stream_wanted)

    def start_stream(self) -> None:
        """Starts the stream, or lets the first copy start it. Starting twice is fine."""
        with self._changed:
            self.stream_wanted = self._copy_wanted = True
            self.stream.forgive()
            self._changed.notify_all()

    def stop_stream(self) -> None:
        """Stops the stream at a transaction boundary."""
        with self._changed:
            self.stream_wanted = False
        self.stream.stop()

    def wait_streaming(self, timeout: float, check: Callable[[], None] = lambda: None) -> None:
        """Returns once the stream is connected and no copy is under way or due.

        Raises the error that stands in the way: at once where nothing will change by itself, else after
        `timeout` seconds. `check` is called now and then and may raise.
        """
        deadline = self._clock() + timeout
        while not (self.stream.reader is not None and self._settled()):
            check()
            error = self.stream.last_error or self.last_error
            if self._stopping.is_set():
                raise StoppedError("the service is stopping", hint="ask again when it is back")
            if self.mode != "cdc" or self._clearing:
                raise ConflictError(
                    self.mode_reason or "the stream stands still",
                    hint="POST /cdc/start",
                    code="STREAM_NOT_RUNNING",
                )
            if error is not None and not self._may_stream() and not self.stream.running:
                raise error.with_traceback(None)
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

    # Asking ------------------------------------------------------------------------------------------

    def ask(self, run: Run) -> Run:
        """Queues a copy. Raises ConflictError while another sync runs."""
        with self._changed:
            self._check_free(self._active)
            self._asked = run
            self._begin(run)
            self._changed.notify_all()
        return run

    def ask_incremental(self, run: Run) -> Run:
        """Begins to wait for all that the source has committed; copies that nobody asked for go on meanwhile.

        Where no stream is to run, it is a watermark sync. Raises ConflictError while a sync runs that somebody
        asked for.
        """
        if self.mode != "cdc":
            return self.ask(run)
        with self._changed:
            active = self._active
            self._check_free(active if active is not None and not active.automatic else None)
            self._waiting = run
            self._begin(run)
        threading.Thread(
            target=self._incremental, args=(run,), name=f"incremental-{self._engine.id}", daemon=True
        ).start()
        return run

    def _check_free(self, active: Run | None) -> None:
        if self._stopping.is_set() or not self._started:
            raise StoppedError("the service is starting or stopping", hint="try again in a moment")
        if active is not None or self._asked is not None or self._waiting is not None or self._clearing:
            raise ConflictError("a sync of this database is running", hint="wait for it: GET /sync/progress")

    @contextmanager
    def clearing(self) -> Iterator[None]:
        """Keeps syncs away, and leaves the replica empty until somebody asks. Raises ConflictError."""
        with self._changed:
            self._check_free(self._active)
            self._clearing = True
            self._copy_wanted = False
            self._wanted.clear()
        try:
            yield
        finally:
            with self._changed:
                self._clearing = False
                self._changed.notify_all()

    @property
    def copying(self) -> Run | None:
        """The copy under way."""
        return self._active

    @property
    def current(self) -> Run | None:
        """The sync under way, or waiting to begin."""
        return self._active or self._asked or self._waiting

    def run(self, run_id: str) -> Run | None:
        """A run of this process by its id."""
        return next((run for run in self._runs if run.id == run_id), None)

    def want_copies(self, names: list[str]) -> None:
        """The stream or a copy met tables that must be copied (again)."""
        with self._changed:
            for name in names:
                self._wanted.setdefault(name)
            self._changed.notify_all()

    # The thread that carries them out ----------------------------------------------------------------

    def _work(self) -> None:
        backoff = Backoff(self._engine.settings.retry_max_seconds)
        begun = False
        while not self._stopping.is_set():
            try:
                if not begun:
                    self._want_unfinished()
                    self.fallback.begin()
                    begun = True
                run = self._next_run()
                if run is None:
                    continue
                self._carry_out(run, backoff)
            except DucklingError as error:  # the file is being opened again, say
                self._note(error)
                self._stopping.wait(backoff.pause())
            except Exception as failure:
                log.exception("pipeline.unexpected", database=self._engine.id)
                self._note(as_duckling(failure, "the pipeline"))
                self._stopping.wait(backoff.pause())
        with self._changed:
            left, self._asked = self._asked, None
        if left is not None:  # somebody waits for it, and it never began
            self._finish(
                left, None, StoppedError("the service is stopping", hint="ask again when it is back")
            )

    def _want_unfinished(self) -> None:
        """Tables that were to be copied when the service ended."""
        unfinished = (TableState.PENDING, TableState.NEEDS_RESYNC)
        records = self._engine.replica.read(state.load_tables)
        self.want_copies([r.name for r in records.values() if r.state in unfinished])

    def _next_run(self) -> Run | None:
        """What to do next; starts the stream where one is wanted and possible. None after a wait."""
        due = self.fallback.schedule.due()  # asked once: no poll without the look before it
        if self.stream_wanted and self._must_look(due):
            self.fallback.look()
        self.fallback.note_mode(stream_wanted=self.stream_wanted)
        position = self._engine.position()
        with self._changed:
            if self._clearing:
                self._changed.wait()
                return None
            if self._asked is not None:
                self._active, self._asked = self._asked, None
                return self._active
            if self.mode == "polling":
                if not (due and self._poll_due()):
                    self._changed.wait(timeout=1.0)
                    return None
                self._active = Run("incremental", automatic=True)
                self._begin(self._active)
                return self._active
            if self.stream_wanted and position is not None and self._may_stream():
                self.stream.start()
            if position is None and self._copy_wanted and self.stream_wanted:
                self._active = Run("full", automatic=True)
            elif self._wanted and self.stream.running and position is not None:
                self._active = Run("table", tuple(self._wanted), automatic=True)
            else:
                self._changed.wait(timeout=1.0)
                return None
            self._begin(self._active)
            return self._active

    def _must_look(self, poll_due: bool) -> bool:
        """Whether it may have changed that the log can, or can't, be followed."""
        if self.mode == "polling":
            now = self._clock()
            if not poll_due or now < self._look_not_before:
                return False
            self._look_not_before = now + _LOOK_PAUSE
            return True
        return self.fallback.troubled()

    def _poll_due(self) -> bool:
        """An empty replica is left empty where nobody asked for a copy."""
        return self.fallback.schedule.due() and (self._copy_wanted or bool(self.fallback.watermarks()))

    def _may_stream(self) -> bool:
        """Not while it runs, nor after it stopped for a reason that needs a human."""
        return not self.stream.running and self.stream.state not in (
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
                log.exception("sync.unexpected", database=self._engine.id)
            error = self._reason(run, failure)
            self._note(error)
            self._again(taken, error)
            self._finish(run, None, error)
            if run.automatic:
                self._stopping.wait(backoff.pause())
            return
        self.retrying = False
        for table in result.tables:
            self._attempts.pop(table.table, None)
        self.last_error = None
        backoff.reset()
        self._finish(run, result, None)

    def _copy(self, run: Run) -> SyncResult:
        """Copies what the run names, joined to the stream if that runs; else it starts behind the copy."""
        run.check_cancelled()
        if run.kind == "incremental":
            return self.fallback.poll(run)
        if self.mode == "polling":
            return self.fallback.full(run)
        if run.kind == "full" and self.stream.running and self.stream.reader is None:
            self.stream.stop()  # it only tries to connect: a full copy replaces its position
        joined = self.stream.running
        result = FullSync(
            self._engine, run, self.stream, needs_copy=self.want_copies, clock=self._clock
        ).carry_out()
        if not joined and self.stream_wanted:
            self.stream.state = PipelineState.STOPPED
            self.stream.start()
        return result

    def _again(self, taken: list[str], error: DucklingError) -> None:
        """A copy failed: tables that were to be copied anyway come again, up to a number of times."""
        self.retrying = True
        if isinstance(error, NotFoundError):
            return
        with self._changed:
            for name in taken:
                tries = self._attempts.get(name, 0) + 1
                self._attempts[name] = tries
                if tries < _COPY_TRIES or error.retryable:
                    self._wanted.setdefault(name)

    def _incremental(self, run: Run) -> None:
        try:
            result = catch_up_with_source(
                self._engine,
                self.stream,
                self._log_end,
                run,
                wait_streaming=lambda: self.wait_streaming(_PATIENCE, run.check_cancelled),
                clock=self._clock,
            )
        except Exception as failure:
            if not isinstance(failure, DucklingError):
                log.exception("sync.unexpected", database=self._engine.id)
            error = self._reason(run, failure)
            self._note(error)
            self._finish(run, None, error)
        else:
            self._finish(run, result, None)

    # Records -----------------------------------------------------------------------------------------

    def _begin(self, run: Run) -> None:
        self._runs.append(run)
        self._record(lambda cursor: run_log.begin(cursor, run))

    def _finish(self, run: Run, result: SyncResult | None, error: DucklingError | None) -> None:
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

        recorded = self._record(job)
        if recorded is not None and not self._stopping.is_set():
            recorded.exception()  # who is told that the run has ended finds it in the log
        with self._changed:
            if run is self._waiting:
                self._waiting = None
            else:
                self._active = None
            self._changed.notify_all()
        if error is not None:
            run.fail(error)
        elif result is not None:
            run.succeed(result)

    def _record(self, job: Callable[[duckdb.DuckDBPyConnection], None]) -> Future[None] | None:
        """Has the writer note something of a run. That it could not is logged, and no reason to stop."""
        try:
            future = self._engine.writer.submit(job)
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

    @staticmethod
    def _reason(run: Run, failure: Exception) -> DucklingError:
        """Why the run failed: a cancelled one loses its sessions, which is not their fault."""
        return RunCancelledError.of() if run.cancelled else as_duckling(failure, "the sync")

    def _note(self, error: DucklingError) -> None:
        if isinstance(error, StoppedError):
            return
        self.last_error = error
        self._engine.metrics.error_met(error.code)
        log.error(
            "sync.failed", database=self._engine.id, code=error.code, error=error.message, hint=error.hint
        )


def _worth_noting(run: Run, result: SyncResult | None) -> tuple[TableResult, ...]:
    """Tables that get a row in the log of runs; of an incremental sync only those that had something."""
    if result is None:
        return ()
    if run.kind != "incremental":
        return result.tables
    return tuple(each for each in result.tables if each.records or each.error)
