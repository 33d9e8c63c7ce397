"""What the stream does about a statement that may change tables.

A table that was emptied or dropped is so in the copy, at the same place in the stream. Any other change to a
replicated table takes it out of the stream, at that place too, and has it copied again; readers see its last
state until then.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import duckdb
import structlog

from cdc.config import Settings
from cdc.engine import Engine
from cdc.position import Position
from cdc.replica import state, tables
from cdc.replica.writer import BatchTarget
from cdc.source.ddl import SchemaChange
from cdc.status import TableState

log = structlog.get_logger(__name__)


def wanted(settings: Settings, name: str) -> bool:
    """Whether a table called `name` is one that the settings choose."""
    included, excluded = settings.included_tables, settings.excluded_tables
    chosen = not included or any(fnmatchcase(name, pattern) for pattern in included)
    return chosen and not any(fnmatchcase(name, pattern) for pattern in excluded)


class SchemaChanges:
    """Carries out changes for a running stream; called in the reader's thread, at a boundary.

    The changes of one boundary and the position are one DuckDB transaction, so that a crash neither loses nor
    repeats them. The target's tables, which are the stream's own, are kept in step.
    """

    def __init__(self, engine: Engine, target: BatchTarget, needs_copy: Callable[[list[str]], None]) -> None:
        self._engine = engine
        self._target = target
        self._needs_copy = needs_copy

    def __call__(self, changes: list[SchemaChange], position: Position) -> None:
        copies: list[str] = []
        gone: set[str] = set()

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            for change in changes:
                self._carry_out(cursor, change, copies, gone)
            state.save_position(cursor, self._engine.id, position)

        for change in changes:
            log.info("schema.change", database=self._engine.id, kind=change.kind, tables=list(change.tables))
        self._engine.writer.submit(job).result()
        self._target.applied = position
        for key in gone:
            self._target.tables.pop(key, None)
        if copies:
            self._needs_copy(copies)

    def _carry_out(
        self, cursor: duckdb.DuckDBPyConnection, change: SchemaChange, copies: list[str], gone: set[str]
    ) -> None:
        """One change; adds names to `copies`, and keys of tables that leave the stream to `gone`."""
        key = self._engine.names.key
        records = {key(record.name): record for record in state.load_tables(cursor).values()}
        named = [r.name for r in records.values()] if change.kind == "drop_database" else change.tables
        for name in named:
            record = records.get(key(name))
            live = key(name) in self._target.tables and key(name) not in gone
            if change.kind == "truncate":
                if live and record is not None:
                    tables.truncate(cursor, record.name)
            elif change.kind in ("drop", "drop_database"):
                if record is not None:
                    tables.drop(cursor, record.name)
                    state.forget_table(cursor, record.name)
                gone.add(key(name))
            elif record is None:
                if wanted(self._engine.settings, name):
                    state.save_table(cursor, name, TableState.PENDING)
                    copies.append(name)
            elif change.kind != "create" or _replaces(change):
                if live:
                    reason = "its definition changed"
                    state.save_table(cursor, record.name, TableState.NEEDS_RESYNC, reason=reason)
                    gone.add(key(name))
                copies.append(record.name)


def _replaces(change: SchemaChange) -> bool:
    """MariaDB's CREATE OR REPLACE TABLE; any other CREATE of a table that exists changes nothing."""
    return "REPLACE" in change.statement[:40].upper()
