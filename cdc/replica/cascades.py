"""What a foreign key does to the children of a changed parent, done again in the copy.

The source did it inside its engine and logged the parent's row alone (`source/cascades`). The old and new values
of the parent and the key's definition tell it all: children of the old values are deleted, get NULLs, or follow to
the new values, and so do their own children. It happens in the transaction, and at the place in the order of rows,
at which the source did it.

Two things can't be known from the values and are checked instead: a text key refers to its parent by the source's
collation, and a generated column may depend on what changed. Where that may matter, the table is copied again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

import duckdb
import pyarrow as pa

from cdc.errors import DivergenceError
from cdc.replica.image_values import ImageValues
from cdc.replica.row_views import registered
from cdc.schema import Table, quote_duckdb
from cdc.source.cascades import (
    Cascades,
    CascadingKey,
    ParentChanges,
    ParentImages,
    ParentRows,
    lacks_old_values,
)
from cdc.source.rows import UPDATE
from cdc.types import duckdb_type, row_schema

_MOVES = "_duckling_moves"
_MOVED = "_duckling_moved"

Key = tuple[Any, ...]
Changes = Iterator[tuple[Key, Key | None]]
"""Old values, and the new ones; None for a deleted row."""


class _Fate(IntEnum):
    """What becomes of the children of one old value."""

    FOLLOW = 0
    NULL = 1
    GONE = 2


class CascadeReplay:
    """Replays the cascades of one batch; `finish` behind its last row.

    `tables` are those that the batch is for, by the key of their name; children that are not among them are
    passed over. `name_of` gives a table's name in DuckDB. Needs a transaction of the caller's.
    """

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, tables: Mapping[str, Table], name_of: Callable[[str], str]
    ) -> None:
        self._cursor = cursor
        self._tables = tables
        self._name_of = name_of
        self._doubtful: dict[str, tuple[CascadingKey, Table, Table]] = {}
        self.rows = 0
        """Children's rows that were deleted or changed."""

    def replay(self, changes: ParentChanges) -> None:
        """Does what `changes` set off. Raises DivergenceError where a table must be copied again instead."""
        for run in changes.runs:
            parent = self._tables.get(run.table)
            if parent is None:
                continue
            for key in changes.cascades.of_parent(run.table):
                child = self._tables.get(key.table)
                if child is None:
                    continue
                found = _fates(key, _changes_of(run, parent, key))
                if found:
                    self._give(key, parent, found)
                    self._follow(changes.cascades, key, parent, child, _MOVES, 1)

    def finish(self) -> None:
        """Looks whether a child of a text key is left without its parent: collations were at work.

        Raises DivergenceError for such a table.
        """
        for key, child, parent in self._doubtful.values():
            same = self._matches(key, child, parent)
            present = " AND ".join(f"t.{quote_duckdb(_spelled(child, c))} IS NOT NULL" for c in key.columns)
            orphan = self._cursor.execute(
                f"SELECT 1 FROM {self._quoted(child)} t WHERE {present}"
                f" AND NOT EXISTS (SELECT 1 FROM {self._quoted(parent)} p WHERE {same}) LIMIT 1"
            ).fetchall()
            if orphan:
                raise _must_copy(
                    child, "refers to its parent by a text that its collation takes for the same"
                )

    # One level ---------------------------------------------------------------------------------------

    def _give(self, key: CascadingKey, parent: Table, found: list[tuple[Key, _Fate, Key]]) -> None:
        """The fates of the first level as a table of `old…, new…, fate`."""
        places = range(len(key.columns))
        types = [duckdb_type(parent.column(name)) for name in key.referenced_columns]
        values: dict[str, pa.Array] = {}
        schema = _arrow_types(parent, key.referenced_columns)
        for i in places:
            values[f"old{i}"] = pa.array([old[i] for old, _, _ in found], schema[i])
            values[f"new{i}"] = pa.array([new[i] for _, _, new in found], schema[i])
        values["fate"] = pa.array([int(fate) for _, fate, _ in found], pa.int8())
        listed = ", ".join(f"{side}{i}::{types[i]} AS {side}{i}" for side in ("old", "new") for i in places)
        with registered(self._cursor, pa.table(values)) as view:
            self._cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE {_MOVES} AS SELECT DISTINCT {listed}, fate FROM {view}"
            )

    def _follow(
        self, cascades: Cascades, key: CascadingKey, parent: Table, child: Table, moves: str, level: int
    ) -> None:
        """Children of the old values in `moves` meet their fates, and theirs after them."""
        match = " AND ".join(
            f"t.{quote_duckdb(_spelled(child, column))} = m.old{i}" for i, column in enumerate(key.columns)
        )
        if any(child.column(column).collation is not None for column in key.columns):
            self._doubtful[key.text()] = (key, child, parent)
        joined = f"{self._quoted(child)} t JOIN {moves} m ON {match}"
        if not self._cursor.execute(f"SELECT 1 FROM {joined} LIMIT 1").fetchall():
            return
        below = list(self._below(cascades, key, child, joined, level))
        self._move(key, child, moves, match, joined)
        for grandchild_key, grandchild, name in below:
            self._follow(cascades, grandchild_key, child, grandchild, name, level + 1)
            self._cursor.execute(f"DROP TABLE {name}")

    def _below(
        self, cascades: Cascades, key: CascadingKey, child: Table, joined: str, level: int
    ) -> Iterator[tuple[CascadingKey, Table, str]]:
        """The fates that the children's rows will mean for their own children, noted before they change."""
        for number, below in enumerate(cascades.of_parent(key.table)):
            grandchild = self._tables.get(below.table)
            if grandchild is None:
                continue
            new = self._new_values(key, child)
            old = {c.name.casefold(): f"t.{quote_duckdb(c.name)}" for c in child.columns}
            columns = [column.casefold() for column in below.referenced_columns]
            olds = ", ".join(f"{old[column]} AS old{i}" for i, column in enumerate(columns))
            news = ", ".join(f"{new.get(column, old[column])} AS new{i}" for i, column in enumerate(columns))
            changed = " OR ".join(f"old{i} IS DISTINCT FROM new{i}" for i in range(len(columns)))
            gone, moved = _fate(below.on_delete, deleted=True), _fate(below.on_update, deleted=False)
            name = f"{_MOVES}_{level}_{number}"
            # An action that refuses leaves children alone: the source would have failed, had there been any.
            self._cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT DISTINCT * EXCLUDE (gone),"
                f" CASE WHEN gone THEN {_number(gone)} ELSE {_number(moved)} END AS fate FROM"
                f" (SELECT {olds}, {news}, m.fate = {int(_Fate.GONE)} AS gone FROM {joined})"
                f" WHERE (gone OR {changed}) AND fate IS NOT NULL"
            )
            yield below, grandchild, name

    def _new_values(self, key: CascadingKey, child: Table) -> dict[str, str]:
        """The key's columns, as they will be: an expression for each."""
        return {
            column.casefold(): f"CASE WHEN m.fate = {int(_Fate.FOLLOW)}"
            f" THEN m.new{i}::{duckdb_type(child.column(column))} END"
            for i, column in enumerate(key.columns)
        }

    def _move(self, key: CascadingKey, child: Table, moves: str, match: str, joined: str) -> None:
        new = self._new_values(key, child)
        values = ", ".join(
            f"{new.get(column.name.casefold(), f't.{quote_duckdb(column.name)}')} AS {quote_duckdb(column.name)}"
            for column in child.columns
        )
        self._cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {_MOVED} AS SELECT {values} FROM {joined}"
            f" WHERE m.fate <> {int(_Fate.GONE)}"
        )
        [[changed]] = self._cursor.execute(f"SELECT count(*) FROM {_MOVED}").fetchall()
        if changed and any(column.generated for column in child.columns):
            raise _must_copy(child, "has generated columns, and a foreign key changed its rows")
        # A row in place would write whole vectors to the log, and a moved key could meet another one.
        done = self._cursor.execute(
            f"DELETE FROM {self._quoted(child)} t USING {moves} m WHERE {match}"
        ).fetchall()
        self.rows += int(done[0][0])
        if changed:
            self._delete_namesakes(child)
            listed = ", ".join(quote_duckdb(column.name) for column in child.columns)
            self._cursor.execute(
                f"INSERT INTO {self._quoted(child)} ({listed}) SELECT {listed} FROM {_MOVED}"
            )
        self._cursor.execute(f"DROP TABLE {_MOVED}")

    def _delete_namesakes(self, child: Table) -> None:
        """Rows with the keys of the moved ones: the source has removed them without a trace in its log."""
        if not child.primary_key:
            return
        names = [quote_duckdb(name) for name in child.primary_key]
        same = " AND ".join(f"t.{name} = m.{name}" for name in names)
        self._cursor.execute(f"DELETE FROM {self._quoted(child)} t USING {_MOVED} m WHERE {same}")

    # Names -------------------------------------------------------------------------------------------

    def _quoted(self, table: Table) -> str:
        return quote_duckdb(self._name_of(table.name))

    def _matches(self, key: CascadingKey, child: Table, parent: Table) -> str:
        return " AND ".join(
            f"t.{quote_duckdb(_spelled(child, own))} = p.{quote_duckdb(_spelled(parent, theirs))}"
            for own, theirs in zip(key.columns, key.referenced_columns, strict=True)
        )


def _changes_of(run: ParentRows | ParentImages, parent: Table, key: CascadingKey) -> Changes:
    """The old values of the columns that `key` refers to, and the new ones of the updates among them.

    Raises SchemaMismatchError for `parent` where an image does not tell the old ones.
    """
    names = [column.name.casefold() for column in parent.columns]
    places = [names.index(column.casefold()) for column in key.referenced_columns]
    if isinstance(run, ParentImages):
        yield from _changes_of_images(run, parent, places)
        return
    before = run.before.to_arrow(parent)
    olds = zip(*(before.column(i).to_pylist() for i in places), strict=True)
    news: Iterator[Key] = iter(())
    if len(run.after):
        after = run.after.to_arrow(parent)
        news = iter(zip(*(after.column(i).to_pylist() for i in places), strict=True))
    for operation, old in zip(run.before.ops, olds, strict=True):
        yield old, next(news) if operation == UPDATE else None


def _changes_of_images(run: ParentImages, parent: Table, places: Sequence[int]) -> Changes:
    values = ImageValues(parent, run.rows)
    for row in run.rows.rows:
        found: list[list[Any]] = []
        for image in (row.before, row.after):
            whole: list[Any] = []
            for at, place in enumerate(places):
                cells = values.python(image.buffer, place) if image is not None else None
                if cells is not None and image is not None:
                    whole.append(cells[image.row])
                elif found:
                    whole.append(found[0][at])  # what the new image lacks has not changed
                else:
                    raise lacks_old_values(parent.name)
            found.append(whole)
        yield tuple(found[0]), None if row.after is None else tuple(found[1])


def _fates(key: CascadingKey, changes: Changes) -> list[tuple[Key, _Fate, Key]]:
    """Old value, fate and new value, one for each value that children had before these changes.

    Several changes of one value are followed from the first to the last: what was moved to a value that moves on
    moves on.
    """
    nothing: Key = (None,) * len(key.columns)
    fates: dict[Key, tuple[_Fate, Key]] = {}
    there: dict[Key, list[Key]] = {}
    for old, moved in changes:
        deleted = moved is None
        fate = _fate(key.on_delete if deleted else key.on_update, deleted=deleted)
        if old == moved or fate is None or None in old:
            continue
        new = nothing if moved is None else moved
        origins = there.pop(old, [])
        if old not in fates:
            origins.append(old)
        for origin in origins:
            fates[origin] = (fate, new if fate is _Fate.FOLLOW else nothing)
        if fate is _Fate.FOLLOW:
            there.setdefault(new, []).extend(origins)
    return [
        (old, fate, new) for old, (fate, new) in fates.items() if not (fate is _Fate.FOLLOW and old == new)
    ]


def _fate(action: str, *, deleted: bool) -> _Fate | None:
    if action == "CASCADE":
        return _Fate.GONE if deleted else _Fate.FOLLOW
    return _Fate.NULL if action == "SET NULL" else None


def _number(fate: _Fate | None) -> str:
    return "NULL" if fate is None else str(int(fate))


def _spelled(table: Table, column: str) -> str:
    return table.column(column).name


def _arrow_types(table: Table, columns: Sequence[str]) -> list[pa.DataType]:
    types = {
        column.name.casefold(): kind
        for column, kind in zip(table.columns, row_schema(table).types, strict=True)
    }
    return [types[column.casefold()] for column in columns]


def _must_copy(table: Table, why: str) -> DivergenceError:
    return DivergenceError(
        f"table {table.name} {why}",
        hint=f"the table is copied again; by hand: POST /sync/table/{table.name}",
        table=table.name,
        code="CASCADE",
    )
