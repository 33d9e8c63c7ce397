"""The runs of a database: which syncs there were, how they ended, and what each did to each table.

A run is recorded when it is asked for (one that ends within a moment, with its end) and again when it ends, so that
one that a crash cut short is still there at the next start, as `interrupted`. Every function takes the cursor of the
transaction it is to be part of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from cdc.errors import InterruptedRunError
from cdc.runs import Run, RunKind
from cdc.status import SyncLogEntry, TableResult

CREATE = """
CREATE TABLE IF NOT EXISTS _duckling.runs (
    run_id VARCHAR PRIMARY KEY, kind VARCHAR, tables VARCHAR[], automatic BOOLEAN, status VARCHAR,
    records_processed BIGINT, duration_ms BIGINT, error VARCHAR, error_code VARCHAR,
    started_at TIMESTAMP, ended_at TIMESTAMP);
CREATE SEQUENCE IF NOT EXISTS _duckling.sync_log_id;
CREATE TABLE IF NOT EXISTS _duckling.sync_log (
    id BIGINT DEFAULT nextval('_duckling.sync_log_id'), run_id VARCHAR, table_name VARCHAR,
    sync_type VARCHAR, records_processed BIGINT, duration_ms BIGINT, status VARCHAR, error VARCHAR,
    created_at TIMESTAMP);
"""

_KEPT = 10_000
"""Rows kept of each of both tables, and up to _PRUNED_EVERY more."""
_PRUNED_EVERY = 500
"""Rows of the log from one pruning to the next: it reads both tables, a run writes a few rows."""

SYNC_TYPES = {"full": "snapshot", "table": "snapshot", "incremental": "micro-batch", "validation": "repair"}
"""How the log calls what a run of each kind does, where no table's result says it better."""


_Entry = tuple[str | None, str, int, int, str, str | None]
"""A row of the log: table, sync type, records, milliseconds, status, error."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as recorded; `status` is running, success, error, cancelled or interrupted."""

    id: str
    kind: RunKind
    tables: tuple[str, ...]
    automatic: bool
    status: str
    records: int
    duration_ms: int
    error: str | None
    error_code: str | None
    started_at: datetime
    ended_at: datetime | None


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def begin(cursor: duckdb.DuckDBPyConnection, run: Run) -> None:
    """The run was asked for."""
    _insert(cursor, run, "running")


def _insert(
    cursor: duckdb.DuckDBPyConnection,
    run: Run,
    status: str,
    records: int = 0,
    duration_ms: int = 0,
    error: str | None = None,
    error_code: str | None = None,
    ended_at: datetime | None = None,
) -> None:
    cursor.execute(
        "INSERT INTO _duckling.runs (run_id, kind, tables, automatic, status, records_processed,"
        " duration_ms, error, error_code, started_at, ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            run.id,
            run.kind,
            list(run.tables),
            run.automatic,
            status,
            records,
            duration_ms,
            error,
            error_code,
            run.asked_at.astimezone(UTC).replace(tzinfo=None),
            ended_at,
        ],
    )


def end(
    cursor: duckdb.DuckDBPyConnection,
    run: Run,
    status: str,
    results: Iterable[TableResult] = (),
    *,
    records: int | None = None,
    duration_ms: int = 0,
    error: str | None = None,
    error_code: str | None = None,
) -> None:
    """The run has ended: one row of the log for each table, one for the whole where no table has one.

    Its beginning need not stand there: see `RunRecorder`.
    """
    results = tuple(results)
    total = sum(result.records for result in results) if records is None else records
    changed = cursor.execute(
        "UPDATE _duckling.runs SET status = ?, records_processed = ?, duration_ms = ?, error = ?,"
        " error_code = ?, ended_at = ? WHERE run_id = ?",
        [status, total, duration_ms, error, error_code, _now(), run.id],
    ).fetchall()
    if not changed[0][0]:
        _insert(cursor, run, status, total, duration_ms, error, error_code, _now())
    entries: list[_Entry] = [
        (each.table, each.sync_type, each.records, each.duration_ms, each.status, each.error)
        for each in results
    ]
    if error is not None or not results:
        entries.append((None, SYNC_TYPES[run.kind], total, duration_ms, status, error))
    _log(cursor, run.id, entries)


def interrupt(cursor: duckdb.DuckDBPyConnection) -> int:
    """Marks runs that never ended, at the start of a service; returns how many."""
    cut = cursor.execute(
        "UPDATE _duckling.runs SET status = 'interrupted', ended_at = ?,"
        " error = 'the service ended during this sync', error_code = ?"
        " WHERE status = 'running' RETURNING run_id, kind, error",
        [_now(), InterruptedRunError.code],
    ).fetchall()
    for run_id, kind, error in cut:
        _log(cursor, run_id, [(None, SYNC_TYPES[kind], 0, 0, "interrupted", error)])
    return len(cut)


def find(cursor: duckdb.DuckDBPyConnection, run_id: str) -> tuple[RunRecord, tuple[TableResult, ...]] | None:
    """A recorded run with its tables' results; None where there is no such run."""
    rows = cursor.execute(
        "SELECT run_id, kind, tables, automatic, status, records_processed, duration_ms, error, error_code,"
        " started_at, ended_at FROM _duckling.runs WHERE run_id = ?",
        [run_id],
    ).fetchall()
    if not rows:
        return None
    results = cursor.execute(
        "SELECT table_name, records_processed, duration_ms, status, sync_type, error"
        " FROM _duckling.sync_log WHERE run_id = ? AND table_name IS NOT NULL ORDER BY id",
        [run_id],
    ).fetchall()
    return _record(rows[0]), tuple(TableResult(*row) for row in results)


def latest(cursor: duckdb.DuckDBPyConnection, limit: int) -> list[RunRecord]:
    """The latest runs, newest first."""
    rows = cursor.execute(
        "SELECT run_id, kind, tables, automatic, status, records_processed, duration_ms, error, error_code,"
        " started_at, ended_at FROM _duckling.runs ORDER BY started_at DESC, run_id LIMIT ?",
        [limit],
    ).fetchall()
    return [_record(row) for row in rows]


def read_log(cursor: duckdb.DuckDBPyConnection, limit: int) -> list[SyncLogEntry]:
    """The latest rows of the log, newest first."""
    rows = cursor.execute(
        "SELECT table_name, sync_type, records_processed, duration_ms, status, error, created_at"
        " FROM _duckling.sync_log ORDER BY id DESC LIMIT ?",
        [limit],
    ).fetchall()
    return [
        SyncLogEntry(table, sync_type, records, duration, status, error, at.replace(tzinfo=UTC))
        for table, sync_type, records, duration, status, error, at in rows
    ]


def _record(row: tuple[Any, ...]) -> RunRecord:
    run_id, kind, tables, automatic, status, records, duration, error, code, started, ended = row
    return RunRecord(
        run_id,
        kind,
        tuple(tables),
        automatic,
        status,
        records,
        duration,
        error,
        code,
        started.replace(tzinfo=UTC),
        ended.replace(tzinfo=UTC) if ended else None,
    )


def _log(cursor: duckdb.DuckDBPyConnection, run_id: str, entries: Sequence[_Entry]) -> None:
    if len(entries) == 1:  # of most runs, in half of the time
        values = "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        given: list[Any] = [run_id, *entries[0], _now()]
    else:
        values = (
            "SELECT ?, unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::BIGINT[]), unnest(?::BIGINT[]),"
            " unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), ?"
        )
        given = [run_id, *(list(column) for column in zip(*entries, strict=True)), _now()]
    ids = cursor.execute(
        "INSERT INTO _duckling.sync_log (run_id, table_name, sync_type, records_processed, duration_ms,"
        f" status, error, created_at) {values} RETURNING id",
        given,
    ).fetchall()
    newest = max(ids)[0]
    if newest % _PRUNED_EVERY < len(entries):
        _prune(cursor, newest)


def _prune(cursor: duckdb.DuckDBPyConnection, newest: int) -> None:
    cursor.execute("DELETE FROM _duckling.sync_log WHERE id <= ?", [newest - _KEPT])
    cursor.execute(
        "DELETE FROM _duckling.runs WHERE started_at <"
        " (SELECT started_at FROM _duckling.runs ORDER BY started_at DESC LIMIT 1 OFFSET ?)",
        [_KEPT],
    )
