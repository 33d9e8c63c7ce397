"""Rows of the text protocol cut into columns, a column of all rows at a time.

A row is a packet of values, each behind its length, 0xFB for NULL (MySQL protocol documentation, "Text
Resultset Row" and "Length-Encoded Integer"). Where a value begins depends on the one before it in its row, but
not on other rows: so the first values of all rows are found at once, then the second ones, and so on.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cdc.errors import SnapshotError, ValueDecodeError
from cdc.values.arrays import Bytes, Ints
from cdc.values.raw_bytes import RawBytes

HEADER = 4
"""Bytes of a packet before its body."""

_NULL = 251


def cut(buffer: bytes, starts: list[int], end: int, width: int) -> list[pa.Array]:
    """The `width` columns of the packets that begin at `starts` and follow each other up to `end`, as binary.

    `PADDING` bytes come after `end`. Raises SnapshotError for a row that does not end where its packet does,
    ValueDecodeError for more than 2 GiB.
    """
    if len(buffer) > np.iinfo(np.int32).max:
        raise ValueDecodeError(
            "A piece of a copy exceeds 2 GiB.", hint="lower COPY_BATCH_ROWS or BATCH_BYTES"
        )
    raw = RawBytes(buffer)
    begins = np.array(starts, np.int64)
    limits = np.append(begins[1:], end)
    at = begins + HEADER
    columns = []
    for _ in range(width):
        if (at >= limits).any():
            raise _misfit()
        marks = raw.bytes[at]
        null = marks == _NULL
        has_null = bool(null.any())
        at += 1
        sizes = marks.astype(np.int64)
        if has_null:
            sizes[null] = 0
        if marks.max(initial=0) > _NULL:
            at, sizes = _long_values(raw, marks, at, sizes)
        if (sizes > limits - at).any():
            raise _misfit()
        columns.append(raw.binary(at, sizes, ~null if has_null else None))
        at = at + sizes
    if (at != limits).any():
        raise _misfit()
    return columns


def _long_values(raw: RawBytes, marks: Bytes, at: Ints, sizes: Ints) -> tuple[Ints, Ints]:
    """Places and sizes where some values have a length of two, three or eight bytes."""
    at, sizes = at.copy(), sizes.copy()
    for mark, bytes_, words, mask in (
        (252, 2, raw.fours, 0xFFFF),
        (253, 3, raw.fours, 0xFFFFFF),
        (254, 8, raw.eights, 0x7FFF_FFFF_FFFF_FFFF),
    ):
        rows = np.flatnonzero(marks == mark)
        sizes[rows] = (words[at[rows]] & words.dtype.type(mask)).astype(np.int64)
        at[rows] += bytes_
    if (marks == 255).any():
        raise _misfit()
    return at, sizes


def _misfit() -> SnapshotError:
    return SnapshotError("a row's values don't end where its packet ends", hint="report the source's version")
