"""Statements of one boundary, carried out on the copy inside one DuckDB transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import duckdb

from cdc.engine import Engine
from cdc.position import Position
from cdc.replica import state, tables
from cdc.replica.reshape import rename, reshape
from cdc.replica.schema_history import Outcome, record_change
from cdc.replica.state import TableRecord
from cdc.schema import Table
from cdc.schema_changes.derivation import derive_altered, derive_created
from cdc.schema_changes.selection import wanted
from cdc.source.ddl import Alter, Create, Rename, SchemaChange
from cdc.source.ddl.alterations import RenameTable
from cdc.source.ddl.cursor import UnclearStatementError
from cdc.source.ddl.names import TableName
from cdc.source.ddl.redaction import redacted
from cdc.source.defaults import SourceDefaults
from cdc.status import TableState
from cdc.types import TypeChoices

_BESIDE_ROWS = "its rows stand in the same transaction as the statement"


class Boundary:
    """The changes of one boundary at work; lives inside one job of the writer.

    `live` are the tables that stream, by the key of their name; it is changed as they change, and holds what
    streams from here on. `copies` are the names of tables to copy (again).
    """

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        engine: Engine,
        live: dict[str, Table],
        position: Position,
        defaults: Callable[[], SourceDefaults],
    ) -> None:
        self.live = live
        self.copies: list[str] = []
        self._cursor = cursor
        self._engine = engine
        self._key = engine.names.key
        self._position = position
        self._defaults = defaults
        self._choices = TypeChoices.of(engine.settings)
        self._records = {self._key(r.name): r for r in state.load_tables(cursor).values()}
        self._statement = ""
        self._kind = ""

    def carry_out(self, change: SchemaChange) -> None:
        """One statement.

        Raises UnclearStatementError where it is not derived after all: the transaction must then be given up,
        and the statement come again without its detail. Raises duckdb.Error, DucklingError.
        """
        self._statement = redacted(change.statement, change.sql_mode)
        self._kind = change.kind
        if change.kind == "truncate":
            for name in change.tables:
                self._truncate(name)
        elif change.kind == "drop":
            for name in change.tables:
                self._drop(name)
        elif change.kind == "drop_database":
            for record in list(self._records.values()):
                self._drop(record.name)
        elif change.kind != "database":
            self._change(change)

    def _change(self, change: SchemaChange) -> None:
        detail = change.detail
        if change.beside_rows:
            detail, change = None, replace(change, unclear=_BESIDE_ROWS)
        if isinstance(detail, Create):
            self._create(change, detail)
        elif isinstance(detail, Rename):
            for old, new in detail.pairs:
                self._rename(old, new)
        elif isinstance(detail, Alter):
            self._alter(detail)
        else:
            for name in change.tables:
                self._copy_again(name, change)

    # Kinds of change ---------------------------------------------------------------------------------

    def _truncate(self, name: str) -> None:
        record = self._records.get(self._key(name))
        if record is not None and self._key(name) in self.live:
            tables.truncate(self._cursor, record.name)
            self._note(record.name, Outcome.APPLIED)
        elif wanted(self._engine.settings, name):
            self._note(name, Outcome.IGNORED, "the table is being copied")

    def _drop(self, name: str) -> None:
        key = self._key(name)
        self.live.pop(key, None)
        record = self._records.pop(key, None)
        if record is not None:
            self._forget(record)
            self._note(record.name, Outcome.APPLIED)

    def _create(self, change: SchemaChange, detail: Create) -> None:
        name = detail.table.name
        if not wanted(self._engine.settings, name):
            self._note(name, Outcome.IGNORED, "the settings do not choose the table")
            return
        record = self._records.get(self._key(name))
        if record is not None and change.if_not_exists:
            self._note(record.name, Outcome.IGNORED, "the table exists")
            return
        if change.if_not_exists:
            # Our not knowing it is no proof that it was not there: the settings may have changed.
            raise UnclearStatementError("the table may have been there before")
        table = self._definition(detail)
        self._check_name(name)
        if record is not None:
            self._forget(record)
        tables.create(self._cursor, table, name)
        self._save(TableRecord(name, TableState.STREAMING, None, None, table))
        self.live[self._key(name)] = table
        self._note(name, Outcome.APPLIED)

    def _definition(self, detail: Create) -> Table:
        name, schema = detail.table.name, self._engine.endpoint.database
        if isinstance(detail.definition, TableName):
            model = self.live.get(self._key(detail.definition.name)) if detail.definition.ours else None
            if model is None:
                raise UnclearStatementError("the table that it is made like is not in the copy")
            return replace(model, name=name, row_estimate=0)
        return derive_created(name, schema, detail.definition, self._choices, self._defaults())

    def _alter(self, detail: Alter) -> None:
        if detail.table.ours:
            self._alter_ours(detail)
        for alteration in detail.alterations:
            if isinstance(alteration, RenameTable):
                self._rename(detail.table, alteration.new)

    def _alter_ours(self, detail: Alter) -> None:
        name = detail.table.name
        table = self.live.get(self._key(name))
        alterations = tuple(each for each in detail.alterations if not isinstance(each, RenameTable))
        if table is None:
            self._again_later(name, alters=bool(alterations))
            return
        if not alterations:
            if not detail.alterations:
                self._note(table.name, Outcome.IGNORED, "rows and columns stay as they are")
            return
        derived = derive_altered(table, alterations, self._choices, self._defaults)
        for requirement in derived.requirements:
            if tables.any_row(self._cursor, table.name, requirement.predicate):
                raise UnclearStatementError(requirement.reason)
        rebuilt = reshape(self._cursor, table, derived.table, derived.sources)
        record = replace(self._records[self._key(name)], definition=derived.table)
        self._save(record)
        self.live[self._key(name)] = derived.table
        self._note(table.name, Outcome.REBUILT if rebuilt else Outcome.APPLIED)

    def _again_later(self, name: str, *, alters: bool) -> None:
        """A table that does not stream: its copy, under way or to come, must be of the new definition."""
        record = self._records.get(self._key(name))
        if not alters or (record is None and not wanted(self._engine.settings, name)):
            return
        if record is None:
            self._save(TableRecord(name, TableState.PENDING, None, None, None))
        self.copies.append(name if record is None else record.name)
        self._note(name, Outcome.COPIED_AGAIN, "the table does not stream")

    def _rename(self, old: TableName, new: TableName) -> None:
        record = self._records.pop(self._key(old.name), None) if old.ours else None
        table = self.live.pop(self._key(old.name), None) if old.ours else None
        kept = new.ours and wanted(self._engine.settings, new.name)
        if record is not None and not kept:
            self._forget(record)
            self._note(record.name, Outcome.APPLIED, "the table has left the schema or the settings' choice")
        elif record is not None:
            self._carry(record, table, new.name)
        elif kept:
            # A table that was not ours brings rows which are in no log that we follow.
            self._replace_by(new.name)
            self._save(TableRecord(new.name, TableState.PENDING, None, None, None))
            self.copies.append(new.name)
            self._note(new.name, Outcome.COPIED_AGAIN, "the table was not in the copy under its old name")

    def _carry(self, record: TableRecord, table: Table | None, new: str) -> None:
        """The table goes on under another name, with all that is known of it."""
        state.forget_table(self._cursor, record.name)
        self._check_name(new)
        self._replace_by(new)
        if record.definition is not None:
            rename(self._cursor, record.name, new)
        definition = replace(record.definition, name=new) if record.definition is not None else None
        self._save(replace(record, name=new, definition=definition))
        if table is not None:
            self.live[self._key(new)] = replace(table, name=new)
            self._note(record.name, Outcome.APPLIED, f"the table is called {new} now")
            self._note(new, Outcome.APPLIED, f"the table was called {record.name}")
        else:
            self.copies.append(new)
            self._note(new, Outcome.COPIED_AGAIN, "the table does not stream")

    # What they have in common ------------------------------------------------------------------------

    def _copy_again(self, name: str, change: SchemaChange) -> None:
        """The statement may have changed `name` in a way that is not derived."""
        key, reason = self._key(name), change.unclear
        record = self._records.get(key)
        if record is None:
            if wanted(self._engine.settings, name):
                self._save(TableRecord(name, TableState.PENDING, None, None, None))
                self.copies.append(name)
                self._note(name, Outcome.COPIED_AGAIN, reason)
            return
        if change.kind == "create" and change.if_not_exists:
            self._note(record.name, Outcome.IGNORED, "the table exists")
            return
        if self.live.pop(key, None) is not None:
            told = f"its definition changed: {reason}"
            self._save(replace(record, state=TableState.NEEDS_RESYNC, reason=told, hint=None))
        self.copies.append(record.name)
        self._note(record.name, Outcome.COPIED_AGAIN, reason)

    def _check_name(self, name: str) -> None:
        """DuckDB takes names that differ by case for one; and where the server does too, it may respell them."""
        if self._engine.names.folds and name != name.lower():
            raise UnclearStatementError("the server may spell the table's name otherwise")
        folded = name.encode().lower()
        for key, record in self._records.items():
            if key != self._key(name) and record.name.encode().lower() == folded:
                raise UnclearStatementError("another table's name differs by case only")

    def _replace_by(self, name: str) -> None:
        """What the copy has under this name is gone at the source, or another table could not take it."""
        record = self._records.pop(self._key(name), None)
        self.live.pop(self._key(name), None)
        if record is not None:
            self._forget(record)

    def _forget(self, record: TableRecord) -> None:
        tables.remove(self._cursor, record.name)
        state.forget_table(self._cursor, record.name)

    def _save(self, record: TableRecord) -> None:
        self._records[self._key(record.name)] = record
        state.save_table(
            self._cursor,
            record.name,
            record.state,
            definition=record.definition,
            reason=record.reason,
            hint=record.hint,
        )

    def _note(self, table: str, outcome: Outcome, reason: str | None = None) -> None:
        record_change(self._cursor, table, self._statement, self._kind, outcome, reason, self._position)
