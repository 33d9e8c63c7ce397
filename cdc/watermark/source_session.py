"""The session that watermark syncs ask and read through: kept open from one sync to the next."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from typing import Any

import pymysql

from cdc.errors import SourceUnavailableError
from cdc.source.connection import SourceEndpoint, cut
from cdc.source.result_rows import Cells, read_columns
from cdc.source.translation import translate
from cdc.watermark.moments import moment

_READ_TIMEOUT = 3600.0
"""Seconds: the server may read a whole table before its first answer, where an index is missing."""

_PING_TIMEOUT = 5.0
"""Seconds: a network may have forgotten an idle session without a word."""


class SourceSession:
    """One session for all tables, made anew where it was lost. For one thread; `close` is for any."""

    def __init__(self, endpoint: SourceEndpoint) -> None:
        self._endpoint = endpoint
        self._connection: Any = None

    def open(self) -> None:
        """Connects, unless the session of last time still answers. Raises SourceError."""
        if self._connection is not None:
            try:
                self._connection._read_timeout = _PING_TIMEOUT  # the driver applies it at the next read
                self._connection.ping(reconnect=False)
            except (pymysql.MySQLError, OSError):
                self.close()
            else:
                self._connection._read_timeout = _READ_TIMEOUT
                return
        self._connection = self._endpoint.connect(purpose="watermark sync", read_timeout=_READ_TIMEOUT)

    def close(self) -> None:
        """Ends the session."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(pymysql.MySQLError, OSError):  # it is over either way
                connection._force_close()

    def abort(self) -> None:
        """From another thread: whatever is waited for ends with SourceUnavailableError."""
        connection = self._connection
        if connection is not None:
            cut(connection)

    def begin(self) -> str:
        """Opens a transaction that sees one moment; returns the source's clock just before it, in UTC.

        What is committed after that moment is committed after that clock.
        """
        clock = moment(str(self.rows("SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)")[0][0]))
        assert clock is not None
        self.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        return clock

    def end(self) -> None:
        """Ends that transaction."""
        self.rows("COMMIT")

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        """The rows of a statement. Raises SourceError."""
        try:
            with self._open_connection().cursor() as cursor:
                cursor.execute(sql)
                found: Sequence[Sequence[Any]] = cursor.fetchall()
                return found
        except pymysql.MySQLError as error:
            raise translate(error, doing="asking the source what is new") from error

    def read(self, sql: str, *, max_rows: int, max_bytes: int) -> Generator[Cells]:
        """The rows of a SELECT in pieces of bounded size; close it where it is left before its end."""
        return read_columns(
            self._open_connection(), sql, max_rows=max_rows, max_bytes=max_bytes, interrupt=self._interrupt
        )

    def _open_connection(self) -> Any:
        if self._connection is None:
            raise SourceUnavailableError("the session with the source is closed", hint="it is opened again")
        return self._connection

    def _interrupt(self) -> None:
        """Ends the statement that the session is busy with."""
        number = self._open_connection().thread_id()
        try:
            with (
                closing(self._endpoint.connect(purpose="interrupting a sync")) as other,
                other.cursor() as cursor,
            ):
                cursor.execute(f"KILL QUERY {number}")
        except pymysql.MySQLError as error:
            raise translate(error, doing="interrupting a watermark sync") from error
