"""ENUM and SET: numbers of a row image to the members' text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from cdc.errors import ValueDecodeError
from cdc.values.arrays import Bools, Bytes


def _numbers(cells: Bytes, valid: Bools | None) -> np.ndarray:
    """Little-endian numbers of 1 to 8 bytes; zero under a NULL."""
    wide = np.zeros((len(cells), 8), np.uint8)
    wide[:, : cells.shape[1]] = cells
    numbers = wide.view("<u8").reshape(-1)
    if valid is not None:
        numbers[~valid] = 0
    return numbers


def enum_array(name: str, members: tuple[str, ...], cells: Bytes, valid: Bools | None) -> pa.Array:
    """Member texts; index 0 is '', what MySQL keeps for a value that was no member.

    Raises ValueDecodeError for an index that has no member.
    """
    indexes = _numbers(cells, valid)
    if len(indexes) and int(indexes.max()) > len(members):
        raise ValueDecodeError(
            f"ENUM column {name} holds an index beyond its {len(members)} members.",
            hint="set binlog_row_metadata=FULL at the source, then copy the table again",
        )
    texts = pa.array(["", *members], pa.string())
    return texts.take(pa.array(indexes, mask=None if valid is None else ~valid))


def set_array(name: str, members: tuple[str, ...], cells: Bytes, valid: Bools | None) -> pa.Array:
    """Members joined by commas in the order of definition; no member is ''. Errors as in `enum_array`."""
    distinct, rows = np.unique(_numbers(cells, valid), return_inverse=True)
    if len(distinct) and int(distinct[-1]) >> len(members):
        raise ValueDecodeError(
            f"SET column {name} holds a bit beyond its {len(members)} members.",
            hint="set binlog_row_metadata=FULL at the source, then copy the table again",
        )
    texts = pa.array(
        [
            ",".join(member for bit, member in enumerate(members) if number >> bit & 1)
            for number in distinct.tolist()
        ],
        pa.string(),
    )
    return texts.take(pa.array(rows.reshape(-1), mask=None if valid is None else ~valid))
