"""MariaDB's COMPRESSED columns (types 140 and 141): one header byte, then plain or deflated bytes."""

from __future__ import annotations

import zlib

from cdc.errors import ValueDecodeError


def inflate(cell: bytes) -> bytes:
    """The value inside. Header 0: plain bytes follow; 0x8n: zlib, n & 7 bytes of length (big endian) first.

    n & 8 marks deflate without the zlib header (`column_compression_zlib_wrap` off, the default). Layout:
    MariaDB's sql/field_comp.cc.
    """
    if not cell:
        return cell
    header = cell[0]
    if header == 0:
        return cell[1:]
    start = 1 + (header & 7)
    if header & 0xF0 != 0x80:
        raise ValueDecodeError(f"A compressed value has the unknown method {header >> 4}.")
    try:
        value = zlib.decompress(cell[start:], -15 if header & 8 else 15)
    except zlib.error:
        raise ValueDecodeError("A compressed value can't be inflated.") from None
    if len(value) != int.from_bytes(cell[1:start], "big"):
        raise ValueDecodeError("A compressed value has another length than its header says.")
    return value
