"""Rows of the copy made equal to the source's, by their keys, while both are written to.

The stream is held at a boundary; the rows are read from a snapshot of the source at that very boundary and
written by the writer, which has nothing of the stream behind it yet. So no newer row is overwritten, and none
is written twice.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import structlog

from cdc.engine import Engine
from cdc.errors import NotPossibleError, SchemaMismatchError, ValueDecodeError
from cdc.position import Position
from cdc.replica import state
from cdc.replica.apply import apply_rows
from cdc.runs import Run
from cdc.schema import Table, quote_mysql
from cdc.source.rows import DELETE, INSERT
from cdc.status import TableState
from cdc.stream_loop import StreamLoop
from cdc.types import row_schema
from cdc.validation.moment import MovedOnError, check_position, held_moment
from cdc.validation.sides import SourceSide

log = structlog.get_logger(__name__)

HELD_KEYS = 1_000
"""Keys repaired while the stream is held once: some milliseconds."""
_TRIES = 3
"""How often a part is repaired anew because the stream was lost while it was held."""

Key = tuple[Any, ...]


def repair_rows(engine: Engine, stream: StreamLoop, table: Table, keys: Collection[Key], run: Run) -> int:
    """Makes the rows of `keys` what they are at the source; returns how many keys were looked after.

    A key is the values of `table.primary_key`, in its order, as DuckDB's Python client gives them (TIME as
    timedelta, BINARY as bytes). A row that the source lacks is removed, one that the copy lacks is inserted.
    `table` is the definition that the copy has (`TableRecord.definition`). Parts of 1,000 keys are each
    repaired at one transaction boundary. Raises NotPossibleError for a table without a key,
    SchemaMismatchError where the table has changed meanwhile, SourceError, ReplicaError, ConflictError where
    the stream is not connected, RunCancelledError.
    """
    if not table.primary_key:
        raise NotPossibleError(
            f"table {table.name} has no key by which single rows could be repaired",
            hint=f"POST /sync/table/{table.name}",
            code="NO_KEY",
        )
    done = 0
    remaining = iter(sorted(set(keys), key=repr))
    while part := list(islice(remaining, HELD_KEYS)):
        for attempt in range(1, _TRIES + 1):
            try:
                _repair(engine, stream, table, part, run)
            except MovedOnError:
                if attempt == _TRIES:
                    raise
            else:
                break
        done += len(part)
    engine.metrics.rows_repaired(table.name, done)
    log.info("repair.done", database=engine.id, table=table.name, rows=done)
    return done


def _repair(engine: Engine, stream: StreamLoop, table: Table, keys: Sequence[Key], run: Run) -> None:
    with held_moment(engine, stream, [table], run) as (snapshot, position):
        source = SourceSide(snapshot, table)
        removals = _removals(table, keys)

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            _check(cursor, engine.id, table, position)
            engine.replica.make_room(cursor, {table.name: len(keys)})
            _apply(cursor, table, removals, DELETE)
            # A collation may take another key for the same: that row is the source's, and as good as any.
            for rows in source.rows_where(_condition(table, keys)):
                _apply(cursor, table, rows, INSERT)

        engine.writer.submit(job).result()


def _apply(cursor: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table, operation: int) -> None:
    # Every key counts as existing and is deleted first: nothing is left to replace.
    operations = np.full(len(rows), operation)
    apply_rows(cursor, table, table.name, rows, operations, overlap=True, replace=False)


def _check(cursor: duckdb.DuckDBPyConnection, database_id: str, table: Table, position: Position) -> None:
    """Raises unless the copy is where the rows were read, and the table what it was."""
    check_position(cursor, database_id, position)
    record = state.load_tables(cursor).get(table.name)
    if record is None or record.state is not TableState.STREAMING or record.definition != table:
        raise SchemaMismatchError(
            f"table {table.name} changed while its rows were repaired", hint="validate again"
        )


def _removals(table: Table, keys: Sequence[Key]) -> pa.Table:
    """Rows of which only the keys are filled in: that is all that a removal looks at."""
    schema = row_schema(table)
    values = dict(zip(table.primary_key, zip(*keys, strict=True), strict=True))
    try:
        return pa.Table.from_arrays(
            [
                pa.array(values[column.name], type=field.type)
                if column.name in values
                else pa.nulls(len(keys), field.type)
                for column, field in zip(table.columns, schema, strict=True)
            ],
            schema=schema,
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError, KeyError) as error:
        raise ValueDecodeError(f"a key is none of table {table.name}") from error


def _condition(table: Table, keys: Sequence[Key]) -> str:
    columns = ", ".join(quote_mysql(name) for name in table.primary_key)
    rows = ", ".join("(" + ", ".join(map(literal, key)) + ")" for key in keys)
    return f"({columns}) IN ({rows})"


def literal(value: Any) -> str:
    """A value of a key in the source's SQL. Raises ValueDecodeError for what can't stand in a key."""
    match value:
        case bool():
            return str(int(value))
        case int() | Decimal():
            return format(value, "f") if isinstance(value, Decimal) else str(value)
        case float():
            return f"{value!r}e0" if "e" not in repr(value) else repr(value)
        case str():
            return f"_utf8mb4 x'{value.encode().hex()}'"
        case bytes():
            return f"x'{value.hex()}'"
        case datetime.datetime():
            return f"TIMESTAMP'{value.isoformat(' ', 'microseconds')}'"
        case datetime.date():
            return f"DATE'{value.isoformat()}'"
        case datetime.timedelta():
            return f"TIME'{_span(value)}'"
        case _:
            raise ValueDecodeError(f"a value of type {type(value).__name__} can't stand in a key")


def _span(value: datetime.timedelta) -> str:
    sign = "-" if value < datetime.timedelta(0) else ""
    seconds, microseconds = divmod(abs(value) // datetime.timedelta(microseconds=1), 1_000_000)
    return f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{microseconds:06d}"
