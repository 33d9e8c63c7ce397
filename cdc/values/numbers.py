"""Integers, floats and BIT of row images, by their bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.values.arrays import Bools, Bytes, primitive


def integer_from_binary(cells: Bytes, kind: pa.DataType, valid: Bools | None) -> pa.Array:
    """Little-endian integers of 1, 2, 3, 4 or 8 bytes; three bytes (MEDIUMINT) widen to four."""
    width = cells.shape[1]
    sign = "i" if pa.types.is_signed_integer(kind) else "u"
    if width != 3:
        return primitive(kind, cells.view(f"<{sign}{width}").reshape(-1), valid)
    wide = np.zeros((len(cells), 4), np.uint8)
    wide[:, 1:] = cells
    return primitive(kind, wide.view(f"<{sign}4").reshape(-1) >> 8, valid)


def flags(numbers: pa.Array) -> pa.Array:
    """Integers as booleans: all but 0 are true, as in a condition of MySQL."""
    return pc.not_equal(numbers, pa.scalar(0, numbers.type))


def float_from_binary(cells: Bytes, kind: pa.DataType, valid: Bools | None) -> pa.Array:
    """Little-endian IEEE floats of 4 or 8 bytes."""
    return primitive(kind, cells.view(f"<f{cells.shape[1]}").reshape(-1), valid)


def bits_from_binary(cells: Bytes, kind: pa.DataType, valid: Bools | None) -> pa.Array:
    """BIT: big-endian bytes, right-aligned in the smallest unsigned integer."""
    width = kind.bit_width // 8
    wide = np.zeros((len(cells), width), np.uint8)
    wide[:, : cells.shape[1]] = cells[:, ::-1]
    return primitive(kind, wide.view(f"<u{width}").reshape(-1), valid)
