"""Foreign keys whose actions the source carries out without logging them, and the rows that set them off.

InnoDB changes the rows of a child table by itself when the parent's row is deleted or its key changes; MariaDB,
and MySQL before 9.6, log the parent's row alone (MySQL manual, "FOREIGN KEY Constraints", "Foreign Key
Restrictions"). What happens to the children is told by the keys' definitions and the parents' old and new
values, so it can be done again in the copy: `replica/cascades` does it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pymysql

from cdc.errors import SchemaMismatchError
from cdc.schema import NameCase
from cdc.source import events
from cdc.source.catalog import foreign_keys_with_cascade
from cdc.source.mixed_rows import MixedRows
from cdc.source.row_layout import RowLayout
from cdc.source.rows import DELETE, UPDATE, RowBuffer
from cdc.source.table_map import TableMap
from cdc.source.translation import refuse_partial_answer, translate

_DOING = "reading the source's foreign keys"
_NO_FOREIGN_KEY_CHECKS = 2
"""Flag of a rows event: the session had foreign_key_checks = 0, with which InnoDB cascades nothing."""


@dataclass(frozen=True, slots=True)
class CascadingKey:
    """One foreign key: `columns` of `table` refer to `referenced_columns` of `referenced`.

    `table` and `referenced` are keys of names (`NameCase`); a referenced table of another schema has that before
    its name, with a NUL between. `on_update` and `on_delete` are in upper case.
    """

    name: str
    table: str
    columns: tuple[str, ...]
    referenced: str
    referenced_columns: tuple[str, ...]
    on_update: str
    on_delete: str

    def text(self) -> str:
        """Everything about it, to be compared with what it was."""
        return (
            f"{self.table}({','.join(self.columns)})->{self.referenced}"
            f"({','.join(self.referenced_columns)}) {self.on_update}/{self.on_delete}"
        )


class Cascades:
    """The cascading foreign keys of one schema. Empty where the server logs what they do."""

    def __init__(self, keys: Iterable[CascadingKey] = ()) -> None:
        self.keys: tuple[CascadingKey, ...] = ()
        self.children: frozenset[str] = frozenset()
        """Tables whose rows a cascade changes."""
        self.replace(keys)

    def __bool__(self) -> bool:
        return bool(self.keys)

    def replace(self, keys: Iterable[CascadingKey]) -> None:
        """The keys are these now; a batch that is under way keeps those it was read with."""
        self.keys = tuple(keys)
        self.children = frozenset(key.table for key in self.keys)
        self._by_parent: dict[str, list[CascadingKey]] = defaultdict(list)
        for key in self.keys:
            self._by_parent[key.referenced].append(key)

    def frozen(self) -> Cascades:
        """These keys, whatever becomes of them."""
        return Cascades(self.keys)

    def of_parent(self, table: str) -> Sequence[CascadingKey]:
        """The keys that refer to `table`."""
        return self._by_parent.get(table, ())

    def of_child(self, table: str) -> frozenset[str]:
        """The keys of `table`, as text to compare."""
        return frozenset(key.text() for key in self.keys if key.table == table)

    def parents(self, tables: Iterable[str]) -> set[str]:
        """All tables on whose rows those of `tables` depend, over any number of levels; without themselves."""
        return self._closure(tables, up=True)

    def dependents(self, tables: Iterable[str]) -> set[str]:
        """All tables whose rows depend on those of `tables`, over any number of levels; without themselves."""
        return self._closure(tables, up=False)

    def _closure(self, tables: Iterable[str], *, up: bool) -> set[str]:
        start = set(tables)
        found = set(start)
        while True:
            more = {
                key.referenced if up else key.table
                for key in self.keys
                if (key.table if up else key.referenced) in found
            } - found
            if not more:
                return found - start
            found |= more


def load_cascades(connection: pymysql.Connection, schema: str, names: NameCase) -> list[CascadingKey]:
    """The cascading foreign keys of `schema`. Raises SourceError."""
    rules = {(key.table, key.name): key for key in foreign_keys_with_cascade(connection, schema)}
    if not rules:
        return []
    columns: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_COLUMN_NAME,"
                " REFERENCED_TABLE_SCHEMA FROM information_schema.KEY_COLUMN_USAGE"
                " WHERE TABLE_SCHEMA = %s AND REFERENCED_TABLE_NAME IS NOT NULL"
                " ORDER BY TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION",
                (schema,),
            )
            for table, name, column, referenced, where in cursor.fetchall():
                columns[str(table), str(name)].append((str(column), str(referenced), str(where)))
            refuse_partial_answer(cursor, doing=_DOING)
    except pymysql.err.Error as error:
        raise translate(error, doing=_DOING) from error
    found = []
    for place, key in rules.items():
        own, referenced, schemas = zip(*columns[place], strict=True)
        ours = names.key(schemas[0]) == names.key(schema)
        found.append(
            CascadingKey(
                key.name,
                names.key(key.table),
                own,
                names.key(key.referenced if ours else f"{schemas[0]}\0{key.referenced}"),
                referenced,
                key.update_rule,
                key.delete_rule,
            )
        )
    return found


@dataclass(slots=True)
class ParentRows:
    """Consecutive changes of one parent table: the old rows, and the new ones of the updates among them."""

    table: str
    before: RowBuffer
    after: RowBuffer

    def truncate(self, length: int) -> None:
        """Forgets all changes behind the first `length`."""
        kept = self.before.ops[:length].count(UPDATE)
        self.before.truncate(length)
        self.after.truncate(kept)


@dataclass(slots=True)
class ParentImages:
    """As ParentRows, of row images that lack columns."""

    table: str
    rows: MixedRows

    def truncate(self, length: int) -> None:
        """Forgets all changes behind the first `length`."""
        self.rows.truncate(length)


@dataclass(slots=True)
class ParentChanges:
    """Deletes and updates of parents' rows, in the order of the log, at their place among a batch's buffers.

    Rows of child tables that stand behind it in the log must stand behind it in the batch too.
    """

    cascades: Cascades
    runs: list[ParentRows | ParentImages] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(_length, self.runs))

    @property
    def row_count(self) -> int:
        """None of its own: these rows are in their table's buffer too."""
        return 0

    def blocks(self, table: str) -> bool:
        """Whether rows of `table` must not be put before this."""
        return table in self.cascades.children

    def truncate(self, length: int) -> None:
        """Forgets all changes behind the first `length`: they were rolled back."""
        for run in self.runs:
            kept = max(0, min(length, _length(run)))
            length -= _length(run)
            run.truncate(kept)
        self.runs = [run for run in self.runs if _length(run)]

    def add(
        self, table: str, kind: int, table_map: TableMap, layout: RowLayout, buffer: bytes, pos: int, end: int
    ) -> None:
        """Takes in the full row images of a delete or an update of `table` between `pos` and `end`."""
        last = self.runs[-1] if self.runs else None
        if not isinstance(last, ParentRows) or last.table != table or last.before.table_map is not table_map:
            last = ParentRows(table, RowBuffer(table_map, layout), RowBuffer(table_map, layout))
            self.runs.append(last)
        before, after = last.before, last.after
        update = kind in events.UPDATE_ROWS
        while pos < end:
            pos = before.add_image(UPDATE if update else DELETE, buffer, pos)
            if update:
                pos = after.add_image(UPDATE, buffer, pos)

    def images(self, table: str, table_map: TableMap) -> MixedRows:
        """What takes images of `table` that lack columns."""
        last = self.runs[-1] if self.runs else None
        if not isinstance(last, ParentImages) or last.table != table or last.rows.table_map is not table_map:
            last = ParentImages(table, MixedRows(table_map))
            self.runs.append(last)
        return last.rows


def _length(run: ParentRows | ParentImages) -> int:
    return len(run.before) if isinstance(run, ParentRows) else len(run.rows)


def sets_off(cascades: Cascades, table: str, kind: int, flags: int) -> bool:
    """Whether a rows event of `table` can change rows of other tables that are not logged."""
    return (
        (kind in events.UPDATE_ROWS or kind in events.DELETE_ROWS)
        and not flags & _NO_FOREIGN_KEY_CHECKS
        and bool(cascades.of_parent(table))
    )


def refers_beyond_key(cascades: Cascades, table: str, table_map: TableMap, layout: RowLayout) -> bool:
    """Whether a key refers to columns of `table` outside its primary key, which an update may change unseen."""
    key = {table_map.columns[i].name.casefold() for i in layout.key}
    return any(
        column.casefold() not in key
        for each in cascades.of_parent(table)
        for column in each.referenced_columns
    )


def lacks_old_values(table: str) -> SchemaMismatchError:
    """The error of a parent's change whose image does not tell the old row."""
    return SchemaMismatchError(
        f"a row image of table {table} lacks columns, so what its foreign keys changed can't be told",
        hint="the table and those that refer to it are copied again; set binlog_row_image = FULL for every session",
        table=table,
        code="ROW_IMAGE",
    )
