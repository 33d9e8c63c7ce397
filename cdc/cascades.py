"""Tables that a foreign key ties together: they stream, leave the stream and are copied in step.

A child's rows can be kept only while its parents' changes are read, and only by the keys that were in force when
they were made. So a child leaves the stream with its parent, is copied together with all its parents, and is copied
again when its keys changed in a way that the log does not date exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import closing

import duckdb
import orjson
import structlog

from cdc.engine import Engine
from cdc.errors import PreflightError
from cdc.position import Position
from cdc.replica import state
from cdc.schema import Table
from cdc.source.cascades import Cascades, CascadingKey, load_cascades
from cdc.source.ddl import SchemaChange
from cdc.source.server import server_facts
from cdc.status import TableState

log = structlog.get_logger(__name__)

_RECORD = "cascades"
"""The name in `_duckling.meta` under which each child's keys are kept, as they were when it went live."""
_TOUCHES_KEYS = re.compile(r"FOREIGN|REFERENCES|CONSTRAINT", re.IGNORECASE)


def source_cascades(engine: Engine) -> list[CascadingKey]:
    """The foreign keys whose actions the source does not log; none where it logs them. Raises SourceError."""
    with closing(engine.endpoint.connect(purpose="foreign keys")) as connection:
        if server_facts(connection).cascades_logged:
            return []
        return load_cascades(connection, engine.endpoint.database, engine.names)


def orphaned(cascades: Cascades, followed: Iterable[str], among: Iterable[str]) -> set[str]:
    """Tables of `among` one of whose parents is not `followed`, on any level."""
    there = set(followed)
    return {table for table in among if cascades.parents([table]) - there}


def record_keys(cursor: duckdb.DuckDBPyConnection, cascades: Cascades, tables: Iterable[str]) -> None:
    """Notes the keys of `tables` as those by which their rows are kept, in the caller's transaction."""
    known = _recorded(cursor)
    for table in tables:
        known.pop(table, None)
        keys = sorted(cascades.of_child(table))
        if keys:
            known[table] = keys
    cursor.execute("DELETE FROM _duckling.meta WHERE name = ?", [_RECORD])
    cursor.execute("INSERT INTO _duckling.meta VALUES (?, ?)", [_RECORD, orjson.dumps(known).decode()])


def _recorded(cursor: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    row = cursor.execute("SELECT value FROM _duckling.meta WHERE name = ?", [_RECORD]).fetchall()
    found: dict[str, list[str]] = orjson.loads(row[0][0]) if row else {}
    return found


def settle(
    cursor: duckdb.DuckDBPyConnection, engine: Engine, cascades: Cascades, live: dict[str, Table]
) -> list[str]:
    """Takes the children out of `live` that can't be kept; returns the names of those to copy again.

    Either a parent is not in the stream, or the keys are not those that the rows were kept by.
    """
    known = _recorded(cursor)
    changed = {table for table in live if frozenset(known.get(table, ())) != cascades.of_child(table)}
    return _take_out(cursor, engine, cascades, live, changed)


def _take_out(
    cursor: duckdb.DuckDBPyConnection,
    engine: Engine,
    cascades: Cascades,
    live: dict[str, Table],
    changed: set[str],
) -> list[str]:
    copies: list[str] = []
    leaving = changed | (cascades.dependents(changed) & live.keys())
    leaving |= orphaned(cascades, live.keys() - leaving, live.keys() - leaving)
    errored = {
        engine.names.key(record.name)
        for record in state.load_tables(cursor).values()
        if record.state is TableState.ERRORED
    }
    for key in sorted(leaving):
        name = live.pop(key).name
        if errored & cascades.parents([key]):
            error = lacks_parent(name)
            state.save_table(cursor, name, TableState.ERRORED, reason=error.message, hint=error.hint)
        else:
            reason = (
                "foreign keys that refer to others changed, or a table that they refer to left the stream"
            )
            state.save_table(cursor, name, TableState.NEEDS_RESYNC, reason=reason)
            copies.append(name)
    if leaving:
        log.warning("cascades.tables_leave", database=engine.id, tables=sorted(leaving))
    return copies


def lacks_parent(table: str) -> PreflightError:
    """The error of a child whose parent is not replicated."""
    return PreflightError(
        f"table {table} has a cascading foreign key to a table that is not replicated,"
        " and the source does not log what the cascade does",
        hint=f"replicate the parent too (INCLUDED_TABLES, EXCLUDED_TABLES), or mend it, then POST /sync/table/{table}",
        table=table,
        code="CASCADE_PARENT_MISSING",
    )


class CascadesKeptInStep:
    """Schema changes of a running stream, and what they mean for its cascades.

    Called as what it wraps; `cascades` are those of the stream's reader, `live` the stream's own tables.
    """

    def __init__(
        self,
        engine: Engine,
        cascades: Cascades,
        live: dict[str, Table],
        carry_out: Callable[[list[SchemaChange], Position], None],
        needs_copy: Callable[[list[str]], None],
    ) -> None:
        self._engine = engine
        self._cascades = cascades
        self._live = live
        self._carry_out = carry_out
        self._needs_copy = needs_copy

    def __call__(self, changes: list[SchemaChange], position: Position) -> None:
        before = set(self._live)
        self._carry_out(changes, position)
        now = Cascades(source_cascades(self._engine))
        if not now and not self._cascades:
            return
        key = self._engine.names.key
        altered = {
            key(name)
            for change in changes
            for name in change.tables
            if change.kind != "create" and _TOUCHES_KEYS.search(change.statement)
        }
        live = self._live
        changed = {
            table
            for table in live.keys() & before
            if table in altered or now.of_child(table) != self._cascades.of_child(table)
        }
        self._cascades.replace(now.keys)

        def job(cursor: duckdb.DuckDBPyConnection) -> tuple[list[str], dict[str, Table]]:
            staying = dict(live)  # a job may be run again: what it changes is its own
            record_keys(cursor, now, staying)
            return _take_out(cursor, self._engine, now, staying, changed & staying.keys()), staying

        copies, staying = self._engine.writer.submit(job).result()
        for table in live.keys() - staying.keys():
            del live[table]
        if copies:
            self._needs_copy(copies)
