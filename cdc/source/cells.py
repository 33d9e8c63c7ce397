"""Rows of the text protocol cut into columns, a column of all rows at a time.

A row is a packet of values, each behind its length, 0xFB for NULL (MySQL protocol documentation, "Text
Resultset Row" and "Length-Encoded Integer"). Where a value begins depends on the one before it in its row, but
not on other rows: so the first values of all rows are found at once, then the second ones, and so on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc.errors import SnapshotError, ValueDecodeError

HEADER = 4
"""Bytes of a packet before its body."""
PADDING = 16
"""Bytes that must follow the last row: words are read from any byte on."""

_NULL = 251
_INLINE = 12
"""The longest value that stands in its view itself (Arrow columnar format, "Variable-size Binary View Layout")."""
_VIEW = np.dtype([("size", "<i4"), ("head", "<u4"), ("tail", "<u8")])
_HEAD_MASK = np.array([(1 << 8 * min(size, 4)) - 1 for size in range(_INLINE + 1)], np.uint32)
_TAIL_MASK = np.array([(1 << 8 * max(size - 4, 0)) - 1 for size in range(_INLINE + 1)], np.uint64)

Places = npt.NDArray[np.int64]
Words = npt.NDArray[Any]


def cut(buffer: bytes, starts: list[int], end: int, width: int) -> list[pa.Array]:
    """The `width` columns of the packets that begin at `starts` and follow each other up to `end`, as binary.

    `PADDING` bytes come after `end`. Raises SnapshotError for a row that does not end where its packet does,
    ValueDecodeError for more than 2 GiB.
    """
    if len(buffer) > np.iinfo(np.int32).max:
        raise ValueDecodeError(
            "A piece of a copy exceeds 2 GiB.", hint="lower COPY_BATCH_ROWS or BATCH_BYTES"
        )
    data = np.frombuffer(buffer, np.uint8)
    fours, eights = _words(data, "<u4"), _words(data, "<u8")
    held = pa.py_buffer(buffer)
    begins = np.array(starts, np.int64)
    limits = np.append(begins[1:], end)
    at = begins + HEADER
    columns = []
    for _ in range(width):
        if (at >= limits).any():
            raise _misfit()
        marks = data[at]
        null = marks == _NULL
        has_null = bool(null.any())
        at += 1
        sizes = marks.astype(np.int64)
        if has_null:
            sizes[null] = 0
        if marks.max(initial=0) > _NULL:
            at, sizes = _long_values(fours, eights, marks, at, sizes)
        if (sizes > limits - at).any():
            raise _misfit()
        columns.append(_column(held, fours, eights, at, sizes, ~null if has_null else None))
        at = at + sizes
    if (at != limits).any():
        raise _misfit()
    return columns


def _words(data: npt.NDArray[np.uint8], kind: str) -> Words:
    """The word that begins at each byte."""
    return np.ndarray((max(0, len(data) - 11),), kind, data, strides=(1,))


def _long_values(
    fours: Words, eights: Words, marks: npt.NDArray[np.uint8], at: Places, sizes: Places
) -> tuple[Places, Places]:
    """Places and sizes where some values have a length of two, three or eight bytes."""
    at, sizes = at.copy(), sizes.copy()
    for mark, bytes_, words, mask in (
        (252, 2, fours, 0xFFFF),
        (253, 3, fours, 0xFFFFFF),
        (254, 8, eights, 0x7FFF_FFFF_FFFF_FFFF),
    ):
        rows = np.flatnonzero(marks == mark)
        sizes[rows] = (words[at[rows]] & words.dtype.type(mask)).astype(np.int64)
        at[rows] += bytes_
    if (marks == 255).any():
        raise _misfit()
    return at, sizes


def _column(
    held: pa.Buffer,
    fours: Words,
    eights: Words,
    at: Places,
    sizes: Places,
    valid: npt.NDArray[np.bool_] | None,
) -> pa.Array:
    """Values at those places as a binary array: views of the buffer, which Arrow then copies side by side."""
    views = np.empty(len(at), _VIEW)
    views["size"] = sizes
    long = sizes > _INLINE
    if long.all():
        views["head"] = fours[at]
        views["tail"] = at << 32
    else:
        short = np.minimum(sizes, _INLINE)
        head = fours[at]
        tail = eights[at + 4]
        head &= np.where(long, np.uint32(0xFFFF_FFFF), _HEAD_MASK[short])
        tail &= _TAIL_MASK[short]
        if long.any():
            tail = np.where(long, (at << 32).astype(np.uint64), tail)
        views["head"] = head
        views["tail"] = tail
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [bitmap, pa.py_buffer(views), held]
    return pa.Array.from_buffers(pa.binary_view(), len(at), buffers).cast(pa.binary())


def _misfit() -> SnapshotError:
    return SnapshotError("a row's values don't end where its packet ends", hint="report the source's version")
