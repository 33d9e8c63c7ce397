"""The databases of the service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.models.base import Done, ProblemAnswer, Shape


class DatabaseAnswer(Shape):
    """A database. The password in its address is masked."""

    id: str
    name: str
    mysql_connection_string: str
    duckdb_path: str
    included_tables: list[str]
    excluded_tables: list[str]
    unindexed_tables: list[str] | None = Field(
        description="Tables without DuckDB's index of their key; null for those of UNINDEXED_TABLES."
    )
    cdc_enabled: bool
    sync_interval_minutes: int
    editable: bool = Field(description="False where the service's settings define it.")
    state: str
    error: str | None
    error_code: str | None


class DatabasesAnswer(Shape):
    """All databases of the service."""

    databases: list[DatabaseAnswer]


class DatabaseRemoved(Done):
    """The database is gone."""

    file_deleted: bool


class FindingAnswer(Shape):
    """What preflight found; `fix` is the statement that mends it."""

    code: str
    severity: Literal["error", "warning", "info"]
    subject: str
    message: str
    fix: str
    table: str | None


class ServerAnswer(Shape):
    """The source's server."""

    flavor: str
    version: str


class DatabaseTest(Shape):
    """Whether a database can be replicated, and what is in the way. Nothing was changed."""

    success: bool
    server: ServerAnswer | None
    tables: list[str]
    findings: list[FindingAnswer]
    error: ProblemAnswer | None
