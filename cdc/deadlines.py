"""Deadlines of statements: one thread for all of them, since to start one for each takes a tenth of a small query."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import duckdb


class Deadlines:
    """Interrupts what takes too long. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._pending: dict[threading.Event, tuple[float, Callable[[], None]]] = {}
        """When each is due, in seconds of `clock`, and what is called then."""
        self._looks_at: float | None = None
        """When the thread wakes by itself; None for never."""
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(self, seconds: float, interrupt: Callable[[], None]) -> Iterator[threading.Event]:
        """Calls `interrupt` and sets the event if the block takes longer than `seconds`; never after the block."""
        fired = threading.Event()
        due = self._clock() + seconds
        with self._changed:
            self._pending[fired] = due, interrupt
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()
            elif self._looks_at is None or due < self._looks_at:
                self._changed.notify()
        try:
            yield fired
        finally:
            with self._changed:
                self._pending.pop(fired, None)

    def _watch(self) -> None:
        with self._changed:
            while True:
                self._interrupt_due()
                self._looks_at = min((due for due, _ in self._pending.values()), default=None)
                left = None if self._looks_at is None else max(0.0, self._looks_at - self._clock())
                self._changed.wait(left)

    def _interrupt_due(self) -> None:
        now = self._clock()
        for fired in [fired for fired, (due, _) in self._pending.items() if due <= now]:
            _, interrupt = self._pending.pop(fired)
            fired.set()
            with suppress(duckdb.Error):  # the connection is gone, and what ran on it
                interrupt()
