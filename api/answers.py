"""Answers as JSON: camelCase keys, times in ISO 8601 UTC, durations in whole milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from cdc.status import (
    PipelineStatus,
    PositionStatus,
    SyncLogEntry,
    SyncResult,
    TableComparison,
    TableProgress,
    TableResult,
    TableStatus,
    ValidationReport,
)

Json = dict[str, Any]


class Answer(Response):
    """A JSON answer."""

    media_type = "application/json"

    def __init__(
        self, body: object, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(body, status_code, headers)

    def render(self, content: object) -> bytes:
        """`content` as UTF-8 JSON; a time without a zone is UTC."""
        return orjson.dumps(content, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z)


def position(place: PositionStatus) -> Json:
    """A place in the binary log."""
    return {
        "gtid": place.gtid,
        "filename": place.filename,
        "position": place.position,
        "timestamp": place.timestamp,
    }


def table_state(table: TableStatus) -> Json:
    """Where one table stands."""
    return {
        "table": table.table,
        "state": table.state.value,
        "rows": table.rows,
        "error": table.reason,
        "hint": table.hint,
    }


def stream_status(status: PipelineStatus) -> Json:
    """The `status` of `GET /cdc/status`."""
    return {
        "isRunning": status.running,
        "mode": status.mode,
        "state": status.state.value,
        "connectedAt": status.connected_at,
        "lastEventAt": status.last_event_at,
        "lagSeconds": status.lag_seconds,
        "lagBytes": status.lag_bytes,
        "eventsProcessed": status.events,
        "insertsProcessed": status.inserts,
        "updatesProcessed": status.updates,
        "deletesProcessed": status.deletes,
        "transactionsProcessed": status.transactions,
        "errors": status.errors,
        "reconnects": status.reconnects,
        "lastError": status.last_error,
        "lastErrorCode": status.last_error_code,
        "hint": status.hint,
        "queueSize": status.queue_size,
        "currentPosition": position(status.current),
        "sourcePosition": position(status.source),
    }


def sync_result(result: SyncResult) -> Json:
    """What a run over many tables did."""
    failed = sum(table.status == "error" for table in result.tables)
    return {
        "totalTables": len(result.tables),
        "successfulTables": len(result.tables) - failed,
        "failedTables": failed,
        "totalRecords": result.total,
        "totalDuration": result.duration_ms,
        "errors": list(result.errors),
        "syncDetails": {
            "snapshots": result.snapshots,
            "microBatches": result.micro_batches,
            "appendOperations": result.append_operations,
        },
    }


def table_result(result: TableResult) -> Json:
    """What a run did to one table; `error` only where there is one."""
    body: Json = {
        "table": result.table,
        "recordsProcessed": result.records,
        "duration": result.duration_ms,
        "status": result.status,
        "syncType": result.sync_type,
    }
    if result.error is not None:
        body["error"] = result.error
    return body


def table_progress(progress: TableProgress) -> Json:
    """One table of a run under way."""
    return {
        "table": progress.table,
        "state": progress.state,
        "rowsDone": progress.rows,
        "estimatedRows": progress.estimated_rows,
        "rowsPerSecond": round(progress.rows / progress.seconds) if progress.seconds > 0 else 0,
        "duration": round(progress.seconds * 1000),
        "error": progress.error,
    }


def log_entry(entry: SyncLogEntry) -> Json:
    """One row of the log of runs."""
    return {
        "table": entry.table,
        "syncType": entry.sync_type,
        "recordsProcessed": entry.records,
        "duration": entry.duration_ms,
        "status": entry.status,
        "error": entry.error,
        "createdAt": entry.created_at,
    }


def comparison(result: TableComparison) -> Json:
    """Source and copy of one table."""
    both = result.source_rows is not None and result.replica_rows is not None
    body: Json = {
        "table": result.table,
        "mysqlCount": result.source_rows,
        "duckdbCount": result.replica_rows,
        "difference": (result.source_rows or 0) - (result.replica_rows or 0) if both else None,
        "matches": result.matches,
    }
    if result.differences:
        body["firstDifferences"] = list(result.differences)
    if result.error is not None:
        body["error"] = result.error
    return body


def validation(report: ValidationReport) -> Json:
    """Source and copy of every table compared; `accuracy` is the per cent of tables that match."""
    results = [comparison(result) for result in report.results]
    mismatches = [result for result in results if not result["matches"]]
    matching = len(results) - len(mismatches)
    return {
        "mode": report.mode,
        "position": position(report.position),
        "totalTables": len(results),
        "matchingTables": matching,
        "mismatchedTables": len(mismatches),
        "mismatches": mismatches,
        "accuracy": round(100.0 * matching / len(results), 2) if results else 100.0,
        "results": results,
        "duration": report.duration_ms,
    }
