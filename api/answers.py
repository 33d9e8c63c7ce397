"""Answers as JSON: what the engine tells, in the shapes of `api.models`, times in ISO 8601 UTC."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from api.models import (
    ComparisonAnswer,
    DatabaseAnswer,
    DifferenceAnswer,
    PositionAnswer,
    RepairAnswer,
    RunEntry,
    StreamAnswer,
    SyncAnswer,
    SyncDetails,
    SyncLogAnswer,
    TableProgressAnswer,
    TableResultAnswer,
    TableStateAnswer,
    ValidationAnswer,
    Watermark,
)
from cdc.registered import Registered
from cdc.replica.run_log import RunRecord
from cdc.replica.watermarks import Watermark as WatermarkRecord
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


class Answer(Response):
    """A JSON answer."""

    media_type = "application/json"

    def __init__(
        self, body: object, status_code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(body, status_code, headers)

    def render(self, content: object) -> bytes:
        """`content` as UTF-8 JSON; a time without a zone is UTC."""
        return orjson.dumps(content, default=_plain, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z)


def _plain(value: object) -> object:
    """The set fields of a shape, by their names in JSON: one level, the encoder comes back for the next."""
    if isinstance(value, BaseModel):
        given = value.model_fields_set
        return {key: getattr(value, name) for name, key in _keys(type(value)) if name in given}
    raise TypeError(type(value).__name__)


@cache
def _keys(model: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    return tuple((name, field.alias or name) for name, field in model.model_fields.items())


def position(place: PositionStatus) -> PositionAnswer:
    """A place in the binary log."""
    return PositionAnswer(
        gtid=place.gtid, filename=place.filename, position=place.position, timestamp=place.timestamp
    )


def table_state(table: TableStatus) -> TableStateAnswer:
    """Where one table stands."""
    return TableStateAnswer(
        table=table.table, state=table.state.value, rows=table.rows, error=table.reason, hint=table.hint
    )


def stream_status(status: PipelineStatus) -> StreamAnswer:
    """The `status` of `GET /cdc/status`."""
    return StreamAnswer(
        is_running=status.running,
        mode=status.mode,
        mode_reason=status.mode_reason,
        state=status.state.value,
        connected_at=status.connected_at,
        last_event_at=status.last_event_at,
        lag_seconds=status.lag_seconds,
        lag_bytes=status.lag_bytes,
        events_processed=status.events,
        inserts_processed=status.inserts,
        updates_processed=status.updates,
        deletes_processed=status.deletes,
        transactions_processed=status.transactions,
        errors=status.errors,
        reconnects=status.reconnects,
        last_error=status.last_error,
        last_error_code=status.last_error_code,
        hint=status.hint,
        queue_size=status.queue_size,
        current_position=position(status.current),
        source_position=position(status.source),
    )


def sync_result(result: SyncResult) -> SyncAnswer:
    """What a run over many tables did."""
    failed = sum(table.status == "error" for table in result.tables)
    return SyncAnswer(
        total_tables=len(result.tables),
        successful_tables=len(result.tables) - failed,
        failed_tables=failed,
        total_records=result.total,
        total_duration=result.duration_ms,
        errors=list(result.errors),
        sync_details=SyncDetails(
            snapshots=result.snapshots,
            micro_batches=result.micro_batches,
            append_operations=result.append_operations,
        ),
        tables=[table_result(table) for table in result.tables],
        deletes_seen=result.deletes_seen,
        new_rows_only=list(result.new_rows_only),
    )


def table_result(result: TableResult) -> TableResultAnswer:
    """What a run did to one table; `error` only where there is one, `deletesSeen` only where it is false."""
    optional: dict[str, Any] = {} if result.error is None else {"error": result.error}
    if not result.deletes_seen:
        optional["deletes_seen"] = False
    return TableResultAnswer(
        table=result.table,
        records_processed=result.records,
        duration=result.duration_ms,
        status=result.status,
        sync_type=result.sync_type,
        **optional,
    )


def table_progress(progress: TableProgress) -> TableProgressAnswer:
    """One table of a run under way."""
    return TableProgressAnswer(
        table=progress.table,
        state=progress.state,
        rows_done=progress.rows,
        estimated_rows=progress.estimated_rows,
        rows_per_second=round(progress.rows / progress.seconds) if progress.seconds > 0 else 0,
        duration=round(progress.seconds * 1000),
        error=progress.error,
    )


def log_entry(entry: SyncLogEntry) -> SyncLogAnswer:
    """One row of the log of runs."""
    return SyncLogAnswer(
        table=entry.table,
        sync_type=entry.sync_type,
        records_processed=entry.records,
        duration=entry.duration_ms,
        status=entry.status,
        error=entry.error,
        created_at=entry.created_at,
    )


def watermark(mark: WatermarkRecord) -> Watermark:
    """How far a table without a stream is."""
    return Watermark(
        table=mark.table,
        last_processed_id=mark.last_key,
        last_processed_timestamp=mark.timestamp.replace(" ", "T") if mark.timestamp else None,
        timestamp_column=mark.column,
        primary_key_column=mark.key or None,
        updated_at=mark.updated_at,
    )


def run_entry(record: RunRecord) -> RunEntry:
    """A run as recorded."""
    return RunEntry(
        run_id=record.id,
        kind=record.kind,
        tables=list(record.tables),
        automatic=record.automatic,
        status=record.status,
        records_processed=record.records,
        duration=record.duration_ms,
        error=record.error,
        error_code=record.error_code,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )


def comparison(result: TableComparison) -> ComparisonAnswer:
    """Source and copy of one table."""
    both = result.source_rows is not None and result.replica_rows is not None
    optional: dict[str, object] = {}
    if result.missing is not None:
        optional = {
            "missing": result.missing,
            "extra": result.extra,
            "changed": result.changed,
            "complete": result.complete,
        }
    if result.differences:
        optional["firstDifferences"] = [
            DifferenceAnswer(kind=each.kind, key=each.key) for each in result.differences
        ]
    if result.repair is not None:
        optional["repair"] = RepairAnswer(rows=result.repair.rows, copied_again=result.repair.copied_again)
    if result.error is not None:
        optional["error"] = result.error
    return ComparisonAnswer.model_validate(
        {
            "table": result.table,
            "mysqlCount": result.source_rows,
            "duckdbCount": result.replica_rows,
            "difference": (result.source_rows or 0) - (result.replica_rows or 0) if both else None,
            "matches": result.matches,
            **optional,
        }
    )


def validation(report: ValidationReport) -> ValidationAnswer:
    """Source and copy of every table compared; `accuracy` is the per cent of tables that match."""
    results = [comparison(result) for result in report.results]
    mismatches = [result for result in results if not result.matches]
    matching = len(results) - len(mismatches)
    return ValidationAnswer(
        mode=report.mode,
        position=position(report.position),
        at_one_position=report.at_one_position,
        total_tables=len(results),
        matching_tables=matching,
        mismatched_tables=len(mismatches),
        mismatches=mismatches,
        accuracy=round(100.0 * matching / len(results), 2) if results else 100.0,
        results=results,
        duration=report.duration_ms,
    )


def database(entry: Registered) -> DatabaseAnswer:
    """A database of the service, its password masked."""
    definition = entry.definition
    assert definition is not None
    status = entry.status()
    return DatabaseAnswer(
        id=entry.id,
        name=definition.name,
        mysql_connection_string=definition.masked_url,
        duckdb_path=definition.duckdb_path,
        included_tables=list(definition.included_tables),
        excluded_tables=list(definition.excluded_tables),
        unindexed_tables=None if definition.unindexed_tables is None else list(definition.unindexed_tables),
        cdc_enabled=definition.cdc_enabled,
        sync_interval_minutes=definition.sync_interval_minutes,
        editable=not entry.fixed,
        state=status.state.value,
        error=status.last_error,
        error_code=status.last_error_code,
    )
