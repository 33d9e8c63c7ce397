"""Rows of a SELECT, from the text protocol's packets straight into columns of raw cells.

See the MySQL protocol documentation, "Text Resultset Row": a packet a row, each value behind its length,
0xFB for NULL.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from functools import lru_cache
from typing import Any

import pymysql
from pymysql.connections import MySQLResult
from pymysql.constants import COMMAND

from cdc.errors import SnapshotError, SourceError, SourceUnavailableError
from cdc.source.translation import translate

Cells = list[list[bytes | None]]
"""One list of raw values a column; None is NULL."""

_RECEIVE_BYTES = 1 << 18
_FULL_PACKET = 0xFFFFFF
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
    columns: Cells = [[] for _ in range(width)]
    parse = _parser(width)(columns)
    buffer, pos, taken = b"", 0, 0
    while True:
        _, at, special = parse(buffer, pos, max_rows - len(columns[0]))
        taken += at - pos
        pos = at
        if len(columns[0]) >= max_rows or taken >= max_bytes:
            try:
                yield columns
            except GeneratorExit:
                _skip(connection, buffer[pos:])
                raise
            columns = [[] for _ in range(width)]
            parse, taken = _parser(width)(columns), 0
            continue
        if special:
            buffer, pos, row = _special(connection, buffer, pos)
            if row is None:
                break
            parse(row, 0, 1)
            taken += len(row)
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
    if columns[0]:
        yield columns


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

    Such a row comes back as one packet with a long header, as `_parser` takes it.
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
            return buffer, pos, b"\0\0\0\0" + b"".join(parts)


def _refused(packet: bytes) -> SourceError:
    code = int.from_bytes(packet[1:3], "little")
    text = packet[9:].decode("utf-8", "replace")
    return translate(pymysql.err.OperationalError(code, text), doing="reading a table")


def _long(buffer: bytes, pos: int) -> tuple[bytes, int]:
    """A value behind a length of two bytes or more."""
    width = {252: 2, 253: 3, 254: 8}[buffer[pos]]
    start = pos + 1 + width
    stop = start + int.from_bytes(buffer[pos + 1 : start], "little")
    return buffer[start:stop], stop


@lru_cache(maxsize=1024)
def _parser(width: int) -> Callable[[Cells], Callable[[bytes, int, int], tuple[int, int, bool]]]:
    """`bind(columns)` for rows of `width` values.

    It returns `parse(buffer, pos, limit)`, which appends up to `limit` whole rows and returns how many, the
    place behind them, and whether a packet stands there that is no plain row. A packet of length 0 takes
    the whole buffer: a row put together from several packets.
    """
    lines = ["def bind(columns):"]
    lines += [f"    put{i} = columns[{i}].append" for i in range(width)]
    lines += [
        "    def parse(buf, pos, limit):",
        "        size = len(buf)",
        "        count = 0",
        "        while count < limit and size - pos > 4:",
        "            length = buf[pos] | buf[pos + 1] << 8 | buf[pos + 2] << 16",
        "            stop = pos + 4 + length if length else size",
        "            first = buf[pos + 4]",
        f"            if first == 255 or length == {_FULL_PACKET} or first == 254 and length < 9 and length:",
        "                return count, pos, True",
        "            if stop > size:",
        "                break",
        "            pos += 4",
    ]
    for i in range(width):
        lines += [
            "            mark = buf[pos]",
            "            if mark < 251:",
            "                end = pos + 1 + mark",
            f"                put{i}(buf[pos + 1:end])",
            "                pos = end",
            "            elif mark == 251:",
            f"                put{i}(None)",
            "                pos += 1",
            "            else:",
            "                value, pos = long(buf, pos)",
            f"                put{i}(value)",
        ]
    lines += [
        "            if pos != stop:",
        "                misfit()",
        "            count += 1",
        "        return count, pos, False",
        "    return parse",
    ]
    namespace: dict[str, Any] = {"long": _long, "misfit": _misfit}
    exec(compile("\n".join(lines), "<row parser>", "exec"), namespace)
    bind: Callable[[Cells], Callable[[bytes, int, int], tuple[int, int, bool]]] = namespace["bind"]
    return bind


def _misfit() -> None:
    raise SnapshotError("a row's values don't end where its packet ends", hint="report the source's version")
