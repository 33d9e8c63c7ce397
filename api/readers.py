"""Cursors that read for clients: counted while they are open, so that a stop can interrupt them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb

from cdc.deadlines import AGAIN_SECONDS
from cdc.errors import StoppedError

if TYPE_CHECKING:
    from cdc.pipeline import Pipeline


class Readers:
    """The cursors that are open now. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: dict[duckdb.DuckDBPyConnection, threading.Event | None] = {}
        self._stopping = False

    @contextmanager
    def reading(
        self, pipeline: Pipeline, gone: threading.Event | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of `pipeline`'s. Raises StoppedError once `stop` was called, or `gone` is set."""
        cursor = pipeline.reader()
        try:
            with self._changed:
                if self._stopping:
                    raise StoppedError("the service is stopping", hint="try again when it is back")
                if gone is not None and gone.is_set():
                    raise StoppedError("the client has left", hint="ask again")
                self._open[cursor] = gone
            with pipeline.serving():
                yield cursor
        finally:
            with self._changed:
                self._open.pop(cursor, None)
                self._changed.notify_all()
            cursor.close()

    def interrupt(self, gone: threading.Event) -> None:
        """Interrupts what runs for the client that left. Again and again, as in `stop`."""
        with self._changed:
            for cursor, owner in self._open.items():
                if owner is gone:
                    cursor.interrupt()

    def stop(self, timeout: float) -> bool:
        """Interrupts what runs and lets nothing new begin: a long query must not hold the exit up.

        Returns when all are closed, or after `timeout` seconds; says which.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._stopping = True
            while self._open and time.monotonic() < deadline:
                # Again and again: DuckDB forgets an interrupt that comes between two statements.
                for cursor in self._open:
                    cursor.interrupt()
                self._changed.wait(AGAIN_SECONDS)
            return not self._open
