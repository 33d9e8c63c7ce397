"""What one database tells about itself, put together from its parts."""

from __future__ import annotations

from datetime import UTC, datetime

import duckdb

from cdc.engine import Engine
from cdc.errors import ReplicaError
from cdc.replica import state
from cdc.source_monitor import SourceMonitor
from cdc.status import (
    PipelineState,
    PipelineStatus,
    PositionStatus,
    TableProgress,
    TableState,
    TableStatus,
)
from cdc.syncs import Syncs

_TROUBLED = (PipelineState.RETRYING, PipelineState.FAILED, PipelineState.NEEDS_RESYNC)


def pipeline_status(
    engine: Engine, syncs: Syncs, monitor: SourceMonitor, *, opened: bool, started: bool
) -> PipelineStatus:
    """How things stand now; `opened` and `started` say what of the pipeline there is to look at."""
    stream = syncs.stream
    # The state before the error: a stream sets its error first, so a failure is never told without its reason.
    state_now = _state(engine, syncs) if started or syncs.stopping else PipelineState.STOPPED
    counts = stream.counts()
    troubled = state_now in _TROUBLED or stream.state is not PipelineState.STREAMING
    error = stream.last_error if troubled else None
    error = error or syncs.last_error or engine.writer.checkpoint_error
    position = stream.applied
    tables: tuple[TableStatus, ...] = ()
    try:
        if opened:
            position = position or engine.position()
            tables = _table_statuses(engine, syncs)
    except ReplicaError as unreadable:  # it is being opened again: that is to be told as well
        error = error or unreadable
    return PipelineStatus(
        id=engine.id,
        state=state_now,
        mode=syncs.mode,
        mode_reason=syncs.mode_reason,
        running=stream.reader is not None,
        enabled=syncs.mode != "none",
        connected_at=stream.connected_at,
        last_event_at=_moment(counts.last_event),
        lag_seconds=syncs.fallback.schedule.age() if syncs.mode == "polling" else stream.lag_seconds(),
        lag_bytes=monitor.lag_bytes,
        clock_offset=engine.lag.clock_offset,
        writer_busy=engine.writer.busy_seconds,
        events=counts.events,
        inserts=counts.inserts,
        updates=counts.updates,
        deletes=counts.deletes,
        transactions=counts.transactions,
        errors=stream.errors,
        reconnects=stream.reconnects,
        last_error=error.message if error else None,
        last_error_code=error.code if error else None,
        hint=error.hint if error else None,
        queue_size=engine.writer.queued,
        current=position.status() if position else PositionStatus(),
        source=monitor.end.status() if monitor.end else PositionStatus(),
        tables=tables,
    )


def _state(engine: Engine, syncs: Syncs) -> PipelineState:
    if syncs.stopping:
        return PipelineState.STOPPING
    if not engine.writer.alive or not syncs.alive:
        return PipelineState.FAILED
    if syncs.stream.running:
        return syncs.stream.state
    if syncs.mode == "polling" and syncs.fallback.schedule.age() is not None:
        return PipelineState.RETRYING if syncs.retrying else PipelineState.POLLING
    if syncs.queue.copying is not None:
        return PipelineState.COPYING
    if syncs.mode == "polling":
        return PipelineState.RETRYING if syncs.retrying else PipelineState.POLLING
    if syncs.retrying and syncs.stream_wanted:
        return PipelineState.RETRYING
    return syncs.stream.state


def _table_statuses(engine: Engine, syncs: Syncs) -> tuple[TableStatus, ...]:
    copying = syncs.queue.copying
    progress = {p.table: p for p in copying.progress()} if copying else {}

    def read(cursor: duckdb.DuckDBPyConnection) -> tuple[TableStatus, ...]:
        records = state.load_tables(cursor)
        rows = engine.row_counts.read(
            cursor, [record.name for record in records.values() if record.definition is not None]
        )
        return tuple(
            TableStatus(
                record.name,
                _live_state(record.state, progress.get(record.name)),
                rows.get(record.name),
                record.reason,
                record.hint,
            )
            for record in records.values()
        )

    return engine.replica.read(read)


def _live_state(recorded: TableState, progress: TableProgress | None) -> TableState:
    """A table that is copied again stays live in the file; people want to see the copy."""
    if progress is not None and progress.state in ("copying", "catching_up"):
        return TableState(progress.state)
    return recorded


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
