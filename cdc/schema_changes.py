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
from cdc.schema import Table
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

    Each change and the position behind it are one DuckDB transaction, so that a crash neither loses nor
    repeats it. The target's tables, which are the stream's own, are kept in step.
    """

    def __init__(
        self,
        engine: Engine,
        target: BatchTarget,
        needs_copy: Callable[[list[str]], None],
    ) -> None:
        self._engine = engine
        self._streaming = target.tables
        self._target = target
        self._needs_copy = needs_copy

    def __call__(self, change: SchemaChange, position: Position) -> None:
        names = list(self._streaming) if change.kind == "drop_database" else list(change.tables)
        ours = [table for name in names if (table := self._streaming.get(name.casefold())) is not None]
        log.info("schema.change", database=self._engine.id, kind=change.kind, tables=names)
        copies: list[str] = []
        if change.kind == "truncate":
            self._commit(position, lambda cursor: _each(tables.truncate, cursor, ours))
        elif change.kind in ("drop", "drop_database"):
            self._commit(position, lambda cursor: _each(_forget, cursor, ours))
            self._leave(ours)
        else:
            replaces = change.kind != "create" or "REPLACE" in change.statement[:40].upper()
            changed = ours if replaces else []  # CREATE … IF NOT EXISTS of a table that exists
            known = {table.name.casefold() for table in ours}
            settings = self._engine.settings
            fresh = [n for n in change.tables if n.casefold() not in known and wanted(settings, n)]
            self._commit(position, lambda cursor: _mark(cursor, [t.name for t in changed], fresh))
            self._leave(changed)
            copies = [table.name for table in changed] + fresh
        if copies:
            self._needs_copy(copies)

    def _commit(self, position: Position, work: Callable[[duckdb.DuckDBPyConnection], object]) -> None:
        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            work(cursor)
            state.save_position(cursor, self._engine.id, position)

        self._engine.writer.submit(job).result()
        self._target.applied = position

    def _leave(self, gone: list[Table]) -> None:
        for table in gone:
            self._streaming.pop(table.name.casefold(), None)


def _each(
    work: Callable[[duckdb.DuckDBPyConnection, str], None],
    cursor: duckdb.DuckDBPyConnection,
    concerned: list[Table],
) -> None:
    for table in concerned:
        work(cursor, table.name)


def _forget(cursor: duckdb.DuckDBPyConnection, name: str) -> None:
    tables.drop(cursor, name)
    state.forget_table(cursor, name)


def _mark(cursor: duckdb.DuckDBPyConnection, changed: list[str], fresh: list[str]) -> None:
    for name in changed:
        state.save_table(cursor, name, TableState.NEEDS_RESYNC, reason="its definition changed")
    known = {name.casefold() for name in state.load_tables(cursor)}
    for name in fresh:
        if name.casefold() not in known:
            state.save_table(cursor, name, TableState.PENDING)
