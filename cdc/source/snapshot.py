"""A consistent read of tables, and the places in the binary log between which it lies."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pymysql
import structlog

from cdc.errors import DucklingError, SnapshotError
from cdc.position import Position
from cdc.schema import Table
from cdc.source.connection import SourceEndpoint, cut
from cdc.source.gtid_scan import gtid_position_at
from cdc.source.result_rows import Cells, read_columns
from cdc.source.server import ServerFacts, binlog_end, server_facts
from cdc.source.translation import translate
from cdc.types import DATES, row_schema, select_expression
from cdc.values.text import text_column
from cdc.values.zero_dates import lost_dates

log = structlog.get_logger(__name__)

_READ_TIMEOUT = 3600.0
"""Seconds: the server may sort or wait long before the first row of a table."""


class Snapshot:
    """A transaction that sees one moment of the source. Use as a context manager.

    `low` is a boundary of the binary log: everything up to there is in the snapshot. `high` is one behind
    which nothing of the snapshot lies. What stands between the two may or may not be in it, so the stream
    starts at `low`, and the tables are right once it has passed `high`.

    MySQL with GTIDs: gtid_executed is read BEFORE the snapshot is opened, for a transaction enters it only
    after the engine's commit. MariaDB: the snapshot's own binlog position, which is exact. MySQL without
    GTIDs: the position under a short read lock on the tables.

    Tables without a key need an exact position, since a change must not be applied twice: on MySQL the
    snapshot is opened under a short read lock on them. With `exact` that goes for all tables, and `mark` is
    then the very place of the snapshot, as far as these tables are concerned. Without `logged` no place in the
    log is looked for, and there is none.
    """

    def __init__(
        self,
        endpoint: SourceEndpoint,
        tables: Sequence[Table],
        *,
        max_rows: int,
        max_bytes: int,
        exact: bool = False,
        logged: bool = True,
    ) -> None:
        self._endpoint = endpoint
        self._tables = tables
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._exact = exact
        self._logged = logged
        self._by_gtid = False
        self.facts: ServerFacts
        self.low: Position
        self.mark: Position
        self.lost_dates = 0
        """Dates of the table read last that the calendar lacks and that became NULL."""
        self._connection: Any = None
        self._locking: Any = None
        self._aborted = False

    def __enter__(self) -> Snapshot:
        self._connection = self._endpoint.connect(purpose="copy", read_timeout=_READ_TIMEOUT)
        try:
            self.facts = server_facts(self._connection)
            if self._logged:
                self.low, self.mark = self._open()
            else:
                self._start()
        except pymysql.MySQLError as error:
            self._connection.close()
            if self._aborted and self._locking is not None:
                self._kill(self._locking)
            raise translate(error, doing="opening a consistent snapshot") from error
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection._force_close()

    def abort(self) -> None:
        """From another thread: whatever is waited for ends with SourceUnavailableError."""
        self._aborted = True
        for session in (self._connection, self._locking):
            if session is not None:
                cut(session)

    def _open(self) -> tuple[Position, Position]:
        facts = self.facts
        if facts.flavor == "mariadb":
            self._start()
            position = self._mariadb_position()
            return position, position
        # Before the first transaction there is no GTID to start from.
        self._by_gtid = facts.gtid_mode and bool(binlog_end(self._connection, facts)[2])
        exact = [t for t in self._tables if self._exact or not self._by_gtid or not t.primary_key]
        if not exact:
            return self._position_then_start()
        with closing(self._endpoint.connect(purpose="copy-lock")) as locking:
            self._locking = locking
            names = ", ".join(f"{table.source_name} READ" for table in exact)
            with locking.cursor() as cursor:
                cursor.execute(f"LOCK TABLES {names}")
            positions = self._position_then_start()
            with locking.cursor() as cursor:
                cursor.execute("UNLOCK TABLES")
        self._locking = None
        return positions

    def _start(self) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def _position_then_start(self) -> tuple[Position, Position]:
        file, offset, gtid = binlog_end(self._connection, self.facts)
        self._start()
        mark = Position("mysql", self.facts.server_uuid, file, offset, gtid, time.time())
        # With GTIDs, a transaction may stand in the file before its end and not be in gtid_executed yet:
        # such a start has no offset.
        return (replace(mark, offset=4) if self._by_gtid else replace(mark, gtid="")), mark

    def _mariadb_position(self) -> Position:
        with self._connection.cursor() as cursor:
            cursor.execute("SHOW STATUS LIKE 'binlog_snapshot_%'")
            status = {name.lower(): value for name, value in cursor.fetchall()}
            file, offset = status.get("binlog_snapshot_file"), status.get("binlog_snapshot_position")
            if not file or not offset:
                raise SnapshotError(
                    "MariaDB gives no binlog position of the snapshot",
                    hint="is log_bin on? see duckling check",
                )
            cursor.execute("SELECT BINLOG_GTID_POS(%s, %s)", (file, int(offset)))
            gtid = cursor.fetchone()[0]
        place = Position("mariadb", self.facts.server_uuid, file, int(offset), gtid or "", time.time())
        if gtid is not None:
            return place
        # The server's own function gives up at an event that is larger than max_allowed_packet.
        connection = self._endpoint.connect(purpose="copy-position")
        server_id = 0x8000_0000 | connection.thread_id()
        return replace(place, gtid=gtid_position_at(connection, place, server_id=server_id))

    def end(self) -> Position:
        """A boundary behind everything that the snapshot (and what was read of it so far) can hold."""
        if self.facts.flavor == "mariadb" and all(table.transactional for table in self._tables):
            return self.low
        with closing(self._endpoint.connect(purpose="copy-end")) as connection:
            file, offset, gtid = binlog_end(connection, self.facts)
        return Position(self.low.flavor, self.low.server, file, offset, gtid, time.time())

    def read(self, table: Table) -> Generator[pa.Table]:
        """All rows of `table`, in pieces of bounded size, as Arrow tables of `row_schema(table)`.

        Close it where it is left before its end: the next table can't be read otherwise.
        """
        self.lost_dates = 0
        columns = ", ".join(select_expression(column) for column in table.columns)
        sql = f"SELECT {columns} FROM {table.source_name}"
        pieces = read_columns(
            self._connection,
            sql,
            max_rows=self._max_rows,
            max_bytes=self._max_bytes,
            interrupt=self._interrupt,
        )
        with closing(pieces):
            for cells in pieces:
                rows, lost = to_arrow(table, cells)
                self.lost_dates += lost
                yield rows

    def _interrupt(self) -> None:
        """Ends the statement that the snapshot's session is busy with."""
        try:
            with closing(self._endpoint.connect(purpose="copy-interrupt")) as other, other.cursor() as cursor:
                cursor.execute(f"KILL QUERY {self._connection.thread_id()}")
        except pymysql.MySQLError as error:
            raise translate(error, doing="interrupting a copy") from error

    def _kill(self, session: Any) -> None:
        """Ends a session that waits for a lock: the server would keep it, and whoever queues behind it."""
        try:
            with closing(self._endpoint.connect(purpose="copy-interrupt")) as other, other.cursor() as cursor:
                cursor.execute(f"KILL {session.thread_id()}")
        except (pymysql.MySQLError, DucklingError) as error:
            log.warning("copy.lock_left_to_time_out", error=error.__class__.__name__)

    def select(self, sql: str) -> Generator[Cells]:
        """The rows of `sql` as the snapshot sees them, in pieces of raw cells of bounded size.

        Close it where it is left before its end. Raises SourceError.
        """
        return read_columns(
            self._connection,
            sql,
            max_rows=self._max_rows,
            max_bytes=self._max_bytes,
            interrupt=self._interrupt,
        )

    @property
    def session_id(self) -> int | None:
        """The number by which the server knows the snapshot's session, once there is one."""
        return int(self._connection.thread_id()) if self._connection is not None else None

    def count(self, table: Table) -> int:
        """The number of rows."""
        return int(self.rows(f"SELECT count(*) FROM {table.source_name}")[0][0])

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        """The rows of a short SELECT, as the snapshot sees them. Raises SourceError."""
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(sql)
                found: Sequence[Sequence[Any]] = cursor.fetchall()
                return found
        except pymysql.MySQLError as error:
            raise translate(error, doing="asking the snapshot") from error


def to_arrow(table: Table, cells: Cells) -> tuple[pa.Table, int]:
    """Cells of `select_expression`s as an Arrow table of `row_schema(table)`, and how many dates were lost.

    Raises ValueDecodeError.
    """
    arrays = [text_column(column, values) for column, values in zip(table.columns, cells, strict=True)]
    lost = sum(
        lost_dates(column, array, values.null_count)
        for column, array, values in zip(table.columns, arrays, cells, strict=True)
        if column.data_type in DATES
    )
    return pa.Table.from_arrays(arrays, schema=row_schema(table)), lost
