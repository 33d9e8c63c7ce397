"""The schema changes that the stream met: which statement, where in the log, and what became of the table.

Each is recorded in the transaction that carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import duckdb

from cdc.position import Position

CREATE = """
CREATE SEQUENCE IF NOT EXISTS _duckling.schema_changes_id;
CREATE TABLE IF NOT EXISTS _duckling.schema_changes (
    id BIGINT DEFAULT nextval('_duckling.schema_changes_id'), table_name VARCHAR, statement VARCHAR,
    kind VARCHAR, outcome VARCHAR, reason VARCHAR, filename VARCHAR, position UBIGINT, gtid VARCHAR,
    source_time TIMESTAMP, recorded_at TIMESTAMP);
"""

_KEPT = 10_000


class Outcome(StrEnum):
    """What became of a table by a statement."""

    APPLIED = "applied"
    """Carried out in place, in one DuckDB transaction with the position."""
    REBUILT = "rebuilt"
    """The same, through a new table: DuckDB could not alter the old one."""
    COPIED_AGAIN = "copied again"
    """Taken out of the stream at this place, to be copied and to join again; `reason` says why."""
    IGNORED = "ignored"
    """Nothing to do: rows and columns stay, or the settings don't choose the table."""


@dataclass(frozen=True, slots=True)
class SchemaChangeRecord:
    """One table's share in one statement. `statement` has '…' for strings; times are UTC."""

    table: str
    statement: str
    kind: str
    outcome: Outcome
    reason: str | None
    file: str
    offset: int
    gtid: str
    source_time: datetime | None
    recorded_at: datetime


def record_change(
    cursor: duckdb.DuckDBPyConnection,
    table: str,
    statement: str,
    kind: str,
    outcome: Outcome,
    reason: str | None,
    position: Position,
) -> None:
    """Adds one row, and lets the oldest go beyond 10,000. `position` is the boundary behind the statement."""
    at = position.timestamp
    source_time = None if at is None else datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
    cursor.execute(
        "INSERT INTO _duckling.schema_changes (table_name, statement, kind, outcome, reason, filename, position,"
        " gtid, source_time, recorded_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            table,
            statement,
            kind,
            outcome.value,
            reason,
            position.file,
            position.offset,
            position.gtid,
            source_time,
            datetime.now(UTC).replace(tzinfo=None),
        ],
    )
    cursor.execute(
        "DELETE FROM _duckling.schema_changes WHERE id <= (SELECT max(id) FROM _duckling.schema_changes) - ?",
        [_KEPT],
    )


def is_recorded(cursor: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether a statement that is still kept did something to a table of exactly this name."""
    found = cursor.execute(
        "SELECT 1 FROM _duckling.schema_changes WHERE table_name = ? AND outcome <> ? LIMIT 1",
        [table, Outcome.IGNORED.value],
    ).fetchall()
    return bool(found)


def read_changes(
    cursor: duckdb.DuckDBPyConnection, table: str | None = None, limit: int = 1000
) -> list[SchemaChangeRecord]:
    """The latest changes, newest first: of one table, by any name that it bears now, or of all."""
    rows = cursor.execute(
        "SELECT table_name, statement, kind, outcome, reason, filename, position, gtid, source_time, recorded_at"
        " FROM _duckling.schema_changes WHERE ?::VARCHAR IS NULL OR lower(table_name) = lower(?)"
        " ORDER BY id DESC LIMIT ?",
        [table, table, limit],
    ).fetchall()
    return [
        SchemaChangeRecord(
            name,
            statement,
            kind,
            Outcome(outcome),
            reason,
            file,
            offset,
            gtid,
            None if at is None else at.replace(tzinfo=UTC),
            recorded.replace(tzinfo=UTC),
        )
        for name, statement, kind, outcome, reason, file, offset, gtid, at, recorded in rows
    ]
