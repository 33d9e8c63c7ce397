"""Liveness, readiness, health, and the overview."""

from __future__ import annotations

from typing import Literal

from api.models.base import Shape
from api.models.stream import StreamAnswer
from api.models.sync import TableStateAnswer


class Alive(Shape):
    """Whether the process's threads live; a reason for each database whose do not."""

    status: Literal["alive", "not alive"]
    reasons: dict[str, str] | None = None


class Readiness(Shape):
    """Whether every enabled database is up to date; a reason for each that is not."""

    status: Literal["ready", "not ready"]
    reasons: dict[str, str] | None = None


class DatabaseHealth(Shape):
    """One database in the summary."""

    id: str
    status: Literal["healthy", "unhealthy"]
    state: str
    mode: str
    lag_seconds: float | None
    tables: int
    broken_tables: int
    error_code: str | None


class Health(Shape):
    """A readable summary."""

    status: Literal["healthy", "unhealthy"]
    version: str
    databases: list[DatabaseHealth]


class DatabaseOverview(StreamAnswer):
    """One database with its stream and its tables."""

    id: str
    enabled: bool
    tables: list[TableStateAnswer]


class Overview(Shape):
    """The service; `uptime` in milliseconds."""

    version: str
    uptime: int
    databases: list[DatabaseOverview]
