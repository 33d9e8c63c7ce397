"""Where the source's binary log ends, and its clock, asked every few seconds: the other end of the lag."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pymysql
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError
from cdc.position import Position
from cdc.source.server import ServerFacts, binlog_end, server_facts
from cdc.source.translation import translate

log = structlog.get_logger(__name__)


class SourceMonitor:
    """Watches the source in a thread of its own, and tells `engine.lag`.

    `end` and `lag_bytes` are None while the source can't be reached. `covered` gives a place of which the
    copy has everything before it, the last committed boundary for example.
    """

    def __init__(self, engine: Engine, covered: Callable[[], Position | None]) -> None:
        self._engine = engine
        self._covered = covered
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"monitor-{engine.id}", daemon=True)

    @property
    def end(self) -> Position | None:
        """Where the source's log ended when last asked."""
        return self._engine.lag.end

    @property
    def lag_bytes(self) -> int | None:
        """See `cdc.lag.Lag.bytes`."""
        return self._engine.lag.bytes()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ends the thread. The endpoint must be closed first, or it may wait for the source."""
        self._stop.set()
        self._engine.lag.look_now.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except DucklingError as error:
                # The stream meets the same trouble and reports it; here the figures are unknown for a while.
                log.debug("monitor.no_source", database=self._engine.id, code=error.code)
            except Exception:
                log.exception("monitor.unexpected", database=self._engine.id)
            self._engine.lag.source_lost()
            self._pause()

    def _pause(self) -> None:
        """Until the next look is due, or wanted."""
        look_now = self._engine.lag.look_now
        look_now.wait(self._engine.settings.position_interval)
        if not self._stop.is_set():  # what ends the pause for good stays set
            look_now.clear()

    def _watch(self) -> None:
        # A source that hangs must not be taken for one that has nothing new.
        limit = self._engine.settings.connect_timeout
        connection: Any = self._engine.endpoint.connect(purpose="monitoring", read_timeout=limit)
        try:
            facts = server_facts(connection)
            while not self._stop.is_set():
                self._look(connection, facts)
                self._pause()
        except pymysql.MySQLError as error:
            raise translate(error, doing="asking where the binary log ends") from error
        finally:
            with suppress(pymysql.MySQLError):
                connection.close()

    def _look(self, connection: Any, facts: ServerFacts) -> None:
        lag = self._engine.lag
        sent = lag.clock()
        with connection.cursor() as cursor:
            # SYSDATE() can't be set by a session, unlike NOW(); the session's time zone is UTC.
            cursor.execute("SELECT UNIX_TIMESTAMP(SYSDATE(6))")
            source_clock = float(cursor.fetchone()[0])
        lag.clocks_compared(source_clock, sent, lag.clock())
        covered = lag.place() or self._covered()
        asked_at = lag.clock()
        file, offset, gtid = binlog_end(connection, facts)
        end = Position(facts.flavor, facts.server_uuid, file, offset, gtid)
        sizes: dict[str, int] = {}
        if covered is not None and covered.file != file:
            with connection.cursor() as cursor:
                cursor.execute("SHOW BINARY LOGS")
                sizes = {str(row[0]): int(row[1]) for row in cursor.fetchall()}
        lag.source_seen(end, asked_at, covered=covered, sizes=sizes)
