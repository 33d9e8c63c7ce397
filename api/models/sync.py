"""Syncs: what they did, where they stand, what was recorded."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.models.base import Done, ProblemAnswer, Shape
from cdc.runs import RunKind
from cdc.status import SyncType


class SyncDetails(Shape):
    """How a sync did its work."""

    snapshots: int
    micro_batches: int
    append_operations: int


class TableResultAnswer(Shape):
    """What a sync did to one table; `duration` in milliseconds."""

    table: str
    records_processed: int
    duration: int
    status: Literal["success", "error"]
    sync_type: SyncType
    error: str | None = None
    deletes_seen: bool | None = None


class SyncAnswer(Shape):
    """What a sync over many tables did; `totalDuration` in milliseconds.

    `deletesSeen` is false for a watermark sync: rows that are gone at the source are found by a validation.
    `newRowsOnly` names the tables of which it sees new rows, but no changed ones.
    """

    total_tables: int
    successful_tables: int
    failed_tables: int
    total_records: int
    total_duration: int
    errors: list[str]
    sync_details: SyncDetails
    tables: list[TableResultAnswer]
    deletes_seen: bool = True
    new_rows_only: list[str] = Field(default_factory=list)


class RunAccepted(Shape):
    """A sync or validation that was started and not waited for."""

    run_id: str
    kind: RunKind
    location: str = Field(description="Where to look; the Location header says the same.")


class TableProgressAnswer(Shape):
    """One table of a run; `duration` in milliseconds."""

    table: str = Field(description="`*` for what an incremental sync reads from the log.")
    state: str = Field(description="waiting, copying, catching_up, comparing, done, error or cancelled.")
    rows_done: int
    estimated_rows: int
    rows_per_second: int
    duration: int
    error: str | None


class RunAnswer(Shape):
    """A run, under way or done."""

    run_id: str
    kind: RunKind
    done: bool
    tables: list[TableProgressAnswer]
    result: SyncAnswer | None = None
    error: ProblemAnswer | None = None


class RunEntry(Shape):
    """A run as recorded; it survives a restart. `duration` in milliseconds."""

    run_id: str
    kind: RunKind
    tables: list[str] = Field(description="Those asked for; empty for all.")
    automatic: bool = Field(description="Whether Duckling started it by itself.")
    status: str = Field(description="running, success, error, cancelled or interrupted.")
    records_processed: int
    duration: int
    error: str | None
    error_code: str | None
    started_at: datetime
    ended_at: datetime | None


class RunsAnswer(Shape):
    """The latest runs, newest first."""

    runs: list[RunEntry]


class RunName(Shape):
    """A run by its id."""

    id: str
    kind: str


class ProgressAnswer(Shape):
    """The run under way, if there is one."""

    is_running: bool
    run: RunName | None
    tables: list[TableProgressAnswer]


class Watermark(Shape):
    """How far a table without a stream is synced."""

    table: str
    last_processed_id: str | int | None
    last_processed_timestamp: str | datetime | None
    timestamp_column: str | None
    primary_key_column: str | None
    updated_at: datetime | str | None


class SyncLogAnswer(Shape):
    """One row of the log of syncs; `duration` in milliseconds."""

    table: str | None
    sync_type: str
    records_processed: int
    duration: int
    status: str
    error: str | None
    created_at: datetime


class TableStateAnswer(Shape):
    """Where one table stands."""

    table: str
    state: str
    rows: int | None
    error: str | None
    hint: str | None


class SyncStatusAnswer(Shape):
    """Watermarks, the log of syncs (its last 100 rows) and where each table stands."""

    is_running: bool
    watermarks: list[Watermark]
    recent_logs: list[SyncLogAnswer]
    tables: list[TableStateAnswer]
    tables_processed: int
    total_records: int
    success_count: int
    error_count: int


class Cleared(Done):
    """What was dropped."""

    tables_dropped: int
