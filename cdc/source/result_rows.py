"""Rows of a SELECT, from the text protocol's packets straight into columns of raw cells: a packet a row."""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import pyarrow as pa
import pymysql
from pymysql.connections import MySQLResult
from pymysql.constants import COMMAND

from cdc.errors import SnapshotError, SourceError, SourceUnavailableError
from cdc.source.cells import HEADER, cut
from cdc.source.translation import translate
from cdc.values.raw_bytes import PADDING

Cells = list[pa.Array]
"""One binary array of raw values a column."""

_RECEIVE_BYTES = 1 << 18
_FULL_PACKET = 0xFFFFFF
_LENGTH = struct.Struct("<I")
"""A packet's length in three bytes, and its number in one."""
_RETRY_HINT = "the copy is tried again"


def read_columns(
    connection: Any, sql: str, *, max_rows: int, max_bytes: int, interrupt: Callable[[], None]
) -> Generator[Cells]:
    """Runs `sql` and yields its rows in pieces of at most `max_rows` rows and about `max_bytes` bytes.

    Closed before its end, it calls `interrupt`, which should make the server stop, and reads what is still
    under way, so that the connection can be used for the next statement. Raises SourceError where the server
    refuses, SourceUnavailableError where it stops before the end.
    """
    try:
        connection._execute_command(COMMAND.COM_QUERY, sql)
        result = MySQLResult(connection)
        result.init_unbuffered_query()
    except pymysql.MySQLError as error:
        raise translate(error, doing="reading a table") from error
    width = result.field_count
    # The result is read to its end here; PyMySQL must not wait for its own end of it.
    result.unbuffered_active = False
    result.connection = None
    connection._result = None
    with closing(_pieces(connection, width, max_rows, max_bytes)) as pieces:
        for cells in pieces:
            try:
                yield cells
            except GeneratorExit:
                interrupt()  # before the rest is read
                raise


def _pieces(connection: Any, width: int, max_rows: int, max_bytes: int) -> Generator[Cells]:
    piece = _Piece(width)
    buffer, pos = b"", 0
    while True:
        at, special = piece.take(buffer, pos, max_rows, max_bytes)
        pos = at
        if len(piece.starts) >= max_rows or piece.size >= max_bytes:
            try:
                yield piece.columns()
            except GeneratorExit:
                _skip(connection, buffer[pos:])
                raise
            piece = _Piece(width)
            continue
        if special:
            buffer, pos, row = _special(connection, buffer, pos)
            if row is None:
                break
            piece.add(row)
            continue
        buffer = buffer[pos:] + _receive(connection)
        pos = 0
        missing = _missing(buffer)
        if missing > 0:
            parts = [buffer]
            while missing > 0:
                parts.append(_receive(connection))
                missing -= len(parts[-1])
            buffer = b"".join(parts)
    if piece.starts:
        yield piece.columns()


class _Piece:
    """Whole rows, as they came, until there are enough of them to be cut into columns."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._parts: list[bytes] = []
        self.starts: list[int] = []
        self.size = 0

    def take(self, buffer: bytes, pos: int, max_rows: int, max_bytes: int) -> tuple[int, bool]:
        """Takes rows from `pos` on, while there is room for them.

        Returns the place behind them, and whether a packet stands there that is no plain row.
        """
        unpack, put = _LENGTH.unpack_from, self.starts.append
        base = self.size - pos
        first, size = pos, len(buffer)
        room = max_rows - len(self.starts)
        limit = pos + max_bytes - self.size
        special = False
        while room and size - pos > HEADER and pos < limit:
            (length,) = unpack(buffer, pos)
            length &= _FULL_PACKET
            mark = buffer[pos + HEADER]
            if (mark >= 254 and (mark == 255 or length < 9)) or length == _FULL_PACKET:
                special = True
                break
            stop = pos + HEADER + length
            if stop > size:
                break
            put(base + pos)
            pos = stop
            room -= 1
        if pos > first:
            self._parts.append(buffer[first:pos])
            self.size += pos - first
        return pos, special

    def add(self, row: bytes) -> None:
        """Takes a row that came in several packets, behind four bytes of any header."""
        self.starts.append(self.size)
        self._parts.append(row)
        self.size += len(row)

    def columns(self) -> Cells:
        """The rows' columns."""
        return cut(b"".join([*self._parts, bytes(PADDING)]), self.starts, self.size, self._width)


def _skip(connection: Any, buffer: bytes) -> None:
    """Reads to the end of the result, or to the error that an interrupted one ends with."""
    while True:
        while _missing(buffer) > 0:
            buffer += _receive(connection)
        length = int.from_bytes(buffer[:3], "little")
        if buffer[4] == 0xFF or (buffer[4] == 0xFE and length < 9):
            return
        buffer = buffer[4 + length :]


def _missing(buffer: bytes) -> int:
    """Bytes until the packet at the front is whole."""
    if len(buffer) < 4:
        return 4 - len(buffer)
    return int.from_bytes(buffer[:3], "little") + 4 - len(buffer)


def _receive(connection: Any) -> bytes:
    try:
        data: bytes = connection._rfile.read1(_RECEIVE_BYTES)
    except OSError as error:
        raise SourceUnavailableError(
            f"the connection broke inside a table's rows ({error.__class__.__name__})", hint=_RETRY_HINT
        ) from error
    if not data:
        raise SourceUnavailableError(
            "the source closed the connection inside a table's rows", hint=_RETRY_HINT
        )
    return data


def _special(connection: Any, buffer: bytes, pos: int) -> tuple[bytes, int, bytes | None]:
    """A packet that is no plain row: the end (None), an error, or a row of several packets.

    Such a row comes back as one, behind an empty header.
    """
    parts: list[bytes] = []
    while True:
        while _missing(buffer[pos:]) > 0:
            buffer, pos = buffer[pos:] + _receive(connection), 0
        length = int.from_bytes(buffer[pos : pos + 3], "little")
        body = buffer[pos + 4 : pos + 4 + length]
        pos += 4 + length
        if not parts and length < _FULL_PACKET:
            if body[0] == 0xFF:
                raise _refused(body)
            if body[0] == 0xFE and length < 9:
                return buffer, pos, None
            raise SnapshotError("the source sent a packet that is no row", hint="report the source's version")
        parts.append(body)
        if length < _FULL_PACKET:
            return buffer, pos, bytes(HEADER) + b"".join(parts)


def _refused(packet: bytes) -> SourceError:
    code = int.from_bytes(packet[1:3], "little")
    text = packet[9:].decode("utf-8", "replace")
    return translate(pymysql.err.OperationalError(code, text), doing="reading a table")
