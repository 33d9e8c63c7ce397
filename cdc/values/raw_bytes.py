"""Values that lie anywhere in a buffer of raw bytes, gathered into arrays a whole column at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc.values.arrays import Bools, Bytes, Ints, bitmap

PADDING = 32
"""Bytes that must follow the last value: words, and the bytes under a NULL, are read from any place on."""

_INLINE = 12
"""The longest value that stands in its view itself (Arrow columnar format, "Variable-size Binary View Layout")."""
_VIEW = np.dtype([("size", "<i4"), ("head", "<u4"), ("tail", "<u8")])
_HEAD_MASK = np.array([(1 << 8 * min(size, 4)) - 1 for size in range(_INLINE + 1)], np.uint32)
_TAIL_MASK = np.array([(1 << 8 * max(size - 4, 0)) - 1 for size in range(_INLINE + 1)], np.uint64)


class RawBytes:
    """`content`, whose last `PADDING` bytes belong to no value. It is less than 2 GiB: Arrow's views reach no further.

    Places are indexes into it, and are not checked.
    """

    def __init__(self, content: bytes) -> None:
        self._held = pa.py_buffer(content)
        self.bytes = np.frombuffer(content, np.uint8)
        self.twos, self.fours, self.eights = (self._words(kind) for kind in ("<u2", "<u4", "<u8"))
        """The little-endian word that begins at each byte."""

    def _words(self, kind: str) -> npt.NDArray[Any]:
        size = np.dtype(kind).itemsize
        return np.ndarray((max(0, len(self.bytes) - size + 1),), kind, self.bytes, strides=(1,))

    def matrix(self, at: Ints, width: int) -> Bytes:
        """The `width` bytes at each place, as (places, width)."""
        if width == 0:
            return np.zeros((len(at), 0), np.uint8)
        windows = np.ndarray((max(0, len(self.bytes) - width + 1),), f"V{width}", self.bytes, strides=(1,))
        return windows[at].view(np.uint8).reshape(len(at), width)

    def binary(self, at: Ints, sizes: Ints, valid: Bools | None) -> pa.Array:
        """The values of `sizes` bytes at those places as a binary array; a NULL must have size 0."""
        views = np.empty(len(at), _VIEW)
        views["size"] = sizes
        long = sizes > _INLINE
        if long.all():
            views["head"] = self.fours[at]
            views["tail"] = at << 32
        else:
            short = np.minimum(sizes, _INLINE)
            head = self.fours[at]
            tail = self.eights[at + 4]
            head &= np.where(long, np.uint32(0xFFFF_FFFF), _HEAD_MASK[short])
            tail &= _TAIL_MASK[short]
            if long.any():
                tail = np.where(long, (at << 32).astype(np.uint64), tail)
            views["head"] = head
            views["tail"] = tail
        buffers = [bitmap(valid), pa.py_buffer(views), self._held]
        # The cast copies the values side by side.
        return pa.Array.from_buffers(pa.binary_view(), len(at), buffers).cast(pa.binary())
