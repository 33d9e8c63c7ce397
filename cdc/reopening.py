"""A file as the last end of the service left it, put in order before anything else is done with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import duckdb
import structlog

from cdc.engine import Engine
from cdc.replica import run_log, state, tables
from cdc.replica.tables import has_key_index
from cdc.selection import key_indexed
from cdc.status import TableState
from cdc.types import TypeChoices

log = structlog.get_logger(__name__)

_TOLD = 20
"""Names in one line of the log at most."""


def reopen(engine: Engine) -> None:
    """Opens the file, and marks what is left unfinished in it. Raises ReplicaError."""
    engine.replica.open()
    cursor = engine.replica.cursor()
    try:
        cursor.execute("BEGIN")
        state.prepare(cursor, engine.id, engine.endpoint.database)
        left = tables.drop_leftovers(cursor)
        interrupted = run_log.interrupt(cursor)
        records = state.load_tables(cursor).values()
        _mark_unfinished(cursor, engine, records)
        cursor.execute("COMMIT")
    except duckdb.Error as error:
        raise engine.replica.open_error(error) from error
    finally:
        cursor.close()
    if left:
        log.info("copy.leftovers_dropped", database=engine.id, tables=len(left))
    if interrupted:
        log.info("sync.interrupted", database=engine.id, runs=interrupted)
    _tell_indexes(engine, records)


def _mark_unfinished(
    cursor: duckdb.DuckDBPyConnection, engine: Engine, records: Iterable[state.TableRecord]
) -> None:
    """Tables whose copy the last end of the service cut short, or that a setting has changed."""
    choices = TypeChoices.of(engine.settings)
    before = state.remember(cursor, "type_choices", repr(choices))
    changed = before is not None and before != repr(choices)
    for record in records:
        if record.state in (TableState.COPYING, TableState.CATCHING_UP):
            mark = TableState.NEEDS_RESYNC if record.definition else TableState.PENDING
            state.save_table(cursor, record.name, mark, reason="the service ended during its copy")
        elif record.state is TableState.ERRORED and changed:
            # What it could not hold may be allowed now; if not, it is set aside again.
            mark = TableState.NEEDS_RESYNC if record.definition else TableState.PENDING
            reason = "a setting changed what columns become"
            state.save_table(cursor, record.name, mark, reason=reason)
        elif record.definition is not None and choices.applied_to(record.definition) != record.definition:
            # The rows there are of another type, or were converted by another rule.
            reason = "a setting changed what its columns become"
            state.save_table(cursor, record.name, TableState.NEEDS_RESYNC, reason=reason)


def _tell_indexes(engine: Engine, records: Iterable[state.TableRecord]) -> None:
    """A key's index changes nothing in the rows: a table goes on as it is until it is copied again."""
    differ = [
        record.name
        for record in records
        if record.definition is not None
        and has_key_index(record.definition)
        != has_key_index(replace(record.definition, key_index=key_indexed(engine.settings, record.name)))
    ]
    if differ:
        log.info(
            "copy.key_index_differs",
            database=engine.id,
            tables=len(differ),
            first=differ[:_TOLD],
            hint="UNINDEXED_TABLES, or unindexedTables of the database, counts when a table is copied:"
            " POST /sync/table/NAME?mode=full, or /sync/full",
        )
