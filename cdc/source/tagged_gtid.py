"""Tagged GTIDs (MySQL 8.3 and later): GTID_TAGGED_LOG events, which have an encoding of their own.

Layout: MySQL source documentation, mysql::serialization ("Serialization framework") and
Gtid_event::define_fields: numbers of varying length, fields behind their ids.
"""

from __future__ import annotations

import uuid

from cdc.errors import BinlogError

_FLAGS, _UUID, _NUMBER, _TAG, _LAST_COMMITTED, _SEQUENCE, _COMMIT_TIME = range(7)
_UUID_BYTES = 16


def read_varlen(data: bytes, pos: int) -> tuple[int, int]:
    """An unsigned number at `pos` and the place behind it: as many bytes follow as the first has low ones."""
    first = data[pos]
    more = 8
    while more and first & ((1 << more) - 1) != (1 << more) - 1:
        more -= 1
    stop = pos + 1 + more
    if stop > len(data):
        raise IndexError(stop)
    if more == 8:
        return int.from_bytes(data[pos + 1 : stop], "little"), stop
    return int.from_bytes(data[pos:stop], "little") >> (more + 1), stop


def read_signed(data: bytes, pos: int) -> tuple[int, int]:
    """As `read_varlen`, with the sign in the lowest bit."""
    number, pos = read_varlen(data, pos)
    return (~(number >> 1) if number & 1 else number >> 1), pos


def read_tagged_gtid(body: bytes) -> tuple[str, int, float | None, str]:
    """Source UUID, transaction number, time of the commit there (seconds since 1970), and tag.

    Raises BinlogError for bytes that make no sense.
    """
    try:
        return _read(body)
    except (IndexError, ValueError) as error:
        raise BinlogError("a tagged GTID can't be read", hint="report the source's version") from error


def _read(body: bytes) -> tuple[str, int, float | None, str]:
    _version, pos = read_varlen(body, 0)
    size, pos = read_varlen(body, pos)
    _last_needed, pos = read_varlen(body, pos)
    if size != len(body):
        raise ValueError("size")
    source, number, when, tag = b"", 0, None, ""
    while pos < len(body):
        field, pos = read_varlen(body, pos)
        if field == _UUID:
            parts = []
            for _ in range(_UUID_BYTES):
                part, pos = read_varlen(body, pos)
                parts.append(part)
            source = bytes(parts)
        elif field == _TAG:
            length, pos = read_varlen(body, pos)
            tag = body[pos : pos + length].decode()
            pos += length
        elif field in (_NUMBER, _LAST_COMMITTED, _SEQUENCE):
            value, pos = read_signed(body, pos)
            number = value if field == _NUMBER else number
        elif field in (_FLAGS, _COMMIT_TIME):
            value, pos = read_varlen(body, pos)
            when = value / 1e6 if field == _COMMIT_TIME else when
        else:
            break  # what follows says nothing of what is asked here
    if not number > 0:
        raise ValueError("number")
    return str(uuid.UUID(bytes=source)), number, when, tag
