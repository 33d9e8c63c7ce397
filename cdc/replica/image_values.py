"""All values of one table's mixed row images, numbered, so that rows can be put together from several."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from cdc.schema import Table
from cdc.source.mixed_rows import Image, MixedRow, MixedRows
from cdc.source.rows import RowBuffer
from cdc.types import row_schema

FROM_ORIGIN = -1
"""In the place of a number: the value is the one that the copy has."""


class ImageValues:
    """The images of `rows` in Arrow, a column at a time: one buffer's behind another's, then patched JSON.

    A number is good for every column that its image holds. Raises as RowBuffer.to_arrow.
    """

    def __init__(self, table: Table, rows: MixedRows) -> None:
        self._schema = row_schema(table)
        self._arrays: list[list[pa.Array]] = [[] for _ in table.columns]
        self._length = 0
        self._first: dict[int, int] = {}
        self._columns: dict[int, list[int]] = {}
        self._python: dict[tuple[int, int], list[Any]] = {}
        self._texts: dict[int, list[str]] = {}
        places = {column.name.casefold(): i for i, column in enumerate(table.columns)}
        self._places = [places.get(column.name.casefold(), -1) for column in rows.table_map.columns]
        rows.lost_dates = 0
        for buffer in rows.images.values():
            self._add(buffer, *rows.image_table(buffer, table))

    def _add(self, buffer: RowBuffer, found: pa.Table, columns: list[int]) -> None:
        self._first[id(buffer)] = self._length
        self._columns[id(buffer)] = columns
        given = dict(zip(columns, found.columns, strict=True))
        for i, arrays in enumerate(self._arrays):
            arrays.extend(given[i].chunks if i in given else [pa.nulls(len(buffer), self._schema.types[i])])
        self._length += len(buffer)

    def columns(self, image: Image) -> list[int]:
        """The columns of the table that an image holds."""
        return self._columns[id(image.buffer)]

    def put(self, image: Image, sources: list[int]) -> None:
        """Writes the number of the image's values over those of its columns in `sources`."""
        number = self._first[id(image.buffer)] + image.row
        for column in self._columns[id(image.buffer)]:
            sources[column] = number

    def diffs(self, row: MixedRow) -> dict[int, bytes]:
        """A row's JSON diffs by column of the table."""
        return {self._places[i]: diffs for i, diffs in (row.diffs or {}).items()}

    def python(self, buffer: RowBuffer, column: int) -> list[Any] | None:
        """All values that one buffer's images have in a column; None where they don't hold it."""
        if column not in self._columns[id(buffer)]:
            return None
        found = self._python.get((id(buffer), column))
        if found is None:
            first = self._first[id(buffer)]
            whole = pa.chunked_array(self._arrays[column], self._schema.types[column])
            found = whole.slice(first, len(buffer)).to_pylist()
            self._python[id(buffer), column] = found
        return found

    def text(self, column: int, number: int) -> str | None:
        """One value of a column of texts."""
        if number >= self._length:
            return self._texts[column][number - self._length]
        whole = pa.chunked_array(self._arrays[column], self._schema.types[column])
        value: str | None = whole[number].as_py()
        return value

    def add_text(self, column: int, text: str) -> int:
        """Takes in a value that no image has; returns its number, good for this column alone."""
        texts = self._texts.setdefault(column, [])
        texts.append(text)
        return self._length + len(texts) - 1

    def table(self, rows: list[list[int]]) -> pa.Table:
        """Rows put together from numbers; `FROM_ORIGIN` becomes NULL."""
        numbers = np.array(rows, np.int64).reshape(len(rows), len(self._schema))
        taken = []
        for i, kind in enumerate(self._schema.types):
            arrays = self._arrays[i]
            if i in self._texts:
                arrays = [*arrays, pa.array(self._texts[i], kind)]
            wanted = pa.array(numbers[:, i], mask=numbers[:, i] == FROM_ORIGIN)
            taken.append(pa.chunked_array(arrays, kind).take(wanted))
        return pa.Table.from_arrays(taken, schema=self._schema)
