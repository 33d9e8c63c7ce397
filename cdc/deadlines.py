"""Deadlines of statements: one thread for all of them, since to start one for each takes a tenth of a small query."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import duckdb

AGAIN_SECONDS = 0.05
"""Between two interrupts of the same cursor: DuckDB forgets one that comes between two statements, or while binding."""
_LONGEST_WAIT = 3600.0
"""Seconds; more than some days are more than a lock can wait for."""


class Deadlines:
    """Interrupts what takes too long. Safe to use from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` says what is due; the thread waits in real time."""
        self._clock = clock
        self._changed = threading.Condition()
        self._due: dict[threading.Event, tuple[float, duckdb.DuckDBPyConnection]] = {}
        """When each is due next, in seconds of `clock`, and the cursor that is interrupted then."""
        self._looks_at: float | None = None
        """When the thread wakes by itself; None for never."""
        self._thread: threading.Thread | None = None

    @contextmanager
    def within(self, seconds: float, cursor: duckdb.DuckDBPyConnection) -> Iterator[threading.Event]:
        """Sets the event and interrupts `cursor` if the block takes longer than `seconds`, and again until it ends.

        Never after it: the cursor may be at something else by then.
        """
        fired = threading.Event()
        try:
            self._add(fired, self._clock() + seconds, cursor)
            yield fired
        finally:
            with self._changed:
                self._due.pop(fired, None)

    def _add(self, fired: threading.Event, due: float, cursor: duckdb.DuckDBPyConnection) -> None:
        with self._changed:
            self._due[fired] = due, cursor
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                thread.start()
                self._thread = thread
            elif self._looks_at is None or due < self._looks_at:
                self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while True:
                self._interrupt_due()
                self._looks_at = min((due for due, _ in self._due.values()), default=None)
                left = None if self._looks_at is None else max(0.0, self._looks_at - self._clock())
                self._changed.wait(None if left is None else min(left, _LONGEST_WAIT))

    def _interrupt_due(self) -> None:
        now = self._clock()
        for fired, (due, cursor) in sorted(self._due.items(), key=lambda item: item[1][0]):
            if due > now:
                break
            self._due[fired] = now + AGAIN_SECONDS, cursor
            fired.set()
            with suppress(duckdb.Error):  # its file was closed, and that ended what ran on it
                cursor.interrupt()
