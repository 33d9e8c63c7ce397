"""Statements of one boundary, carried out on the copy inside one DuckDB transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import duckdb

from cdc.engine import Engine
from cdc.position import Position
from cdc.replica import state, tables
from cdc.replica.reshape import rename_together, reshape
from cdc.replica.schema_history import Outcome, is_recorded, record_change
from cdc.replica.state import TableRecord
from cdc.schema import Table
from cdc.schema_changes.derivation import derive_altered, derive_created
from cdc.schema_changes.renames import Renaming, placed_record, plan_renames
from cdc.selection import key_indexed, wanted
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
    streams from here on.
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
        self._copies: list[str] = []
        self._cursor = cursor
        self._engine = engine
        self._key = engine.names.key
        self._position = position
        self._defaults = defaults
        self._choices = TypeChoices.of(engine.settings)
        self._records = {self._key(r.name): r for r in state.load_tables(cursor).values()}
        self._statement = ""
        self._kind = ""

    @property
    def copies(self) -> list[str]:
        """The names of tables to copy (again), of those that are still there."""
        found = [self._records.get(self._key(name)) for name in self._copies]
        return list(dict.fromkeys(r.name for r in found if r and self._key(r.name) not in self.live))

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
            self._rename(detail.pairs)
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
        table = replace(self._definition(detail), key_index=key_indexed(self._engine.settings, name))
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
                self._rename([(detail.table, alteration.new)])

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
            record = self._save_pending(name)
        self._copies.append(record.name)
        self._note(name, Outcome.COPIED_AGAIN, "the table does not stream")

    def _rename(self, pairs: Sequence[tuple[TableName, TableName]]) -> None:
        key = self._key
        names = {key(new.name): new.name for _, new in pairs if new.ours}
        plan = plan_renames(
            [
                (key(old.name) if old.ours else None, key(new.name) if new.ours else None)
                for old, new in pairs
            ],
            chosen={each for each, name in names.items() if wanted(self._engine.settings, name)},
            live=self.live.keys(),
            readable={each for each, record in self._records.items() if record.definition is not None},
            left={
                each
                for each, name in names.items()
                if each not in self._records and is_recorded(self._cursor, name)
            },
        )
        before = {each: self._records.pop(each) for each in plan.touched if each in self._records}
        streamed = {each: self.live.pop(each) for each in plan.touched if each in self.live}
        for placed in plan.placed:
            self._records[placed.key] = placed_record(placed, names[placed.key], before)
            if placed.outcome == "moves" and placed.origin is not None:
                table = streamed[placed.origin]
                self.live[placed.key] = replace(table, name=names[placed.key])
            elif placed.outcome == "stays" and placed.key in streamed:
                self.live[placed.key] = streamed[placed.key]
        for placed in plan.placed:
            if placed.outcome in ("moves", "carries"):
                self._check_name(names[placed.key])
        rows = {each.rows_from: self._records[each.key].name for each in plan.placed if each.rows_from}
        for each, record in before.items():
            if each in rows:
                state.forget_table(self._cursor, record.name)
            else:
                self._forget(record)
        rename_together(
            self._cursor, {before[each].name: name for each, name in rows.items() if each is not None}
        )
        for placed in plan.placed:
            self._save(self._records[placed.key])
        self._note_renames(plan, before)

    def _note_renames(self, plan: Renaming, before: dict[str, TableRecord]) -> None:
        there = {placed.origin for placed in plan.placed} | {placed.key for placed in plan.placed}
        rows_kept = {placed.key for placed in plan.placed if placed.outcome == "keeps"}
        for each, record in before.items():
            if each not in there:
                self._note(
                    record.name, Outcome.APPLIED, "the table has left the schema or the settings' choice"
                )
        for placed in plan.placed:
            name = self._records[placed.key].name
            if placed.outcome == "stays":
                continue
            if placed.outcome == "moves" and placed.origin is not None:
                old = before[placed.origin].name
                self._note(old, Outcome.APPLIED, f"the table is called {name} now")
                self._note(name, Outcome.APPLIED, f"the table was called {old}")
                continue
            self._copies.append(name)
            reason = "the table does not stream"
            if placed.origin not in before:
                reason = "the table was not in the copy under its old name"
            elif placed.origin in rows_kept:
                reason = "its rows stay under its old name until that is copied"
            self._note(name, Outcome.COPIED_AGAIN, reason)

    # What they have in common ------------------------------------------------------------------------

    def _copy_again(self, name: str, change: SchemaChange) -> None:
        """The statement may have changed `name` in a way that is not derived."""
        key, reason = self._key(name), change.unclear
        record = self._records.get(key)
        if record is None:
            if wanted(self._engine.settings, name):
                self._copies.append(self._save_pending(name).name)
                self._note(name, Outcome.COPIED_AGAIN, reason)
            return
        if change.kind == "create" and change.if_not_exists:
            self._note(record.name, Outcome.IGNORED, "the table exists")
            return
        if self.live.pop(key, None) is not None:
            told = f"its definition changed: {reason}"
            self._save(replace(record, state=TableState.NEEDS_RESYNC, reason=told, hint=None))
        self._copies.append(record.name)
        self._note(record.name, Outcome.COPIED_AGAIN, reason)

    def _check_name(self, name: str) -> None:
        """DuckDB takes names that differ by case for one; and where the server does too, it may respell them."""
        if self._engine.names.folds and name != name.lower():
            raise UnclearStatementError("the server may spell the table's name otherwise")
        folded = name.encode().lower()
        for key, record in self._records.items():
            if key != self._key(name) and record.name.encode().lower() == folded:
                raise UnclearStatementError("another table's name differs by case only")

    def _forget(self, record: TableRecord) -> None:
        tables.remove(self._cursor, record.name)
        state.forget_table(self._cursor, record.name)

    def _save_pending(self, name: str) -> TableRecord:
        """Where names fold, the server keeps them in lower case, and so will the copy."""
        record = TableRecord(self._key(name), TableState.PENDING, None, None, None)
        self._save(record)
        return record

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
