"""What a pipeline tells about itself: states, runs and results. Shared words without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal


class TableState(StrEnum):
    """Where one table stands."""

    PENDING = "pending"
    """Known at the source, not copied yet."""
    COPYING = "copying"
    """Rows of one consistent snapshot go into a staging table; readers see the old table, or none."""
    CATCHING_UP = "catching_up"
    """The staging table follows the binary log from the snapshot on, until it meets the stream."""
    STREAMING = "streaming"
    """The table is live: every transaction is applied together with the position."""
    POLLING = "polling"
    """The table is live without a stream: watermark syncs bring what is newer."""
    ERRORED = "errored"
    """A row or a schema can't be applied; the table keeps its last good state. `reason` says why."""
    NEEDS_RESYNC = "needs_resync"
    """The table must be copied again; the pipeline does so by itself where it can."""


class PipelineState(StrEnum):
    """Where one database's pipeline stands."""

    STOPPED = "stopped"
    STARTING = "starting"
    COPYING = "copying"
    """The first copy is under way; there is nothing to stream into yet."""
    STREAMING = "streaming"
    POLLING = "polling"
    """The binary log is not followed: watermark syncs bring what is newer, on a schedule."""
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
    mode_reason: str | None = None
    """Why the copy is polled, where it is."""
    connected_at: datetime | None = None
    last_event_at: datetime | None = None
    lag_seconds: float | None = None
    lag_bytes: int | None = None
    clock_offset: float | None = None
    """Seconds by which the source's clock is ahead of ours; None while unknown."""
    writer_busy: float = 0.0
    """Seconds for which the writer has been at the same piece of work."""
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


SyncType = Literal["snapshot", "micro-batch", "append", "repair"]


@dataclass(slots=True)
class TableProgress:
    """One table of a run under way."""

    table: str
    state: str = "waiting"
    """waiting, copying, catching_up, comparing, done, error or cancelled."""
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
    deletes_seen: bool = True
    """Whether rows that are gone at the source are gone here too; a watermark sync can't see them."""
    updates_seen: bool = True
    """Whether changed rows are here too, not new ones alone."""


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

    @property
    def deletes_seen(self) -> bool:
        """Whether the run saw the rows that are gone from any of its tables."""
        return all(table.deletes_seen for table in self.tables)

    @property
    def new_rows_only(self) -> tuple[str, ...]:
        """Tables of which it saw new rows, but no changed ones."""
        return tuple(table.table for table in self.tables if not table.updates_seen)


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
class RowDifference:
    """A row that the copy lacks, has in excess or has otherwise.

    `key` is that of the row, column by column, as text; empty in a table without one.
    """

    kind: Literal["missing", "extra", "changed"]
    key: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TableRepair:
    """What a repair did: rows written and removed at one boundary, or the whole table asked to be copied."""

    rows: int = 0
    copied_again: bool = False


@dataclass(frozen=True, slots=True)
class TableComparison:
    """Source and copy of one table at one position.

    A comparison of contents also tells how many rows differ, at least those where `complete` is false, and
    the first of them. `error` says why the table could not be compared: then it does not match.
    """

    table: str
    source_rows: int | None
    replica_rows: int | None
    matches: bool
    missing: int | None = None
    extra: int | None = None
    changed: int | None = None
    complete: bool = True
    differences: tuple[RowDifference, ...] = ()
    repair: TableRepair | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """Source and copy compared, both of them possibly being written to meanwhile.

    `position` is the ONE place that both were read at. Without a stream there is none (`at_one_position` is
    false): then a row that was written while both were looked at counts as a difference.
    """

    mode: Literal["count", "checksum"]
    position: PositionStatus
    results: tuple[TableComparison, ...] = field(default=())
    duration_ms: int = 0
    at_one_position: bool = True

    @property
    def equal(self) -> bool:
        """Whether every table matches."""
        return all(result.matches for result in self.results)
