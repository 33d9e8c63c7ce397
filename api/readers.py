"""Cursors that read for clients: counted while they are open, so that a stop can interrupt them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb

from cdc.errors import StoppedError

if TYPE_CHECKING:
    from cdc.pipeline import Pipeline


_AGAIN_SECONDS = 0.05


class Readers:
    """The cursors that are open now. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open: set[duckdb.DuckDBPyConnection] = set()
        self._stopping = False

    @contextmanager
    def reading(self, pipeline: Pipeline) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of `pipeline`'s. Raises StoppedError once `stop` was called."""
        cursor = pipeline.reader()
        try:
            with self._changed:
                if self._stopping:
                    raise StoppedError("the service is stopping", hint="try again when it is back")
                self._open.add(cursor)
            yield cursor
        finally:
            with self._changed:
                self._open.discard(cursor)
                self._changed.notify_all()
            cursor.close()

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
                self._changed.wait(_AGAIN_SECONDS)
            return not self._open
