"""Rows of the binary log into column buffers, by a decoder generated for each table's layout.

A row image is a bitmap of NULLs and then the values, one after another. Values of fixed width that stand
side by side form a run and are taken as one slice; values with a length prefix are taken one by one. No
value is converted here: that happens a column at a time when a batch closes (`RowBuffer.to_arrow`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from cdc.errors import BinlogError, SchemaMismatchError
from cdc.schema import Table
from cdc.source.table_map import TableMap
from cdc.types import row_schema
from cdc.values.binlog import Fixed, fixed_column, prefixed_column, storage
from cdc.values.zero_dates import lost_dates

DELETE, INSERT, UPDATE = 0, 1, 2
"""What a buffered row does: remove its key, put a row whose key is new, put a row whose key exists."""


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
    """How a row image of a table lies in memory, and which columns tell its rows apart (none: all do)."""

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

    @property
    def padding_bitmap(self) -> bytes:
        """A bitmap with all other bits set: the server leaves those beyond the last column as ones."""
        return bytes(0xFF ^ byte for byte in self.columns_bitmap)

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


class RowBuffer:
    """Rows of one table in the order of the binlog, as columns of raw bytes.

    `insert`, `update` and `delete` take (buffer, start, end) of an event's row images, append what they
    hold and return how many rows that was; they raise BinlogError where the images don't end at `end`.
    """

    __slots__ = (
        "cells",
        "delete",
        "insert",
        "layout",
        "lost_dates",
        "nulls",
        "ops",
        "row",
        "runs",
        "table_map",
        "update",
    )

    def __init__(self, table_map: TableMap, layout: RowLayout) -> None:
        self.table_map = table_map
        self.layout = layout
        self.ops = bytearray()
        self.lost_dates = 0
        """Dates that the calendar lacks and that became NULL when `to_arrow` was called last."""
        self.nulls: list[bytes] = []
        self.runs: list[list[bytes]] = [[] for part in layout.parts if isinstance(part, Run)]
        self.cells: list[list[bytes | None]] = [[] for part in layout.parts if isinstance(part, Cells)]
        self.insert: Callable[[bytes, int, int], int]
        self.update: Callable[[bytes, int, int], int]
        self.delete: Callable[[bytes, int, int], int]
        self.row: Callable[[bytes, int], int]
        """Appends the image at a place and returns where it ends; the operation is the caller's to add."""
        self.insert, self.update, self.delete, self.row = decoder(layout)(self)

    def __len__(self) -> int:
        return len(self.ops)

    def truncate(self, length: int) -> None:
        """Forget all rows behind the first `length`: a transaction or savepoint was rolled back."""
        del self.ops[length:], self.nulls[length:]
        for run in self.runs:
            del run[length:]
        for cells in self.cells:
            del cells[length:]

    def operations(self) -> np.ndarray:
        """What each row does: DELETE, INSERT or UPDATE, as uint8."""
        return np.frombuffer(bytes(self.ops), np.uint8)

    def to_arrow(self, table: Table) -> pa.Table:
        """All rows as an Arrow table of `row_schema(table)`.

        Raises SchemaMismatchError where the rows lack one of the columns, ValueDecodeError where a value
        can't be converted.
        """
        self.lost_dates = 0
        count = len(self.ops)
        bitmap = np.frombuffer(b"".join(self.nulls), np.uint8).reshape(count, self.layout.null_bytes)
        any_null = (bitmap & np.frombuffer(self.layout.columns_bitmap, np.uint8)).any()
        null_columns = (
            np.unpackbits(bitmap, axis=1, bitorder="little").astype(bool, copy=False) if any_null else None
        )
        targets = {column.name.casefold(): column for column in table.columns}
        arrays: dict[str, pa.Array] = {}
        runs, cells = iter(self.runs), iter(self.cells)
        for part in self.layout.parts:
            if isinstance(part, Cells):
                values = next(cells)
                source = self.table_map.columns[part.column]
                target = targets.get(source.name.casefold())
                if target is not None:
                    arrays[target.name] = prefixed_column(target, source, values)
                continue
            matrix = np.frombuffer(b"".join(next(runs)), np.uint8).reshape(count, part.width)
            for i, offset, width in zip(part.columns, part.offsets, part.widths, strict=True):
                source = self.table_map.columns[i]
                target = targets.get(source.name.casefold())
                if target is None:
                    continue
                valid, null_count = None, 0
                if null_columns is not None:
                    nulls = null_columns[:, i]
                    null_count = int(nulls.sum())
                    valid = ~nulls if null_count else None
                array = fixed_column(target, source, matrix[:, offset : offset + width], valid)
                self.lost_dates += lost_dates(target, array, null_count)
                arrays[target.name] = array
        missing = [column.name for column in table.columns if column.name not in arrays]
        if missing:
            raise SchemaMismatchError(
                f"rows of {table.name} in the binlog have no column {missing[0]!r}",
                hint=f"copy the table again: POST /sync/table/{table.name}",
                table=table.name,
            )
        return pa.Table.from_arrays([arrays[c.name] for c in table.columns], schema=row_schema(table))


def _walk(part: Run | Cells, pos: str, capture: dict[int, str]) -> list[str]:
    """Source lines that move `pos` over one part without NULLs, keeping the columns in `capture`."""
    if isinstance(part, Run):
        lines = [
            f"{capture[i]} = buf[{pos} + {offset}:{pos} + {offset + width}]"
            for i, offset, width in zip(part.columns, part.offsets, part.widths, strict=True)
            if i in capture
        ]
        return [*lines, f"{pos} += {part.width}"]
    lines = [f"stop = {pos} + {part.prefix} + {_prefix(part.prefix, pos)}"]
    if part.column in capture:
        lines.append(f"{capture[part.column]} = buf[{pos} + {part.prefix}:stop]")
    return [*lines, f"{pos} = stop"]


def _walk_nulls(part: Run | Cells, pos: str, capture: dict[int, str]) -> list[str]:
    """As `_walk`, where `bits` says which columns are NULL. A key has no NULLs."""
    if isinstance(part, Cells):
        return [f"if not bits & {1 << part.column}:", *_indent(_walk(part, pos, capture))]
    lines = []
    for i, width in zip(part.columns, part.widths, strict=True):
        lines.append(f"if not bits & {1 << i}:")
        if i in capture:
            lines.append(f"    {capture[i]} = buf[{pos}:{pos} + {width}]")
        lines.append(f"    {pos} += {width}")
    return lines


def _prefix(width: int, pos: str) -> str:
    """An expression for the length that stands at `pos` in `width` bytes."""
    if width == 1:
        return f"buf[{pos}]"
    if width == 2:
        return f"(buf[{pos}] | buf[{pos} + 1] << 8)"
    return f"int.from_bytes(buf[{pos}:{pos} + {width}], 'little')"


def _indent(lines: list[str], by: int = 1) -> list[str]:
    return ["    " * by + line for line in lines]


def _take(layout: RowLayout) -> tuple[list[str], list[str]]:
    """Source lines that append one row at `pos`: without NULLs, and where `bits` has some."""
    plain: list[str] = []
    mixed: list[str] = []
    run = cell = 0
    for part in layout.parts:
        if isinstance(part, Run):
            plain += [f"run{run}(buf[pos:pos + {part.width}])", f"pos += {part.width}"]
            mask = sum(1 << i for i in part.columns)
            mixed += [f"if not bits & {mask}:", *_indent(plain[-2:]), "else:", "    pieces = []"]
            for i, width in zip(part.columns, part.widths, strict=True):
                mixed += [
                    f"    if bits & {1 << i}:",
                    f"        pieces.append({bytes(width)!r})",
                    "    else:",
                    f"        pieces.append(buf[pos:pos + {width}])",
                    f"        pos += {width}",
                ]
            mixed.append(f"    run{run}(b''.join(pieces))")
            run += 1
        else:
            lines = [
                f"start = pos + {part.prefix}",
                f"pos = start + {_prefix(part.prefix, 'pos')}",
                f"cell{cell}(buf[start:pos])",
            ]
            plain += lines
            mixed += [
                f"if bits & {1 << part.column}:",
                f"    cell{cell}(None)",
                "else:",
                *_indent(lines),
            ]
            cell += 1
    return plain, mixed


def _source(layout: RowLayout) -> str:
    """The decoder's source: `bind(buffer)` returns its insert, update, delete and row."""
    nb = layout.null_bytes
    no_nulls = f"image == {layout.padding_bitmap!r} or image == {bytes(nb)!r}"
    plain, mixed = _take(layout)
    runs = sum(isinstance(part, Run) for part in layout.parts)
    lines = ["def bind(b):", "    ops = b.ops.append", "    nulls = b.nulls.append"]
    lines += [f"    run{i} = b.runs[{i}].append" for i in range(runs)]
    lines += [f"    cell{i} = b.cells[{i}].append" for i in range(len(layout.parts) - runs)]
    row = [
        f"image = buf[pos:pos + {nb}]",
        "nulls(image)",
        f"pos += {nb}",
        f"if {no_nulls}:",
        *_indent(plain),
        "else:",
        "    bits = int.from_bytes(image, 'little')",
        *_indent(mixed),
    ]
    lines += ["    def row(buf, pos):", *_indent(row, 2), "        return pos"]
    for name, op in (("insert", INSERT), ("delete", DELETE)):
        lines += [
            f"    def {name}(buf, pos, end):",
            "        count = 0",
            "        while pos < end:",
            *_indent(row, 3),
            f"            ops({op})",
            "            count += 1",
            "        if pos != end:",
            "            misfit()",
            "        return count",
        ]
    lines += ["    def update(buf, pos, end):", "        count = 0", "        while pos < end:"]
    if layout.key:
        last = next(i for i, part in enumerate(layout.parts) if _holds(part, layout.key[-1]))
        before = {i: f"old{i}" for i in layout.key}
        after = {i: f"new{i}" for i in layout.key}
        walk_key = layout.parts[: last + 1]
        body = [
            "before = pos",
            f"image = buf[pos:pos + {nb}]",
            f"pos += {nb}",
            f"if {no_nulls}:",
            *_indent([line for part in layout.parts for line in _walk(part, "pos", before)]),
            "else:",
            "    bits = int.from_bytes(image, 'little')",
            *_indent([line for part in layout.parts for line in _walk_nulls(part, "pos", before)]),
            f"image = buf[pos:pos + {nb}]",
            f"at = pos + {nb}",
            f"if {no_nulls}:",
            *_indent([line for part in walk_key for line in _walk(part, "at", after)]),
            "else:",
            "    bits = int.from_bytes(image, 'little')",
            *_indent([line for part in walk_key for line in _walk_nulls(part, "at", after)]),
            "if " + " and ".join(f"old{i} == new{i}" for i in layout.key) + ":",
            f"    ops({UPDATE})",
            "else:",  # the key moves: the old one goes, the new one is new
            "    row(buf, before)",
            f"    ops({DELETE})",
            f"    ops({INSERT})",
            *row,
        ]
    else:
        body = ["pos = row(buf, pos)", f"ops({DELETE})", f"ops({INSERT})", "pos = row(buf, pos)"]
    lines += _indent([*body, "count += 1"], 3)
    lines += ["        if pos != end:", "            misfit()", "        return count"]
    lines.append("    return insert, update, delete, row")
    return "\n".join(lines)


def _holds(part: Run | Cells, column: int) -> bool:
    return column in part.columns if isinstance(part, Run) else column == part.column


def _misfit() -> None:
    raise BinlogError(
        "the row images of an event don't end where the event ends",
        hint="the event is damaged or of a kind that is not known; see the position in the status",
    )


@lru_cache(maxsize=4096)
def decoder(layout: RowLayout) -> Callable[[RowBuffer], tuple[Any, Any, Any, Any]]:
    """The generated `bind` function for a layout."""
    namespace: dict[str, Any] = {"misfit": _misfit}
    exec(compile(_source(layout), "<row decoder>", "exec"), namespace)
    bind: Callable[[RowBuffer], tuple[Any, Any, Any, Any]] = namespace["bind"]
    return bind
