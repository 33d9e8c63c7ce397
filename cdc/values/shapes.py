"""Values that are bytes with a layout: BINARY, geometry, VECTOR; the same for copy and stream."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cdc.errors import ValueDecodeError
from cdc.schema import Column
from cdc.values.arrays import RawCells, binary, marked_bytes, offsets_and_data, padded, validity, without

SRID_BYTES = 4
"""MySQL puts the spatial reference before the WKB (manual, "Internal Geometry Storage Format")."""


def blob_array(target: Column, cells: RawCells) -> pa.Array:
    """Bytes as they are; BINARY(n) gets back the trailing zeros that the binary log cuts."""
    if target.data_type != "binary":
        return binary(cells)
    if target.length is None:
        raise ValueDecodeError(f"The length of BINARY column {target.name} is unknown.")
    matrix, valid = padded(cells, target.length)
    return marked_bytes(pa.binary(), matrix, None, valid)


def wkb_array(cells: RawCells) -> pa.Array:
    """Geometry as WKB, without MySQL's four bytes of SRID."""
    array = binary(cells)
    offsets, _ = offsets_and_data(array)
    valid = validity(array)
    present = np.ones(len(array), np.bool_) if valid is None else valid
    starts = offsets[:-1][present]
    if (offsets[1:][present] - starts < SRID_BYTES).any():
        raise ValueDecodeError("A geometry is shorter than its spatial reference.")
    srids = (starts[:, None] + np.arange(SRID_BYTES)).reshape(-1)
    return without(array, srids, SRID_BYTES * present, valid)


def vector_array(name: str, cells: RawCells) -> pa.Array:
    """VECTOR: little-endian 32-bit floats, as lists."""
    array = binary(cells)
    offsets, data = offsets_and_data(array)
    if (offsets & 3).any():
        raise ValueDecodeError(f"VECTOR column {name} holds a value that is no whole number of floats.")
    floats = pa.Array.from_buffers(pa.float32(), len(data) // 4, [None, pa.py_buffer(data)])
    buffers = [array.buffers()[0], pa.py_buffer(offsets // np.int32(4))]
    return pa.Array.from_buffers(
        pa.list_(pa.float32()), len(array), buffers, array.null_count, children=[floats]
    )
