"""The bookkeeping: position and table states, in the file's own schema `_duckling`.

Every function takes the cursor of the transaction it is to be part of, so that what it records is committed
together with the rows it speaks of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from cdc.errors import BinlogError, ReplicaFileError, SourceMismatchError
from cdc.position import Flavor, Position
from cdc.replica import prepared, run_log, schema_history, watermarks
from cdc.schema import Table
from cdc.status import TableState

FORMAT = 1
"""The version of this schema; a file of a later one is refused."""

_CREATE = """
CREATE SCHEMA IF NOT EXISTS _duckling;
CREATE TABLE IF NOT EXISTS _duckling.meta (name VARCHAR PRIMARY KEY, value VARCHAR);
CREATE TABLE IF NOT EXISTS _duckling.cdc_binlog_position (
    database_id VARCHAR, filename VARCHAR, position UBIGINT, gtid VARCHAR,
    flavor VARCHAR, server VARCHAR, source_time DOUBLE, updated_at TIMESTAMP);
CREATE TABLE IF NOT EXISTS _duckling.table_states (
    table_name VARCHAR PRIMARY KEY, state VARCHAR, reason VARCHAR, hint VARCHAR,
    definition VARCHAR, updated_at TIMESTAMP);
"""


@dataclass(frozen=True, slots=True)
class TableRecord:
    """What the bookkeeping knows of one table; `definition` is that of the replicated rows, if any."""

    name: str
    state: TableState
    reason: str | None
    hint: str | None
    definition: Table | None


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def prepare(cursor: duckdb.DuckDBPyConnection, database_id: str, source: str) -> None:
    """Makes the bookkeeping where it is missing; checks that the file is this database's copy.

    `source` names host-independent what is copied: the schema's name. Raises ReplicaFileError for a file
    of a later format or with damaged bookkeeping, SourceMismatchError for the copy of another schema.
    """
    try:
        _prepare(cursor, database_id, source)
        position = load_position(cursor, database_id)
        if position is not None:
            position.gtid_state()
        load_tables(cursor)
    except (KeyError, TypeError, ValueError, BinlogError, duckdb.Error) as error:
        raise ReplicaFileError(
            f"the bookkeeping in the file is damaged ({error.__class__.__name__})",
            hint="restore the file from a backup, or set DUCKDB_PATH to a new one: everything is copied again",
        ) from error


def _prepare(cursor: duckdb.DuckDBPyConnection, database_id: str, source: str) -> None:
    cursor.execute(_CREATE)
    cursor.execute(run_log.CREATE)
    cursor.execute(schema_history.CREATE)
    cursor.execute(watermarks.CREATE)
    cursor.execute(prepared.CREATE)
    known = dict(cursor.execute("SELECT name, value FROM _duckling.meta").fetchall())
    if not known:
        cursor.execute(
            "INSERT INTO _duckling.meta VALUES ('format', ?), ('database_id', ?), ('source', ?)",
            [str(FORMAT), database_id, source],
        )
        return
    if int(known["format"]) > FORMAT:
        raise ReplicaFileError(
            f"the file was written by a later version of Duckling (format {known['format']})",
            hint="upgrade Duckling, or set DUCKDB_PATH to a new file",
        )
    if known["source"] != source:
        raise SourceMismatchError(
            f"the file is a copy of database {known['source']!r}, not of {source!r}",
            hint="set DUCKDB_PATH to a file of its own for each database",
        )


def remember(cursor: duckdb.DuckDBPyConnection, name: str, value: str) -> str | None:
    """Keeps `value` under `name`; returns what was kept before, None where nothing was."""
    before = cursor.execute("SELECT value FROM _duckling.meta WHERE name = ?", [name]).fetchall()
    cursor.execute(
        "INSERT INTO _duckling.meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [name, value],
    )
    return str(before[0][0]) if before else None


def load_position(cursor: duckdb.DuckDBPyConnection, database_id: str) -> Position | None:
    """The boundary up to which every streaming table is applied; None before the first copy."""
    row = cursor.execute(
        "SELECT flavor, server, filename, position, gtid, source_time"
        " FROM _duckling.cdc_binlog_position WHERE database_id = ?",
        [database_id],
    ).fetchall()
    if not row:
        return None
    flavor, server, filename, offset, gtid, source_time = row[0]
    kind: Flavor = "mariadb" if flavor == "mariadb" else "mysql"
    return Position(kind, server, filename, offset, gtid, source_time)


def save_position(cursor: duckdb.DuckDBPyConnection, database_id: str, position: Position) -> None:
    """Moves the position, as part of the caller's transaction."""
    values = [
        position.file,
        position.offset,
        position.gtid,
        position.flavor,
        position.server,
        position.timestamp,
        _now(),
        database_id,
    ]
    updated = cursor.execute(
        "UPDATE _duckling.cdc_binlog_position SET filename = ?, position = ?, gtid = ?, flavor = ?,"
        " server = ?, source_time = ?, updated_at = ? WHERE database_id = ?",
        values,
    ).fetchall()
    if updated[0][0] == 0:
        cursor.execute(
            "INSERT INTO _duckling.cdc_binlog_position"
            " (filename, position, gtid, flavor, server, source_time, updated_at, database_id)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )


def forget_position(cursor: duckdb.DuckDBPyConnection, database_id: str) -> None:
    """No position: the next start copies everything."""
    cursor.execute("DELETE FROM _duckling.cdc_binlog_position WHERE database_id = ?", [database_id])


def load_tables(cursor: duckdb.DuckDBPyConnection) -> dict[str, TableRecord]:
    """All known tables by name."""
    rows = cursor.execute(
        "SELECT table_name, state, reason, hint, definition FROM _duckling.table_states ORDER BY table_name"
    ).fetchall()
    return {
        name: TableRecord(
            name, TableState(state), reason, hint, Table.from_json(definition) if definition else None
        )
        for name, state, reason, hint, definition in rows
    }


def save_table(
    cursor: duckdb.DuckDBPyConnection,
    name: str,
    state: TableState,
    *,
    definition: Table | None = None,
    reason: str | None = None,
    hint: str | None = None,
) -> None:
    """Records a table's state. Without `definition` the one already recorded stays."""
    save_tables(cursor, {name: definition}, state, reason=reason, hint=hint)


def save_tables(
    cursor: duckdb.DuckDBPyConnection,
    definitions: Mapping[str, Table | None],
    state: TableState,
    *,
    reason: str | None = None,
    hint: str | None = None,
) -> None:
    """Records the state of several tables by name, in one statement: as `save_table` for each."""
    texts = [table.to_json() if table is not None else None for table in definitions.values()]
    cursor.execute(
        "INSERT INTO _duckling.table_states"
        " SELECT unnest(?::VARCHAR[]), ?, ?, ?, unnest(?::VARCHAR[]), ?"
        " ON CONFLICT (table_name) DO UPDATE SET state = excluded.state, reason = excluded.reason,"
        " hint = excluded.hint, definition = coalesce(excluded.definition, definition),"
        " updated_at = excluded.updated_at",
        [list(definitions), state.value, reason, hint, texts, _now()],
    )


def forget_table(cursor: duckdb.DuckDBPyConnection, name: str) -> None:
    """The table is gone."""
    cursor.execute("DELETE FROM _duckling.table_states WHERE table_name = ?", [name])
    watermarks.forget_watermarks(cursor, [name])
