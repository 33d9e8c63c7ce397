"""How the row images of a table lie in a rows event.

An image is a bitmap of NULLs and then the values, one after another (MySQL source documentation, "Rows_event").
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc.source.table_map import TableMap
from cdc.values.binlog import Fixed, storage


@dataclass(frozen=True, slots=True)
class Run:
    """Columns of fixed width that stand side by side; `offsets` are theirs within the run."""

    columns: tuple[int, ...]
    offsets: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def width(self) -> int:
        """Bytes of the whole run."""
        return self.offsets[-1] + self.widths[-1]


@dataclass(frozen=True, slots=True)
class Cells:
    """One column of varying length behind a little-endian length of `prefix` bytes."""

    column: int
    prefix: int


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The parts of a row image in their order, and which columns tell its rows apart (none: all do)."""

    parts: tuple[Run | Cells, ...]
    column_count: int
    key: tuple[int, ...]

    @property
    def null_bytes(self) -> int:
        """Length of the NULL bitmap."""
        return (self.column_count + 7) // 8

    @property
    def columns_bitmap(self) -> bytes:
        """A bitmap with the bit of every column set."""
        return ((1 << self.column_count) - 1).to_bytes(self.null_bytes, "little")

    @classmethod
    def of(cls, table_map: TableMap, primary_key: tuple[str, ...]) -> RowLayout:
        """The layout of `table_map`'s rows. `primary_key` names the key's columns."""
        parts: list[Run | Cells] = []
        open_run: list[tuple[int, int, int]] = []

        def close_run() -> None:
            if open_run:
                columns, offsets, widths = zip(*open_run, strict=True)
                parts.append(Run(columns, offsets, widths))
                open_run.clear()

        for i, column in enumerate(table_map.columns):
            place = storage(column)
            if isinstance(place, Fixed):
                offset = open_run[-1][1] + open_run[-1][2] if open_run else 0
                open_run.append((i, offset, place.width))
            else:
                close_run()
                parts.append(Cells(i, place.length_bytes))
        close_run()
        places = {column.name.casefold(): i for i, column in enumerate(table_map.columns)}
        key = tuple(sorted(places[name.casefold()] for name in primary_key))
        return cls(tuple(parts), len(table_map.columns), key)
