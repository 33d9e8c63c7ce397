"""Values of a table as they come from a server, not yet converted: in row images and as text."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from pymysql.constants import COMMAND

from cdc.config import Settings
from cdc.sandbox.databases import Database
from cdc.sandbox.installation import Flavor
from cdc.schema import Table
from cdc.source.catalog import load_tables
from cdc.source.connection import SourceEndpoint
from cdc.source.result_rows import Cells, read_columns
from cdc.source.row_layout import RowLayout
from cdc.source.rows import INSERT, RowBuffer
from cdc.source.server import collation_names
from cdc.source.table_map import read_table_map
from cdc.types import TypeChoices, select_expression
from cdc.values.charsets import decoder

_TABLE_MAP, _WRITE_ROWS_V1, _WRITE_ROWS_V2 = 19, 23, 30
_HEADER = 19
_UNTIL_THE_END = 1
"""BINLOG_DUMP_NON_BLOCK: the server ends the dump where its log ends."""


@dataclass(frozen=True)
class Unconverted:
    """A table's rows by both ways: as the stream buffers them, and as the copy reads them."""

    table: Table
    streamed: RowBuffer
    copied: Cells


def place_in_log(database: Database) -> tuple[str, int]:
    """The end of the binary log."""
    of = "BINARY LOG" if database.flavor is Flavor.MYSQL else "MASTER"
    with database.connect().cursor() as cursor:
        cursor.execute(f"SHOW {of} STATUS")
        file, at, *_ = cursor.fetchall()[0]
    return str(file), int(at)


def gather(database: Database, since: tuple[str, int]) -> Generator[Unconverted, None, None]:
    """All tables with what was inserted into them since that place in the log."""
    session = SourceEndpoint(Settings(mysql_connection_string=SecretStr(database.url))).connect(
        purpose="a test"
    )
    tables = {table.name: TypeChoices().applied_to(table) for table in load_tables(session, database.name)}
    collations = collation_names(session)
    buffers: dict[str, RowBuffer] = {}
    known: dict[bytes, RowBuffer | None] = {}
    for kind, body in _events(database, since):
        number = body[:6]
        if kind == _TABLE_MAP:
            found = read_table_map(body[6:], collations, lambda text, name: decoder(name or "utf8mb4")(text))
            if found.schema == database.name:
                layout = RowLayout.of(found, tables[found.table].primary_key)
                known[number] = buffers.setdefault(found.table, RowBuffer(found, layout))
            else:
                known[number] = None
        elif (buffer := known[number]) is not None:
            at = 8 + (struct.unpack_from("<H", body, 8)[0] if kind == _WRITE_ROWS_V2 else 0)
            at += (1 if body[at] < 251 else 3) + buffer.layout.null_bytes
            buffer.add(INSERT, [body[at:]])
    for name, buffer in buffers.items():
        table = tables[name]
        columns = ", ".join(select_expression(column) for column in table.columns)
        sql = f"SELECT {columns} FROM {table.source_name} ORDER BY id"
        [cells] = read_columns(
            session,
            sql,
            max_rows=1 << 30,
            max_bytes=1 << 40,
            interrupt=_never,
        )
        yield Unconverted(table, buffer, cells)
    session.close()


def _never() -> None:
    raise AssertionError("a table was not read to its end")


def _events(database: Database, since: tuple[str, int]) -> Iterator[tuple[int, bytes]]:
    """Kind and body of TABLE_MAP and insert events, to the end of the log."""
    connection: Any = database.connect()
    with connection.cursor() as cursor:
        cursor.execute("SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32'")
        cursor.execute("SET @mariadb_slave_capability = 4")
        cursor.execute("SELECT @@GLOBAL.binlog_checksum")
        checksum = 4 if cursor.fetchall() == (("CRC32",),) else 0
    file, at = since
    request = struct.pack("<IHI", at, _UNTIL_THE_END, 4_000_019) + file.encode()
    connection._execute_command(COMMAND.COM_BINLOG_DUMP, request)
    while not (packet := connection._read_packet()).is_eof_packet():
        event = packet.get_all_data()[1:]
        if event[4] in (_TABLE_MAP, _WRITE_ROWS_V1, _WRITE_ROWS_V2):
            yield event[4], event[_HEADER : len(event) - checksum]
