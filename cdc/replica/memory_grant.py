"""How much memory the open file is given: its limit, and more for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb
import structlog

from cdc.replica.duckdb_errors import translate
from cdc.replica.memory import QUERY_BYTES, MemoryLimit

log = structlog.get_logger(__name__)

_LINGER = 10.0
"""Seconds behind a client's query for which DuckDB keeps what the next one may need again."""


class MemoryGrant:
    """Tells DuckDB how much it may use. Safe to use from any thread; `opened` and `closing` belong to the file's."""

    def __init__(self, limit: MemoryLimit, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`name` is the database's in the log."""
        self._limit = limit
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._extra = 0
        """Bytes that are lent now."""
        self._asking = 0
        """Clients that ask now."""
        self._asked = clock() - _LINGER
        """When the last of them had its answer."""
        self._timer: threading.Timer | None = None

    def opened(self, connection: duckdb.DuckDBPyConnection, given: int) -> None:
        """The file is open, with a limit of `given` bytes."""
        with self._lock:
            self._cursor = connection.cursor()
            self._limit.given = given
            self._look_later()
        self.adjust()

    def closing(self) -> None:
        """The file is about to be closed."""
        with self._lock:
            self._limit.given = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._cursor is not None:
                self._cursor.close()
                self._cursor = None

    def adjust(self, *, upwards: bool = False) -> None:
        """Gives DuckDB what the limit says now, and what is added to it; with `upwards` no less than it has."""
        with self._lock:
            more = self._extra + (QUERY_BYTES if self._serves() else 0)
            wanted = self._limit.with_more(more)
            if (
                self._cursor is None
                or wanted == self._limit.given
                or (upwards and wanted < self._limit.given)
            ):
                return
            try:
                self._cursor.execute(f"SET GLOBAL memory_limit = '{wanted}B'")
            except duckdb.OutOfMemoryException:
                return  # more than that is in use, and may not be for long: it is tried again
            except duckdb.Error as error:
                log.warning("replica.memory_not_set", database=self._name, error=translate(error).message)
                return
            self._limit.given = wanted

    @contextmanager
    def serving(self) -> Iterator[None]:
        """While a client's query runs, or a validation, and for a while after."""
        with self._lock:
            self._asking += 1
        try:
            self.adjust()
            yield
        finally:
            with self._lock:
                self._asking -= 1
                self._asked = self._clock()
                self._look_later()

    @contextmanager
    def lent(self, size: int) -> Iterator[None]:
        """`size` bytes more, for a checkpoint or a look at the bookkeeping."""
        with self._lock:
            self._extra += size
        try:
            self.adjust()
            yield
        finally:
            with self._lock:
                self._extra -= size
            self.adjust()

    def _serves(self) -> bool:
        return self._asking > 0 or self._clock() - self._asked < _LINGER

    def _look_later(self) -> bool:
        """Has somebody look when clients may be done: the writer may have nothing to do until tomorrow. Whether there
        is reason to."""
        if self._cursor is None or not self._limit.grows or not self._serves():
            return False
        if self._timer is None:
            left = _LINGER if self._asking else _LINGER - (self._clock() - self._asked)
            self._timer = threading.Timer(max(0.01, left), self._look)
            self._timer.daemon = True
            self._timer.start()
        return True

    def _look(self) -> None:
        """Takes back what clients had, unless they came again."""
        with self._lock:
            self._timer = None
            if self._look_later():
                return
        self.adjust()
