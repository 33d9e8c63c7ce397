"""The session that watermark syncs ask and read through: kept open from one sync to the next."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

import pymysql

from cdc.source.connection import SourceEndpoint
from cdc.source.kept_session import KeptSession
from cdc.source.result_rows import Cells, read_columns
from cdc.source.translation import refuse_partial_answer, translate
from cdc.watermark.moments import moment

_DOING = "asking the source what is new"
_READ_TIMEOUT = 3600.0
"""Seconds: the server may read a whole table before its first answer, where an index is missing."""


class SourceSession(KeptSession):
    """One session for all tables: what it reads between `begin` and `end` is of one moment."""

    def __init__(self, endpoint: SourceEndpoint) -> None:
        super().__init__(endpoint, purpose="watermark sync", read_timeout=_READ_TIMEOUT)

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
            with self.connection.cursor() as cursor:
                cursor.execute(sql)
                found: Sequence[Sequence[Any]] = cursor.fetchall()
                refuse_partial_answer(cursor, doing=_DOING)
                return found
        except pymysql.MySQLError as error:
            raise translate(error, doing=_DOING) from error

    def read(self, sql: str, *, max_rows: int, max_bytes: int) -> Generator[Cells]:
        """The rows of a SELECT in pieces of bounded size; close it where it is left before its end."""
        return read_columns(
            self.connection, sql, max_rows=max_rows, max_bytes=max_bytes, interrupt=self._interrupt
        )

    def _interrupt(self) -> None:
        """Ends the statement that the session is busy with."""
        number = self.connection.thread_id()
        try:
            with (
                closing(self._endpoint.connect(purpose="interrupting a sync")) as other,
                other.cursor() as cursor,
            ):
                cursor.execute(f"KILL QUERY {number}")
        except pymysql.MySQLError as error:
            raise translate(error, doing="interrupting a watermark sync") from error
