"""Source and copy compared."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.models.base import ProblemAnswer, Shape
from api.models.stream import PositionAnswer
from api.models.sync import TableProgressAnswer


class DifferenceAnswer(Shape):
    """A row that the copy lacks (`missing`), has in excess (`extra`) or has otherwise (`changed`)."""

    kind: Literal["missing", "extra", "changed"]
    key: dict[str, str] = Field(description="The primary key, as text; empty in a table without one.")


class RepairAnswer(Shape):
    """What a repair did to a table."""

    rows: int = Field(description="Rows that are the source's now.")
    copied_again: bool = Field(description="The table is being copied again as a whole.")


class ComparisonAnswer(Shape):
    """Source and copy of one table. A count of differences is a least one where `complete` is false."""

    table: str
    mysql_count: int | None
    duckdb_count: int | None
    difference: int | None = Field(description="Rows of the source less rows of the copy.")
    matches: bool
    missing: int | None = Field(default=None, description="Rows that the copy lacks; by mode=checksum.")
    extra: int | None = Field(default=None, description="Rows that the source lacks; by mode=checksum.")
    changed: int | None = Field(default=None, description="Keys with other values; by mode=checksum.")
    complete: bool | None = None
    first_differences: list[DifferenceAnswer] | None = None
    repair: RepairAnswer | None = None
    error: str | None = Field(default=None, description="Why the table could not be compared.")


class ValidationAnswer(Shape):
    """Source and copy compared at one position; `accuracy` is the per cent of tables that match."""

    mode: Literal["count", "checksum"]
    position: PositionAnswer
    at_one_position: bool = Field(
        description="False without a binary log: then what was written meanwhile counts as a difference."
    )
    total_tables: int
    matching_tables: int
    mismatched_tables: int
    mismatches: list[ComparisonAnswer]
    accuracy: float
    results: list[ComparisonAnswer]
    duration: int


class ValidationRunAnswer(Shape):
    """A validation under way or done: then with `result`, or with `error`."""

    run_id: str
    kind: Literal["validation"] = "validation"
    done: bool
    tables: list[TableProgressAnswer]
    result: ValidationAnswer | None = None
    error: ProblemAnswer | None = None


class TableDetailsRequest(BaseModel):
    """The body of `POST /validation/table-details`."""

    model_config = ConfigDict(
        extra="forbid", strict=True, alias_generator=to_camel, validate_by_name=False, validate_by_alias=True
    )

    table_name: str = Field(description="The table, as the source spells it.")
    skip_source_count: bool = Field(
        default=False,
        alias="skipMySQLCount",
        description="Leaves out what makes the source read the whole table: its count and its checksum.",
    )


class SideAnswer(Shape):
    """A table on one side."""

    exists: bool
    column_count: int
    record_count: int | None
    columns: list[str]
    max_id: int | None = Field(description="Largest value of the first key column, where that is an integer.")
    checksum: str | None = Field(description="Equal for equal contents, whatever the order of rows.")


class TableDetailsAnswer(Shape):
    """A table on both sides, looked at one after the other."""

    duckdb: SideAnswer
    mysql: SideAnswer
    columns_match: bool
    missing_columns: list[str] = Field(description="Columns that the copy lacks.")
    extra_columns: list[str] = Field(description="Columns that the source lacks.")
    error_type: str | None = Field(description="Code of what kept a side from being read.")
    error_message: str | None
