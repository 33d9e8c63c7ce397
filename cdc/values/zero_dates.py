"""Dates that the calendar lacks ('0000-00-00', '2024-00-00', '2024-02-31', year 0): NULL, or an error."""

from __future__ import annotations

import pyarrow as pa

from cdc.errors import ValueDecodeError
from cdc.schema import Column
from cdc.types import DATES


def lost_dates(column: Column, array: pa.Array, nulls: int) -> int:
    """How many values of `column` became NULL in `array`, of which `nulls` were NULL at the source."""
    return int(array.null_count) - nulls if column.data_type in DATES else 0


def check_dates(column: Column, array: pa.Array, nulls: int) -> pa.Array:
    """`array` itself. Raises ValueDecodeError where `column` may lose no date and has lost one."""
    if column.choice == "no_zero_dates" and lost_dates(column, array, nulls):
        raise ValueDecodeError(
            f"Column {column.name} holds a date that the calendar lacks, such as 0000-00-00.",
            hint="repair the row at the source or (outside a primary key) set ZERO_DATES=null, then copy the"
            " table again: POST /sync/table/NAME",
        )
    return array
