"""The definition of a table after a statement, derived from the one before it.

The catalogue of today says nothing of a statement that lies in a backlog; its text and the recorded definition
do. What they don't tell for certain raises UnclearStatementError: then the table is copied again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from cdc.replica.reshape import ColumnSource, literal
from cdc.schema import Column, Table, quote_duckdb
from cdc.schema_changes.columns import character_set_of, default_collation, resolve
from cdc.schema_changes.conversions import carried_over
from cdc.schema_changes.fills import fill
from cdc.source.ddl.alterations import (
    FIRST,
    AddCascadingKey,
    AddColumn,
    AddPrimaryKey,
    Alteration,
    ChangeColumn,
    DropColumn,
    DropPrimaryKey,
    RenameColumn,
    RenameTable,
    SetDefaultCharacterSet,
    SetEngine,
    SetVisibility,
)
from cdc.source.ddl.columns import ColumnDefinition
from cdc.source.ddl.creation import TableDefinition
from cdc.source.ddl.cursor import UnclearStatementError
from cdc.source.defaults import SourceDefaults
from cdc.types import TypeChoices, duckdb_type
from cdc.values.text import text_column

_ENGINES = {"innodb": "InnoDB", "myisam": "MyISAM", "aria": "Aria"}
"""Engines that keep rows, as the catalogue spells them."""

Defaults = Callable[[], SourceDefaults]


@dataclass(frozen=True, slots=True)
class Requirement:
    """Rows that must not be there for a derivation to hold: `predicate` in SQL over the old table."""

    predicate: str
    reason: str


@dataclass(frozen=True, slots=True)
class Derived:
    """A table after a statement: where each of its columns comes from, and on what condition that is so."""

    table: Table
    sources: tuple[ColumnSource, ...]
    requirements: tuple[Requirement, ...]


def derive_created(
    name: str, schema: str, definition: TableDefinition, choices: TypeChoices, defaults: SourceDefaults
) -> Table:
    """The table that CREATE TABLE makes, empty. Raises UnclearStatementError."""
    if definition.cascading:
        raise UnclearStatementError("a foreign key changes rows of the table by itself")
    engine = _engine(definition.engine or "innodb")
    collation = _default(definition.character_set, definition.collation, defaults)
    key = {column.casefold() for column in definition.primary_key}
    columns = tuple(
        resolve(column, defaults, collation, in_key=column.name.casefold() in key)
        for column in definition.columns
    )
    table = Table(schema, name, columns, (), engine, 0, collation)
    table = replace(table, primary_key=_spelled(table, definition.primary_key))
    _check_fit(table)
    return choices.applied_to(table)


def _default(character_set: str | None, collation: str | None, defaults: SourceDefaults) -> str:
    chosen = collation or (
        default_collation(character_set, defaults) if character_set else defaults.schema_collation
    )
    character_set_of(chosen, defaults)
    return chosen


def _engine(name: str) -> str:
    if name not in _ENGINES:
        raise UnclearStatementError("the table's engine is not one that surely keeps rows")
    return _ENGINES[name]


def _check_fit(table: Table) -> None:
    """What preflight refuses is left to the copy, which says so."""
    if not table.transactional and not table.primary_key:
        raise UnclearStatementError("rows without a key and without transactions can't be followed")


def _spelled(table: Table, columns: Iterable[str]) -> tuple[str, ...]:
    """Names of columns as the table spells them."""
    try:
        return tuple(table.column(name).name for name in columns)
    except KeyError as error:
        raise UnclearStatementError("a key names a column that the copy does not have") from error


def derive_altered(
    table: Table, alterations: tuple[Alteration, ...], choices: TypeChoices, defaults: Defaults
) -> Derived:
    """`table` after the clauses of one ALTER TABLE (its name apart). Raises UnclearStatementError."""
    return _Alteration(table, alterations, choices, defaults).derive()


class _Alteration:
    """One ALTER TABLE. All clauses speak of the columns as they were before it."""

    def __init__(
        self, table: Table, alterations: tuple[Alteration, ...], choices: TypeChoices, defaults: Defaults
    ) -> None:
        self._table = table
        self._choices = choices
        self._defaults = defaults
        self._alterations = alterations
        self._dropped: set[str] = set()
        self._renamed: dict[str, str] = {}
        self._changed: dict[str, ChangeColumn] = {}
        self._hidden: dict[str, bool] = {}
        self._placed: list[AddColumn | ChangeColumn] = []
        self._key: tuple[str, ...] | None = None
        self._key_dropped = False
        self._collation = table.collation
        self._engine = table.engine
        self._old: dict[str, Column] = {}
        """The old column that each new one goes on from, by the new one's folded name."""
        self._fills: dict[str, bytes | None] = {}
        """What each added column holds in the rows that are there, by folded name; None is NULL."""
        self._requirements: list[Requirement] = []

    def derive(self) -> Derived:
        for alteration in self._alterations:
            self._read(alteration)
        key = self._new_key()
        columns = self._columns({name.casefold() for name in key})
        if len({column.name.casefold() for column in columns}) != len(columns) or not columns:
            raise UnclearStatementError("the columns are not those that the statement speaks of")
        table = replace(
            self._table,
            columns=tuple(columns),
            collation=self._collation,
            engine=self._engine,
            primary_key=(),
        )
        table = self._choices.applied_to(replace(table, primary_key=_spelled(table, key)))
        _check_fit(table)
        sources = tuple(self._source(column) for column in table.columns)
        return Derived(table, sources, tuple(self._requirements))

    def _read(self, alteration: Alteration) -> None:
        match alteration:
            case AddColumn():
                self._add(alteration)
            case DropColumn(name, if_exists):
                if not (if_exists and not self._has(name)):
                    self._dropped.add(self._known(name))
            case RenameColumn(old, new):
                self._renamed[self._known(old)] = new
            case ChangeColumn(old, _, place, if_exists):
                if not (if_exists and not self._has(old)):
                    self._changed[self._known(old)] = alteration
                    if place is not None:
                        self._placed.append(alteration)
            case SetVisibility(name, invisible):
                self._hidden[self._known(name)] = invisible
            case AddPrimaryKey(columns):
                self._key = columns
            case DropPrimaryKey():
                self._key_dropped = True
            case SetDefaultCharacterSet(character_set, collation):
                self._collation = _default(character_set, collation, self._defaults())
            case SetEngine(engine):
                self._engine = _engine(engine)
            case AddCascadingKey():
                raise UnclearStatementError("a foreign key changes rows of the table by itself")
            case RenameTable():
                pass

    def _has(self, name: str) -> bool:
        return any(column.name.casefold() == name.casefold() for column in self._table.columns)

    def _known(self, name: str) -> str:
        """The folded name of a column that the statement may touch once."""
        folded = name.casefold()
        taken = self._dropped | self._renamed.keys() | self._changed.keys()
        if not self._has(name) or folded in taken:
            raise UnclearStatementError("the columns are not those that the statement speaks of")
        return folded

    def _add(self, alteration: AddColumn) -> None:
        folded = alteration.column.name.casefold()
        if alteration.if_not_exists:
            if folded in self._dropped | self._renamed.keys() | self._changed.keys():
                raise UnclearStatementError("a column is added where it is missing, and changed")
            if self._has(folded):
                return
        self._placed.append(alteration)

    # Columns -----------------------------------------------------------------------------------------

    def _columns(self, key: set[str]) -> list[Column]:
        """The new columns in their order.

        As both servers build it: the old ones without those that are dropped or move, then the new and the
        moved ones as the statement names them (MySQL's mysql_prepare_alter_table).
        """
        columns: list[Column] = []
        for old in self._table.columns:
            folded = old.name.casefold()
            if folded in self._dropped:
                continue
            change = self._changed.get(folded)
            if change is None:
                new = replace(
                    old,
                    name=self._renamed.get(folded, old.name),
                    invisible=self._hidden.get(folded, old.invisible),
                )
                if new.name.casefold() in key and new.nullable:
                    self._require_no_null(old)
                    new = replace(new, nullable=False)
                self._old[new.name.casefold()] = old
                columns.append(new)
            elif change.place is None:
                columns.append(self._resolved(change, old, key))
        for placed in self._placed:
            if isinstance(placed, ChangeColumn):
                old = self._table.column(placed.old)
                self._insert(columns, self._resolved(placed, old, key), placed.place)
            else:
                self._insert(columns, self._added(placed, key), placed.place)
        return columns

    def _insert(self, columns: list[Column], column: Column, place: str | None) -> None:
        if place is None:
            columns.append(column)
            return
        if place == FIRST:
            columns.insert(0, column)
            return
        # New names count; an old one of a column that is renamed might mean either.
        moved = set(self._renamed) | {old for old, change in self._changed.items() if _renames(change)}
        folded = [each.name.casefold() for each in columns]
        if place.casefold() in moved or place.casefold() not in folded:
            raise UnclearStatementError("a column is put behind one that is not where the statement says")
        columns.insert(folded.index(place.casefold()) + 1, column)

    def _resolved(self, change: ChangeColumn, old: Column, key: set[str]) -> Column:
        """A column that MODIFY or CHANGE defines anew."""
        definition = change.column
        new = self._of_definition(definition, key)
        name = quote_duckdb(old.name)
        if definition.generated or old.generated:
            self._require_empty(f"column {definition.name} is generated")
        if old.nullable and not new.nullable:
            self._require_no_null(old)
        if definition.auto_increment:
            self._requirements.append(
                Requirement(f"{name} IS NULL OR {name} = 0", f"column {definition.name} numbers rows")
            )
        alike = replace(new, name=old.name, nullable=old.nullable, invisible=old.invisible, choice=old.choice)
        if alike != old and any(column.generated for column in self._table.columns):
            self._require_empty("generated columns may depend on a column whose type changes")
        self._old[new.name.casefold()] = old
        return new

    def _of_definition(self, definition: ColumnDefinition, key: set[str]) -> Column:
        changes_default = any(isinstance(each, SetDefaultCharacterSet) for each in self._alterations)
        collation = None if changes_default else self._collation
        return resolve(definition, self._defaults(), collation, in_key=definition.name.casefold() in key)

    def _added(self, alteration: AddColumn, key: set[str]) -> Column:
        definition = alteration.column
        column = self._of_definition(definition, key)
        try:
            cell = fill(definition, column)
        except UnclearStatementError as error:
            self._require_empty(error.reason)
            cell = None
        self._fills[column.name.casefold()] = cell
        if column.name.casefold() in key:
            self._require_empty("all rows would have the same key")
        return column

    def _require_empty(self, reason: str) -> None:
        self._requirements.append(Requirement("true", reason))

    def _require_no_null(self, old: Column) -> None:
        reason = f"column {old.name} holds NULL, which the source replaces"
        self._requirements.append(Requirement(f"{quote_duckdb(old.name)} IS NULL", reason))

    # The key -----------------------------------------------------------------------------------------

    def _new_key(self) -> tuple[str, ...]:
        if self._key is not None:
            if self._table.primary_key and not self._key_dropped:
                raise UnclearStatementError("a second primary key")
            return self._key
        if self._key_dropped:
            return ()
        kept = [name for name in self._table.primary_key if name.casefold() not in self._dropped]
        if kept and len(kept) < len(self._table.primary_key):
            raise UnclearStatementError("a part of the primary key is dropped")
        return tuple(self._new_name(name) for name in kept)

    def _new_name(self, old: str) -> str:
        folded = old.casefold()
        if folded in self._changed:
            return self._changed[folded].column.name
        return self._renamed.get(folded, old)

    # Values ------------------------------------------------------------------------------------------

    def _source(self, column: Column) -> ColumnSource:
        old = self._old.get(column.name.casefold())
        if old is None:
            cell = self._fills[column.name.casefold()]
            return ColumnSource(None, literal(duckdb_type(column), text_column(column, [cell])))
        if any(requirement.predicate == "true" for requirement in self._requirements):
            # There are no rows, or nothing of this is done.
            same = duckdb_type(old) == duckdb_type(column)
            return ColumnSource(old.name, quote_duckdb(old.name) if same else f"NULL::{duckdb_type(column)}")
        return ColumnSource(old.name, carried_over(old, column))


def _renames(change: ChangeColumn) -> bool:
    return change.old.casefold() != change.column.name.casefold()
