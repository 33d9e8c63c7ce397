"""The thread that carries out the syncs of one database, one after another, and the stream beside them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import duckdb
import structlog

from cdc.backoff import Backoff
from cdc.due_copies import DueCopies
from cdc.engine import Engine
from cdc.errors import (
    ConflictError,
    DucklingError,
    ReplicaFatalError,
    RunCancelledError,
    SourceUnavailableError,
    StoppedError,
    as_duckling,
)
from cdc.full_sync import FullSync
from cdc.incremental import LogEnd, catch_up_with_source
from cdc.replica import state
from cdc.run_queue import RunQueue
from cdc.run_recorder import RunRecorder
from cdc.runs import Run
from cdc.status import PipelineState, SyncResult, TableState
from cdc.stream_loop import StreamLoop
from cdc.watermark.fallback import Fallback, Mode

log = structlog.get_logger(__name__)

T = TypeVar("T")
_PATIENCE = 3600.0
"""Seconds that an incremental sync waits for a stream that is wanted: a copy may have to end first."""
_LOOK_PAUSE = 5.0
"""Seconds between two looks at a source that is to be polled, while there is nothing to poll."""


class Syncs:
    """Carries out what the `queue` holds, and what is due by itself.

    It also starts the stream, where one is wanted and possible; copies join it.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self.queue = RunQueue(RunRecorder(engine), DueCopies(fill_empty=engine.settings.auto_start_sync))
        self.stream = StreamLoop(engine, needs_copy=self.queue.want_copies)
        self.fallback = Fallback(engine, self.stream, clock=clock)
        self._log_end = LogEnd(engine)
        self.stream_wanted = engine.settings.cdc_enabled
        self._look_not_before = 0.0
        self.last_error: DucklingError | None = None
        self.retrying = False
        self._thread = threading.Thread(target=self._work, name=f"sync-{engine.id}", daemon=True)

    # Start and stop ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread; what has to be copied is copied without being asked."""
        self.queue.open()
        self._thread.start()

    def begin_stop(self) -> None:
        """No new sync begins, the one under way or waiting is cancelled."""
        self.queue.close()

    def join(self, timeout: float) -> None:
        """Waits for the thread to end, `timeout` seconds at most."""
        if self.queue.opened:
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
        return self.queue.closing.is_set()

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
        with self.queue.changed:
            self.stream_wanted = self.queue.due.fill_empty = True
            self.stream.forgive()
            self.queue.changed.notify_all()

    def stop_stream(self) -> None:
        """Stops the stream at a transaction boundary."""
        with self.queue.changed:
            self.stream_wanted = False
        self.stream.stop()

    def wait_streaming(self, timeout: float, check: Callable[[], None] = lambda: None) -> None:
        """Returns once the stream is connected and no copy is under way or due.

        Raises the error that stands in the way: at once where nothing will change by itself, else after
        `timeout` seconds. `check` is called now and then and may raise.
        """
        deadline = self._clock() + timeout
        while not (self.stream.reader is not None and self.queue.settled):
            check()
            error = self.stream.last_error or self.last_error
            if self.stopping:
                raise StoppedError("the service is stopping", hint="ask again when it is back")
            if self.mode != "cdc" or self.queue.being_cleared:
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
            with self.queue.changed:
                self.queue.changed.wait(min(remaining, 0.05))

    def read_log(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """What `question` finds in the log of runs, with all that has ended; see `RunRecorder.read`."""
        return self.queue.recorder.read(question)

    # Asking ------------------------------------------------------------------------------------------

    def ask_incremental(self, run: Run) -> Run:
        """Begins to wait for all that the source has committed; copies that nobody asked for go on meanwhile.

        Where no stream is to run, it is a watermark sync. Raises ConflictError while a sync runs that somebody
        asked for.
        """
        if self.mode != "cdc":
            return self.queue.ask(run)
        self.queue.ask_beside(run)
        threading.Thread(
            target=self._incremental, args=(run,), name=f"incremental-{self._engine.id}", daemon=True
        ).start()
        return run

    # The thread that carries them out ----------------------------------------------------------------

    def _work(self) -> None:
        backoff = Backoff(self._engine.settings.retry_max_seconds)
        begun = False
        while not self.stopping:
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
                self.queue.closing.wait(backoff.pause())
            except Exception as failure:
                log.exception("pipeline.unexpected", database=self._engine.id)
                self._note(as_duckling(failure, "the pipeline"))
                self.queue.closing.wait(backoff.pause())
        self.queue.drop_asked()

    def _want_unfinished(self) -> None:
        """Tables that were to be copied when the service ended."""
        unfinished = (TableState.PENDING, TableState.NEEDS_RESYNC)
        records = self._engine.replica.read(state.load_tables)
        self.queue.want_copies([r.name for r in records.values() if r.state in unfinished])

    def _next_run(self) -> Run | None:
        """What to do next; starts the stream where one is wanted and possible. None after a wait."""
        # Asked once, and not in the turn in which polling begins: no poll without the look before it.
        due = self.mode == "polling" and self.fallback.schedule.due()
        if self.stream_wanted and self._must_look(due):
            self.fallback.look()
        self.fallback.note_mode(stream_wanted=self.stream_wanted)
        queue, by_log = self.queue, self.mode == "cdc"
        # An incremental sync wakes this thread: where the stream runs and no copy is due, the file is not asked.
        has_position = by_log and (
            (self.stream.running and queue.settled) or self._engine.position() is not None
        )
        with queue.changed:
            if queue.being_cleared:
                queue.changed.wait()
                return None
            asked = queue.begin_asked()
            if asked is not None:
                return asked
            if by_log != (self.mode == "cdc"):
                return None  # it has changed since: another turn
            if self.mode == "polling":
                if not (due and self._poll_due()):
                    queue.changed.wait(timeout=1.0)
                    return None
                return queue.begin_due(Run("incremental", automatic=True))
            if by_log and self.stream_wanted:
                if has_position and self._may_stream():
                    self.stream.start()
                if not has_position and queue.due.fill_empty:
                    return queue.begin_due(Run("full", automatic=True))
            if queue.due and self.stream.running and has_position:
                return queue.begin_due(Run("table", queue.due.tables, automatic=True))
            queue.changed.wait(timeout=1.0)
            return None

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
        return self.fallback.schedule.due() and (
            self.queue.due.fill_empty or bool(self.fallback.watermarks())
        )

    def _may_stream(self) -> bool:
        """Not while it runs, nor after it stopped for a reason that needs a human."""
        return not self.stream.running and self.stream.state not in (
            PipelineState.NEEDS_RESYNC,
            PipelineState.FAILED,
        )

    def _carry_out(self, run: Run, backoff: Backoff) -> None:
        with self.queue.changed:
            taken = self.queue.due.take(run)
        try:
            result = self._copy(run)
        except Exception as failure:
            if not isinstance(failure, DucklingError):
                log.exception("sync.unexpected", database=self._engine.id)
            error = self._reason(run, failure)
            self._note(error)
            self.retrying = True
            with self.queue.changed:
                given_up = self.queue.due.failed(taken, error)
            for name in given_up:
                log.error(
                    "copies.given_up",
                    database=self._engine.id,
                    table=name,
                    code=error.code,
                    error=error.message,
                    hint=f"mend the cause, then POST /sync/table/{name}",
                )
            self.queue.end(run, None, error)
            if run.automatic:
                self.queue.closing.wait(backoff.pause())
            return
        self.retrying = False
        with self.queue.changed:
            self.queue.due.copied(table.table for table in result.tables)
        self.last_error = None
        backoff.reset()
        self.queue.end(run, result, None)

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
        try:
            result = self._full_sync(run)
        except ReplicaFatalError as error:
            # Memory that lacked in a commit, say: the file is opened again, and may have more from now on.
            log.warning("sync.again", database=self._engine.id, error=error.message, hint=error.hint)
            self._engine.writer.settle().result()
            run.check_cancelled()
            result = self._full_sync(run)
        if not joined and self.stream_wanted:
            self.stream.state = PipelineState.STOPPED
            self.stream.start()
        return result

    def _full_sync(self, run: Run) -> SyncResult:
        return FullSync(
            self._engine, run, self.stream, needs_copy=self.queue.want_copies, clock=self._clock
        ).carry_out()

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
            self.queue.end(run, None, error)
        else:
            self.queue.end(run, result, None)

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
