"""Row images cut into columns, a column of all images at a time.

Where a value begins depends on the ones before it in its image, but not on other images: so the first values of all
images are found at once, then the second ones, and so on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.source.row_layout import Cells, RowLayout
from cdc.values.arrays import Bools, Bytes, Ints
from cdc.values.raw_bytes import RawBytes


@dataclass(frozen=True, slots=True)
class FixedCut:
    """The raw values of a column of fixed width: `cells` is (images, width), with anything under a NULL."""

    column: int
    cells: Bytes
    valid: Bools | None


@dataclass(frozen=True, slots=True)
class PrefixedCut:
    """The raw values of a column of varying length, as binary."""

    column: int
    cells: pa.Array


class RowImages:
    """The images that begin at `starts` in `raw`, which were walked over: every value lies where it should."""

    def __init__(self, layout: RowLayout, raw: RawBytes, starts: Ints) -> None:
        self._layout = layout
        self._raw = raw
        self._starts = starts
        bitmap = raw.matrix(starts, layout.null_bytes)
        self._nulls: Bools | None = None
        if (bitmap & np.frombuffer(layout.columns_bitmap, np.uint8)).any():
            self._nulls = np.unpackbits(bitmap, axis=1, bitorder="little").astype(np.bool_)

    def cut(self, wanted: Collection[int]) -> Iterator[FixedCut | PrefixedCut]:
        """The columns with these numbers, in the order of the images."""
        missing = set(wanted)
        at = self._starts + self._layout.null_bytes
        for part in self._layout.parts:
            if not missing:
                return
            if isinstance(part, Cells):
                valid = self._valid(part.column)
                at, sizes = self._sizes(part, at, valid)
                if part.column in missing:
                    yield PrefixedCut(part.column, self._raw.binary(at, sizes, valid))
                at = at + sizes
                missing.discard(part.column)
            elif self._nulls is None or not self._nulls[:, part.columns].any():
                matrix = self._raw.matrix(at, part.width) if missing.intersection(part.columns) else None
                for i, offset, width in zip(part.columns, part.offsets, part.widths, strict=True):
                    if matrix is not None and i in missing:
                        yield FixedCut(i, matrix[:, offset : offset + width], None)
                at = at + part.width
                missing.difference_update(part.columns)
            else:
                for i, width in zip(part.columns, part.widths, strict=True):
                    valid = self._valid(i)
                    if i in missing:
                        yield FixedCut(i, self._raw.matrix(at, width), valid)
                    at = at + (width if valid is None else width * valid)
                missing.difference_update(part.columns)

    def _valid(self, column: int) -> Bools | None:
        """Which images have a value there; None where all have."""
        if self._nulls is None:
            return None
        nulls = self._nulls[:, column]
        return ~nulls if nulls.any() else None

    def _sizes(self, part: Cells, at: Ints, valid: Bools | None) -> tuple[Ints, Ints]:
        """Where the values begin behind their lengths, and these lengths."""
        raw = self._raw
        if part.prefix == 1:
            sizes = raw.bytes[at].astype(np.int64)
        elif part.prefix == 2:
            sizes = raw.twos[at].astype(np.int64)
        else:
            sizes = raw.fours[at].astype(np.int64)
            if part.prefix == 3:
                sizes &= 0xFFFFFF
        if valid is None:
            return at + part.prefix, sizes
        return at + part.prefix * valid, sizes * valid

    def pairs_differ(self, columns: Collection[int]) -> Bools:
        """For each two images, the first and the second, the third and the fourth: whether one of `columns`, which hold
        no NULL, differs in its bytes."""
        differ = np.zeros(len(self._starts) // 2, np.bool_)
        for cut in self.cut(columns):
            if isinstance(cut, FixedCut):
                differ |= (cut.cells[::2] != cut.cells[1::2]).any(axis=1)
            else:
                count = len(cut.cells)
                before, after = (cut.cells.take(pa.array(np.arange(first, count, 2))) for first in (0, 1))
                differ |= pc.not_equal(before, after).to_numpy(zero_copy_only=False)
        return differ
