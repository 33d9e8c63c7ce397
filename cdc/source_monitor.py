"""Where the source's binary log ends, asked every few seconds: the other end of the lag."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pymysql
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError
from cdc.position import Position, file_number
from cdc.source.server import ServerFacts, binlog_end, server_facts
from cdc.source.translation import translate

log = structlog.get_logger(__name__)


class SourceMonitor:
    """Watches the source in a thread of its own; `end` and `lag_bytes` are None while it can't be reached.

    `applied` gives the last committed boundary.
    """

    def __init__(self, engine: Engine, applied: Callable[[], Position | None]) -> None:
        self._engine = engine
        self._applied = applied
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"monitor-{engine.id}", daemon=True)
        self.end: Position | None = None
        self.lag_bytes: int | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ends the thread. The endpoint must be closed first, or it may wait for the source."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except DucklingError as error:
                # The stream meets the same trouble and reports it; here the figures are unknown for a while.
                log.debug("monitor.no_source", database=self._engine.id, code=error.code)
            self.end = self.lag_bytes = None
            self._stop.wait(self._engine.settings.position_interval)

    def _watch(self) -> None:
        connection: Any = self._engine.endpoint.connect(purpose="monitoring")
        try:
            facts = server_facts(connection)
            while not self._stop.is_set():
                self._look(connection, facts)
                self._stop.wait(self._engine.settings.position_interval)
        except pymysql.MySQLError as error:
            raise translate(error, doing="asking where the binary log ends") from error
        finally:
            with suppress(pymysql.MySQLError):
                connection.close()

    def _look(self, connection: Any, facts: ServerFacts) -> None:
        file, offset, gtid = binlog_end(connection, facts)
        end = Position(facts.flavor, facts.server_uuid, file, offset, gtid)
        applied = self._applied()
        lag = None
        if applied is not None and applied.server == end.server:
            lag = _bytes_between(connection, applied, end)
        self.end, self.lag_bytes = end, lag


def _bytes_between(connection: Any, applied: Position, end: Position) -> int | None:
    """Bytes of binary log from `applied` to `end`; None where a file between them is gone."""
    if applied.file == end.file:
        return max(0, end.offset - applied.offset)
    with connection.cursor() as cursor:
        cursor.execute("SHOW BINARY LOGS")
        sizes = {row[0]: int(row[1]) for row in cursor.fetchall()}
    if applied.file not in sizes:
        return None
    first, last = file_number(applied.file), file_number(end.file)
    between = sum(size for name, size in sizes.items() if first <= file_number(name) < last)
    return max(0, between - applied.offset + end.offset)
