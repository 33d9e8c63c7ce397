"""Runs: one full, table or incremental sync, with its progress and its result."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from cdc.errors import DucklingError, RunCancelledError, StoppedError
from cdc.status import SyncResult, TableProgress

T = TypeVar("T")

RunKind = Literal["full", "table", "incremental", "validation"]


class Run:
    """One sync, under way or done. Safe to look at from any thread."""

    def __init__(self, kind: RunKind, tables: tuple[str, ...] = (), *, automatic: bool = False) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.started = time.monotonic()
        self.asked_at = datetime.now(UTC)
        self.kind: RunKind = kind
        self.tables = tables
        """Names of the tables wanted; empty for all."""
        self.automatic = automatic
        """Whether the pipeline started it by itself."""
        self._cancellation: Future[None] = Future()
        """Done once the run is to end."""
        self._on_cancel: list[Callable[[], None]] = []
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._progress: dict[str, TableProgress] = {}
        self._result: SyncResult | None = None
        self._error: DucklingError | None = None

    @classmethod
    def restored(cls, run_id: str, kind: RunKind, tables: tuple[str, ...], *, automatic: bool) -> Run:
        """A run of an earlier process, known from the log by `run_id`."""
        run = cls(kind, tables, automatic=automatic)
        run.id = run_id
        return run

    @property
    def done(self) -> bool:
        """Whether the run has ended, well or not."""
        return self._done.is_set()

    def wait(self, timeout: float | None = None) -> SyncResult:
        """The result, once there; raises the error that ended the run, TimeoutError after `timeout` s."""
        if not self._done.wait(timeout):
            raise TimeoutError
        if self._error is not None:
            raise self._error.with_traceback(None)  # else each caller's frames stay with it
        assert self._result is not None
        return self._result

    def progress(self) -> tuple[TableProgress, ...]:
        """How far each table is."""
        with self._lock:
            return tuple(self._progress.values())

    def cancel(self) -> None:
        """Asks the run to end; what it has not made live is dropped."""
        with self._lock:
            if not self._cancellation.done():
                self._cancellation.set_result(None)
            callbacks = list(self._on_cancel)
        for callback in callbacks:
            callback()

    # For the thread that carries the run out ---------------------------------------------------------

    def expect(self, table: str, estimated_rows: int) -> TableProgress:
        """A table that the run will copy."""
        with self._lock:
            return self._progress.setdefault(table, TableProgress(table, estimated_rows=estimated_rows))

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Calls `callback` when the run is cancelled; at once if it is already."""
        with self._lock:
            self._on_cancel.append(callback)
        if self.cancelled:
            callback()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked the run to end."""
        return self._cancellation.done()

    def check_cancelled(self) -> None:
        """Raises RunCancelledError once the run is to end."""
        if self.cancelled:
            raise RunCancelledError.of()

    def wait_for(self, future: Future[T]) -> T:
        """The result of `future`, or its error; raises RunCancelledError once the run is to end."""
        either: list[Future[Any]] = [future, self._cancellation]
        wait(either, return_when=FIRST_COMPLETED)
        if not future.done():
            raise RunCancelledError.of()
        return future.result()

    def pause(self, seconds: float) -> None:
        """Waits; raises RunCancelledError once the run is to end."""
        wait([self._cancellation], timeout=seconds)
        self.check_cancelled()

    def succeed(self, result: SyncResult) -> None:
        """The run has ended with `result`."""
        self._result = result
        self._done.set()

    def fail(self, error: DucklingError) -> None:
        """The run has ended with `error`."""
        self._error = error
        for progress in self.progress():
            if progress.state not in ("done", "error"):
                progress.state = "cancelled" if isinstance(error, StoppedError) else "error"
        self._done.set()
