"""Queries, tables, pages."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.models.base import Shape


class QueryRequest(BaseModel):
    """The body of `POST /query`."""

    model_config = ConfigDict(
        extra="forbid", strict=True, alias_generator=to_camel, validate_by_name=False, validate_by_alias=True
    )

    sql: str = Field(description="One reading statement.", examples=["SELECT 1 AS one"])
    params: list[Any] | dict[str, Any] | None = Field(default=None, description="For `?`, or for `$name`.")
    max_rows: int | None = Field(
        default=None, ge=1, description="Rows at most; the service has its own limit."
    )
    timeout_ms: int | None = Field(
        default=None, ge=1, description="Milliseconds at most; the service has its own limit."
    )


class ColumnAnswer(Shape):
    """A column of an answer, with DuckDB's name of its type."""

    name: str
    type: str


class QueryAnswer(Shape):
    """The rows; integers beyond 2^53 and decimals are text, binary values base64. Milliseconds."""

    success: bool
    columns: list[ColumnAnswer]
    result: list[dict[str, Any]]
    row_count: int
    truncated: bool = Field(description="Whether more rows would have followed.")
    duration: int


class TablesAnswer(Shape):
    """The names of the replicated tables."""

    tables: list[str]


class TableColumn(Shape):
    """A column of a table. `sourceType` is how the source declares it: type, character set, collation."""

    name: str
    type: str
    source_type: str | None
    nullable: bool
    primary_key: bool
    default: str | None


class SchemaChangeEntry(Shape):
    """A statement that changed the table, or might have: what became of the copy by it.

    `statement` has '…' for strings; `file` and `position` are where the log goes on behind it.
    """

    statement: str
    kind: str
    outcome: Literal["applied", "rebuilt", "copied again", "ignored"]
    reason: str | None
    file: str
    position: int
    gtid: str
    source_time: datetime | None
    recorded_at: datetime


class SchemaAnswer(Shape):
    """A table's columns, in order, and the schema changes that it went through, the latest first."""

    table: str
    columns: list[TableColumn]
    history: list[SchemaChangeEntry]


class PageAnswer(Shape):
    """A page of a table, in the order of its primary key. Without a key there is one page only."""

    table: str
    columns: list[ColumnAnswer]
    data: list[dict[str, Any]]
    row_count: int
    next_cursor: str | None = Field(description="For the next page; null on the last one.")
    truncated: bool = Field(description="Whether rows follow, in the next page or, without a key, in none.")


class CountAnswer(Shape):
    """A table's number of rows."""

    table: str
    count: int


class CountsAnswer(Shape):
    """The number of rows of every table, of one moment."""

    counts: dict[str, int]
    total: int
