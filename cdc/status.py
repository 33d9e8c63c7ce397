"""What a pipeline tells about itself: states, runs and results. Shared words without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal


class TableState(StrEnum):
    """Where one table stands. Allowed moves: see `MOVES`."""

    PENDING = "pending"
    """Known at the source, not copied yet."""
    COPYING = "copying"
    """Rows of one consistent snapshot go into a staging table; readers see the old table, or none."""
    CATCHING_UP = "catching_up"
    """The staging table follows the binary log from the snapshot on, until it meets the stream."""
    STREAMING = "streaming"
    """The table is live: every transaction is applied together with the position."""
    ERRORED = "errored"
    """A row or a schema can't be applied; the table keeps its last good state. `reason` says why."""
    NEEDS_RESYNC = "needs_resync"
    """The table must be copied again; the pipeline does so by itself where it can."""


MOVES: dict[TableState, frozenset[TableState]] = {
    TableState.PENDING: frozenset({TableState.COPYING, TableState.ERRORED}),
    TableState.COPYING: frozenset(
        {TableState.CATCHING_UP, TableState.PENDING, TableState.ERRORED, TableState.NEEDS_RESYNC}
    ),
    TableState.CATCHING_UP: frozenset(
        {TableState.STREAMING, TableState.PENDING, TableState.ERRORED, TableState.NEEDS_RESYNC}
    ),
    TableState.STREAMING: frozenset({TableState.COPYING, TableState.ERRORED, TableState.NEEDS_RESYNC}),
    TableState.ERRORED: frozenset({TableState.COPYING, TableState.NEEDS_RESYNC}),
    TableState.NEEDS_RESYNC: frozenset({TableState.COPYING, TableState.ERRORED}),
}


class PipelineState(StrEnum):
    """Where one database's pipeline stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    COPYING = "copying"
    """The first copy is under way; there is nothing to stream into yet."""
    STREAMING = "streaming"
    RETRYING = "retrying"
    """The source can't be reached or refuses; tried again with growing pauses."""
    NEEDS_RESYNC = "needs_resync"
    """The binary log at our position is gone: `POST /sync/full`."""
    FAILED = "failed"
    """Stopped by an error that waits for a human; `last_error` and its hint say which."""
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class PositionStatus:
    """A place in the binary log, for people; `timestamp` is the source's clock at that place."""

    gtid: str | None = None
    filename: str | None = None
    position: int | None = None
    timestamp: datetime | None = None


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table as the replica has it. `rows` is DuckDB's count; `reason`, `hint` where it is errored."""

    table: str
    state: TableState
    rows: int | None = None
    reason: str | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """One database's pipeline. Lags are None while unknown (before the first contact with the source)."""

    id: str
    state: PipelineState
    mode: Literal["cdc", "polling", "none"]
    running: bool
    enabled: bool
    connected_at: datetime | None = None
    last_event_at: datetime | None = None
    lag_seconds: float | None = None
    lag_bytes: int | None = None
    events: int = 0
    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    transactions: int = 0
    errors: int = 0
    reconnects: int = 0
    last_error: str | None = None
    last_error_code: str | None = None
    hint: str | None = None
    queue_size: int = 0
    current: PositionStatus = PositionStatus()
    source: PositionStatus = PositionStatus()
    tables: tuple[TableStatus, ...] = ()


SyncType = Literal["snapshot", "micro-batch", "append"]


@dataclass(slots=True)
class TableProgress:
    """One table of a run under way."""

    table: str
    state: str = "waiting"
    """waiting, copying, catching_up, done, error or cancelled."""
    rows: int = 0
    estimated_rows: int = 0
    seconds: float = 0.0
    """Time spent on this table so far."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TableResult:
    """What a run did to one table; `duration_ms` in milliseconds."""

    table: str
    records: int
    duration_ms: int
    status: Literal["success", "error"]
    sync_type: SyncType
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a run did. Durations in milliseconds."""

    tables: tuple[TableResult, ...]
    duration_ms: int
    errors: tuple[str, ...] = ()
    snapshots: int = 0
    micro_batches: int = 0
    append_operations: int = 0
    records: int | None = None
    """Rows in all, where they are not counted by table."""

    @property
    def total(self) -> int:
        """Rows in all."""
        return sum(table.records for table in self.tables) if self.records is None else self.records


@dataclass(frozen=True, slots=True)
class SyncLogEntry:
    """One row of `_duckling.sync_log`."""

    table: str | None
    sync_type: str
    records: int
    duration_ms: int
    status: str
    error: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class TableComparison:
    """Source and copy of one table at one position; `differences` are sample keys, where asked for."""

    table: str
    source_rows: int | None
    replica_rows: int | None
    matches: bool
    differences: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Source and copy compared at ONE position, both of them possibly being written to meanwhile."""

    mode: Literal["count", "checksum"]
    position: PositionStatus
    results: tuple[TableComparison, ...] = field(default=())
    duration_ms: int = 0

    @property
    def equal(self) -> bool:
        """Whether every table matches."""
        return all(result.matches for result in self.results)
