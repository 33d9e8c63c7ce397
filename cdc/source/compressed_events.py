"""What a source compresses: whole transactions (MySQL), and single statements and rows events (MariaDB).

Layouts: MySQL source documentation, mysql::binlog::event::Transaction_payload_event and codecs; MariaDB's
sql/log_event.cc, binlog_buf_compress.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from cdc.errors import BinlogError, ValueDecodeError
from cdc.source.binlog import Stretch
from cdc.source.events import HEADER_BYTES
from cdc.source.table_map import read_lenenc
from cdc.values.compressed import inflate

_END, _SIZE, _METHOD, _WHOLE_SIZE = range(4)
"""Fields before the compressed bytes: their end, how many bytes follow, how they are compressed, and the
size that they have afterwards."""
_ZSTD, _NONE = 0, 255
_PIECE_BYTES = 1 << 20


def payload_events(buffer: bytes, start: int, end: int) -> Iterator[Stretch]:
    """The events of a TRANSACTION_PAYLOAD event that lies between `start` (behind its header) and `end`.

    They are unpacked piece by piece: memory is bounded by the largest event inside, not by the
    transaction. Raises BinlogError for bytes that make no sense.
    """
    size, method, pos = _payload_head(buffer, start, end)
    packed = pa.py_buffer(memoryview(buffer)[pos : pos + size])
    source: pa.NativeFile = pa.BufferReader(packed)
    if method == _ZSTD:
        source = pa.CompressedInputStream(source, "zstd")
    elif method != _NONE:
        raise BinlogError(
            f"a transaction is compressed with the unknown method {method}",
            hint="report the source's version",
        )
    try:
        yield from cut_events(source)
    except (OSError, ValueError) as error:  # Arrow's for a damaged stream
        raise _damaged("a compressed transaction") from error


def _payload_head(buffer: bytes, pos: int, end: int) -> tuple[int, int, int]:
    """Size and method of the compressed bytes, and where they begin."""
    size, method = -1, _NONE
    while True:
        field, pos = read_lenenc(buffer, pos)
        if field == _END:
            break
        length, pos = read_lenenc(buffer, pos)
        if field == _SIZE:
            size, _ = read_lenenc(buffer, pos)
        elif field == _METHOD:
            method, _ = read_lenenc(buffer, pos)
        pos += length
        if pos >= end:
            raise _damaged("a compressed transaction")
    if size != end - pos:
        raise _damaged("a compressed transaction")
    return size, method, pos


def cut_events(source: pa.NativeFile) -> Iterator[Stretch]:
    """The events of a stream of uncompressed bytes."""
    buffer, pos = b"", 0
    ended = False
    while True:
        begins: list[int] = []
        ends: list[int] = []
        while len(buffer) - pos >= HEADER_BYTES:
            stop = pos + int.from_bytes(buffer[pos + 9 : pos + 13], "little")
            if stop < pos + HEADER_BYTES:
                raise _damaged("an event of a compressed transaction")
            if stop > len(buffer):
                break
            begins.append(pos)
            ends.append(stop)
            pos = stop
        if begins:
            yield Stretch(buffer, begins, ends)
        if ended:
            break
        parts = [buffer[pos:]]
        missing = HEADER_BYTES
        if len(parts[0]) >= HEADER_BYTES:
            missing = int.from_bytes(parts[0][9:13], "little") - len(parts[0])
        # An event's size is not believed before its bytes are there: no memory is set aside for it.
        while missing > 0 and not ended:
            piece = source.read(_PIECE_BYTES)
            ended = not piece
            parts.append(piece)
            missing -= len(piece)
        buffer, pos = b"".join(parts), 0
    if pos != len(buffer):
        raise _damaged("a compressed transaction")


def uncompressed(buffer: bytes, start: int, end: int) -> bytes:
    """What MariaDB compressed into the bytes from `start` to `end`. Raises BinlogError."""
    if start >= end or not buffer[start] & 0x80:
        raise _damaged("a compressed event")
    try:
        return inflate(buffer[start:end])
    except ValueDecodeError as error:
        raise _damaged("a compressed event") from error


def uncompressed_query(body: bytes) -> bytes:
    """A QUERY_COMPRESSED event behind its header, as the QUERY event it stands for."""
    text = 13 + int.from_bytes(body[11:13], "little") + body[8] + 1
    return body[:text] + uncompressed(body, text, len(body))


def _damaged(what: str) -> BinlogError:
    return BinlogError(f"{what} can't be read", hint="the source's binary log may be damaged")
