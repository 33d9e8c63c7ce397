"""Arrow arrays from NumPy memory and from lists of bytes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import compress, repeat
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc.errors import ValueDecodeError

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

Cell = TypeVar("Cell", bound=Hashable)


def primitive(kind: pa.DataType, values: npt.NDArray[Any], valid: Bools | None) -> pa.Array:
    """An array of a fixed-width type over the memory of `values`, no copy; `valid` False is NULL."""
    return pa.Array.from_buffers(kind, len(values), [bitmap(valid), pa.py_buffer(values)])


def bitmap(valid: Bools | None) -> pa.Buffer | None:
    """Arrow's validity bitmap; None (no NULLs) stays None."""
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def both(first: Bools | None, second: Bools | None) -> Bools | None:
    """Valid where both are; None means valid everywhere."""
    if first is None:
        return second
    return first if second is None else first & second


RawCells: TypeAlias = "Sequence[bytes | None] | pa.Array"
"""Raw values of a column: a list, or a binary array that is no slice."""


def binary(cells: RawCells) -> pa.Array:
    """The cells as one binary array. Raises ValueDecodeError when they exceed 2 GiB together."""
    if isinstance(cells, pa.Array):
        return cells
    array = pa.array(cells, pa.binary())
    if isinstance(array, pa.ChunkedArray):
        raise _too_large()
    return array


def listed(cells: RawCells) -> Sequence[bytes | None]:
    """The cells as Python objects."""
    every: Sequence[bytes | None] = cells.to_pylist() if isinstance(cells, pa.Array) else cells
    return every


def offsets_and_data(array: pa.Array) -> tuple[npt.NDArray[np.int32], Bytes]:
    """Offsets (one more than rows) and bytes of a binary or string array that `binary` made."""
    _, offsets, data = array.buffers()
    if offsets is None:
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int32, len(array) + 1)
    if data is None or ends[-1] == 0:
        return ends, np.zeros(0, np.uint8)
    return ends, np.frombuffer(data, np.uint8, int(ends[-1]))


def validity(array: pa.Array) -> Bools | None:
    """Which rows of a fresh (unsliced) array are not NULL; None where all are."""
    if array.null_count == 0:
        return None
    bits = np.frombuffer(array.buffers()[0], np.uint8)
    return np.unpackbits(bits, count=len(array), bitorder="little").astype(np.bool_)


def relabel(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The same buffers under another type of the same layout (binary as string)."""
    return pa.Array.from_buffers(kind, len(array), array.buffers(), array.null_count)


def padded(cells: RawCells, length: int) -> tuple[Bytes, Bools | None]:
    """The cells that are not NULL as (rows, length) bytes, zeros behind the shorter ones; which rows they are.

    Raises ValueDecodeError for a cell that is longer.
    """
    array = binary(cells)
    offsets, data = offsets_and_data(array)
    valid = validity(array)
    sizes = np.diff(offsets)
    missing = length - sizes if valid is None else np.where(valid, length - sizes, 0)
    if (missing < 0).any():
        raise ValueDecodeError(f"A value has more than the {length} bytes of its type.")
    if missing.any():  # in C, one cell after another: faster here than any shuffling of whole arrays
        every: Sequence[Any] = listed(cells)
        present = every if valid is None else compress(every, valid.tolist())
        filled = b"".join(map(bytes.ljust, present, repeat(length), repeat(b"\0")))
        data = np.frombuffer(filled, np.uint8)
    return data.reshape(-1, length), valid


def marked_bytes(kind: pa.DataType, matrix: Bytes, keep: Bools | None, valid: Bools | None) -> pa.Array:
    """A string or binary array: of each row of `matrix` the bytes that `keep` marks (None: all of them).

    `matrix` has the rows that are not NULL. Raises ValueDecodeError when they exceed 2 GiB together.
    """
    rows, width = matrix.shape
    sizes = np.full(rows, width, np.int64) if keep is None else keep.sum(axis=1, dtype=np.int64)
    data = np.ascontiguousarray(matrix) if keep is None else matrix[keep]
    if data.size > np.iinfo(np.int32).max:
        raise _too_large()
    spread = scatter(sizes, valid)
    offsets = np.zeros(len(spread) + 1, np.int32)
    np.cumsum(spread, out=offsets[1:])
    buffers = [bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(spread), buffers)


def without(array: pa.Array, places: Ints, counts: npt.NDArray[Any], valid: Bools | None) -> pa.Array:
    """A string or binary array without the bytes at `places` of its data; `counts` says how many in each row."""
    offsets, data = offsets_and_data(array)
    keep = np.ones(len(data), np.bool_)
    keep[places] = False
    shorter = offsets.copy()
    shorter[1:] -= np.cumsum(counts, dtype=np.int32)
    buffers = [bitmap(valid), pa.py_buffer(shorter), pa.py_buffer(data[keep])]
    return pa.Array.from_buffers(array.type, len(array), buffers)


def _too_large() -> ValueDecodeError:
    return ValueDecodeError(
        "The values of one column in one batch exceed 2 GiB.", hint="lower the size of a batch"
    )


def strings(cells: RawCells) -> pa.Array:
    """UTF-8 cells as a string array, without copying after the check.

    Bytes that are no UTF-8 (MariaDB stores surrogates) become U+FFFD, as `bytes.decode(errors="replace")`
    places them.
    """
    array = binary(cells)
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:
        return by_distinct(listed(array), lambda cell: cell.decode("utf-8", "replace"), pa.string())


def by_distinct(cells: Sequence[Cell | None], convert: Callable[[Cell], Any], kind: pa.DataType) -> pa.Array:
    """`convert` called once for each distinct value; NULL stays NULL."""
    known = {cell: convert(cell) for cell in set(cells) if cell is not None}
    return pa.array([None if cell is None else known[cell] for cell in cells], kind)


def scatter(values: npt.NDArray[Any], valid: Bools | None) -> npt.NDArray[Any]:
    """Values of the rows that are not NULL, spread over all rows; zero under a NULL."""
    if valid is None:
        return values
    spread = np.zeros(len(valid), values.dtype)
    spread[valid] = values
    return spread
