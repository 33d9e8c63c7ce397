"""ENUM and SET: numbers of a row image to the members' text."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.errors import ValueDecodeError
from cdc.values.arrays import Bools, Bytes, offsets_and_data, without


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
    numbers = _numbers(cells, valid)
    if len(numbers) and int(numbers.max()) >> len(members):
        raise ValueDecodeError(
            f"SET column {name} holds a bit beyond its {len(members)} members.",
            hint="set binlog_row_metadata=FULL at the source, then copy the table again",
        )
    parts = [
        texts.take(pa.array(numbers >> np.uint64(shift) & np.uint64(0xFF)))
        for shift, texts in zip(range(0, 64, 8), _choices_of_eight(members), strict=False)
    ]
    joined = pc.binary_join_element_wise(*parts, "")
    some = numbers != 0
    last_commas = offsets_and_data(joined)[0][1:][some] - 1
    return without(joined, last_commas, some, valid)


@lru_cache(maxsize=256)
def _choices_of_eight(members: tuple[str, ...]) -> tuple[pa.Array, ...]:
    """For every eight members the text of each choice of them, by its bits, with a comma behind each."""
    return tuple(
        pa.array(
            [
                "".join(f"{member}," for bit, member in enumerate(eight) if choice >> bit & 1)
                for choice in range(1 << len(eight))
            ],
            pa.string(),
        )
        for eight in (members[at : at + 8] for at in range(0, len(members), 8))
    )
