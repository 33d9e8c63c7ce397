"""The stream: where it stands."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from api.models.base import Shape


class PositionAnswer(Shape):
    """A place in the binary log; `timestamp` is the source's clock there."""

    gtid: str | None
    filename: str | None
    position: int | None
    timestamp: datetime | None


class StreamAnswer(Shape):
    """Where the stream stands. Lags are null while unknown, that is before the source was first heard."""

    is_running: bool
    mode: Literal["cdc", "polling", "none"]
    mode_reason: str | None = None
    state: str
    connected_at: datetime | None
    last_event_at: datetime | None
    lag_seconds: float | None
    lag_bytes: int | None
    events_processed: int
    inserts_processed: int
    updates_processed: int
    deletes_processed: int
    transactions_processed: int
    errors: int
    reconnects: int
    last_error: str | None
    last_error_code: str | None
    hint: str | None
    queue_size: int
    current_position: PositionAnswer
    source_position: PositionAnswer


class StreamStatusAnswer(Shape):
    """The stream of one database."""

    success: bool
    enabled: bool
    status: StreamAnswer
