"""Row images that lack columns, applied to a table: what they lack is in the copy, or in an earlier row.

The rows are followed in their order, in memory: each key's row is put together from the images that gave
its columns and from the row that the copy had (its origin). At the end every key that was met is deleted,
and the rows that are left are inserted; the values of an origin never leave DuckDB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from cdc.errors import DivergenceError, SchemaMismatchError
from cdc.replica.apply import Applied, append_rows, apply_rows, delete_keys
from cdc.replica.image_values import FROM_ORIGIN, ImageValues
from cdc.replica.row_views import registered
from cdc.schema import Table, quote_duckdb
from cdc.source.mixed_rows import Image, MixedRow, MixedRows
from cdc.source.rows import DELETE, INSERT
from cdc.types import row_schema
from cdc.values.json_diff import apply_diffs

_ORIGINS = "_duckling_origins"
_IMAGES = "_duckling_images"

Key = tuple[Any, ...]


@dataclass(slots=True)
class _Row:
    """A row as it is put together: its origin, and for each column the number of an image's value."""

    origin: int | None
    sources: list[int]

    @property
    def is_complete(self) -> bool:
        """Whether nothing of its origin is left in it."""
        return FROM_ORIGIN not in self.sources


def apply_mixed(
    cursor: duckdb.DuckDBPyConnection, table: Table, name: str, rows: MixedRows, *, overlap: bool
) -> Applied:
    """Applies `rows` to the DuckDB table `name`, as full images would be. Needs a transaction of the caller's.

    `overlap`: the table may hold a later state than the rows start from. Raises SchemaMismatchError where an
    image lacks what neither the copy nor another image can give (the table must be copied again), and
    DivergenceError where the copy lacks the row that an image completes.
    """
    values = ImageValues(table, rows)
    if not table.primary_key:
        return _apply_keyless(cursor, table, name, rows, values)
    return _Completion(cursor, table, name, values, overlap).run(rows)


def _apply_keyless(
    cursor: duckdb.DuckDBPyConnection, table: Table, name: str, rows: MixedRows, values: ImageValues
) -> Applied:
    """Without a key the old image holds the whole row, or nothing can be told from it."""
    taken: list[list[int]] = []
    operations: list[int] = []
    for row in rows.rows:
        sources = [FROM_ORIGIN] * len(table.columns)
        for image, operation in ((row.before, DELETE), (row.after, INSERT)):
            if image is None:
                continue
            old = sources[:]
            values.put(image, sources)
            for column, diffs in values.diffs(row).items() if operation == INSERT else ():
                sources[column] = _patched(table, values, column, old[column], diffs)
            if FROM_ORIGIN in sources:
                raise _lacks_columns(table)
            taken.append(sources[:])
            operations.append(operation)
    full = values.table(taken)
    return apply_rows(cursor, table, name, full, np.array(operations, np.uint8), overlap=False)


def _patched(table: Table, values: ImageValues, column: int, source: int, diffs: bytes) -> int:
    """The number of the document that `diffs` make of the value `source`."""
    document = values.text(column, source) if source != FROM_ORIGIN else None
    if document is None:
        raise _lacks_columns(table)
    return values.add_text(column, apply_diffs(document, diffs))


class _Completion:
    """One call of `apply_mixed`, for a table with a key."""

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, table: Table, name: str, values: ImageValues, overlap: bool
    ) -> None:
        self._cursor = cursor
        self._table = table
        self._name = name
        self._values = values
        self._overlap = overlap
        self._schema = row_schema(table)
        self._key = [i for i, column in enumerate(table.columns) if column.name in table.primary_key]
        self._origins: dict[Key, int] = {}
        self._documents: dict[tuple[int, int], str] = {}
        """JSON documents of origins that diffs speak of, by origin and column."""
        self._rows: dict[Key, _Row] = {}
        self._met: dict[Key, bool] = {}
        """Every key that was met, and whether it should have been there before."""

    def run(self, rows: MixedRows) -> Applied:
        """Applies all rows."""
        self._fetch_origins(rows.rows)
        for row in rows.rows:
            self._follow(row)
        gone = self._key_table(list(self._met))
        removed = delete_keys(self._cursor, self._table, self._name, gone)
        self._insert(list(self._rows.values()))
        self._cursor.execute(f"DROP TABLE IF EXISTS {_ORIGINS}")
        there = sum(self._met.values())
        left = sum(there for key, there in self._met.items() if key not in self._rows)
        return Applied(len(self._rows), left, 0 if self._overlap else max(0, there - removed))

    # Keys and origins --------------------------------------------------------------------------------

    def _key_of(self, image: Image, other: Image | None = None) -> Key:
        """The key in `image`; where it lacks a part, that of `other`."""
        parts = []
        for column in self._key:
            values = self._values.python(image.buffer, column)
            if values is None and other is not None:
                image_of_part, values = other, self._values.python(other.buffer, column)
            else:
                image_of_part = image
            if values is None:
                raise _lacks_columns(self._table)
            parts.append(values[image_of_part.row])
        return tuple(parts)

    def _key_table(self, keys: list[Key]) -> pa.Table:
        arrays = [
            pa.array([key[at] for key in keys], self._schema.types[i]) for at, i in enumerate(self._key)
        ]
        return pa.Table.from_arrays(arrays, names=[f"c{i}" for i in self._key])

    def _fetch_origins(self, rows: list[MixedRow]) -> None:
        """Sets the copy's rows aside from which images are completed."""
        wanted: dict[Key, None] = {}
        documents: set[int] = set()
        for row in rows:
            if row.before is None or row.after is None:
                continue
            diffs = self._values.diffs(row)
            bare = diffs.keys() - set(self._values.columns(row.before))
            if bare or len(self._held(row)) < len(self._table.columns):
                wanted[self._key_of(row.before)] = None
                documents |= bare
        if not wanted:
            return
        keys = list(wanted)
        listed = self._key_table(keys)
        listed = listed.append_column("origin", pa.array(range(len(keys)), pa.int64()))
        columns = self._table.columns
        same = " AND ".join(f"t.{quote_duckdb(columns[i].name)} = w.c{i}" for i in self._key)
        named = ", ".join(f"t.{quote_duckdb(column.name)} AS o{i}" for i, column in enumerate(columns))
        with registered(self._cursor, listed) as view:
            self._cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE {_ORIGINS} AS SELECT w.origin, {named}"
                f" FROM {quote_duckdb(self._name)} t JOIN {view} w ON {same}"
            )
        texts = sorted(documents)
        listing = ", ".join(["origin", *(f"o{i}::VARCHAR" for i in texts)])
        for origin, *found in self._cursor.execute(f"SELECT {listing} FROM {_ORIGINS}").fetchall():
            self._origins[keys[origin]] = origin
            for column, text in zip(texts, found, strict=True):
                self._documents[origin, column] = text

    def _held(self, row: MixedRow) -> set[int]:
        return {i for image in (row.before, row.after) if image for i in self._values.columns(image)}

    # Rows --------------------------------------------------------------------------------------------

    def _follow(self, row: MixedRow) -> None:
        """One change, upon what the changes before it made."""
        before, after = row.before, row.after
        if before is None:
            assert after is not None
            self._start(self._key_of(after), after)
            return
        key = self._key_of(before)
        first = key not in self._met
        self._met.setdefault(key, True)
        current = self._rows.pop(key, None)
        if after is None:
            return
        if current is None:
            origin = self._origins.get(key) if first else None
            current = _Row(origin, [FROM_ORIGIN] * len(self._table.columns))
        made = _Row(current.origin, current.sources[:])
        self._values.put(before, made.sources)
        old = made.sources[:]
        self._values.put(after, made.sources)
        for column, diffs in self._values.diffs(row).items():
            made.sources[column] = self._patch(made, column, old[column], diffs)
        if not made.is_complete and made.origin is None:
            if self._overlap:
                return  # it is gone in the copy's later state; its end comes later in the log
            raise DivergenceError(
                f"table {self._table.name} lacks a row that the source changed",
                hint=f"the table is copied again; by hand: POST /sync/table/{self._table.name}",
                table=self._table.name,
            )
        moved = self._key_of(after, before)
        if moved != key:
            if self._overlap and not made.is_complete:
                raise _lacks_columns(self._table)  # the copy's later state may have another row there
            self._met.setdefault(moved, False)
        self._rows[moved] = made

    def _start(self, key: Key, image: Image) -> None:
        """An inserted row."""
        made = _Row(None, [FROM_ORIGIN] * len(self._table.columns))
        self._values.put(image, made.sources)
        if not made.is_complete:
            raise _lacks_columns(self._table)
        self._met.setdefault(key, self._overlap)
        self._rows[key] = made

    def _patch(self, made: _Row, column: int, source: int, diffs: bytes) -> int:
        """The number of the document that `diffs` make."""
        if source != FROM_ORIGIN or made.origin is None:
            return _patched(self._table, self._values, column, source, diffs)
        document = self._documents.get((made.origin, column))
        if self._overlap or document is None:  # a later state may have these changes already
            raise _lacks_columns(self._table)
        return self._values.add_text(column, apply_diffs(document, diffs))

    # DuckDB ------------------------------------------------------------------------------------------

    def _insert(self, rows: list[_Row]) -> None:
        whole = [row.sources for row in rows if row.is_complete]
        if whole:
            append_rows(self._cursor, self._table, self._name, self._values.table(whole))
        mixed = [row for row in rows if not row.is_complete]
        if mixed:
            self._insert_mixed(mixed)

    def _insert_mixed(self, rows: list[_Row]) -> None:
        """Rows of which a part comes from images, and the rest from their origins."""
        columns = self._table.columns
        target = quote_duckdb(self._name)
        shape = ", ".join(f"{quote_duckdb(column.name)} AS i{i}" for i, column in enumerate(columns))
        numbers = pa.array(range(len(rows)), pa.int64())
        images = self._values.table([row.sources for row in rows]).append_column("nth", numbers)
        # Through a table of the same types: values come into it as they come into the copy.
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {_IMAGES} AS SELECT {shape}, 0::BIGINT AS nth FROM {target} LIMIT 0"
        )
        with registered(self._cursor, images) as view:
            self._cursor.execute(f"INSERT INTO {_IMAGES} SELECT * FROM {view}")
        places = {"nth": numbers, "origin": pa.array([row.origin for row in rows], pa.int64())}
        for i in range(len(columns)):
            places[f"h{i}"] = pa.array([row.sources[i] != FROM_ORIGIN for row in rows])
        listed = ", ".join(quote_duckdb(column.name) for column in columns)
        chosen = ", ".join(f"CASE WHEN p.h{i} THEN i.i{i} ELSE o.o{i} END" for i in range(len(columns)))
        with registered(self._cursor, pa.table(places)) as view:
            self._cursor.execute(
                f"INSERT INTO {target} ({listed}) SELECT {chosen} FROM {view} p"
                f" JOIN {_IMAGES} i ON i.nth = p.nth JOIN {_ORIGINS} o ON o.origin = p.origin"
            )
        self._cursor.execute(f"DROP TABLE {_IMAGES}")


def _lacks_columns(table: Table) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"a row image of table {table.name} lacks columns that nothing else can give",
        hint="the table is copied again; some session writes with another binlog_row_image than FULL",
        table=table.name,
        code="ROW_IMAGE",
    )
