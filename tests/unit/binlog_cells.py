"""Cells of the binary log, converted for a column."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from cdc.schema import Column
from cdc.types import arrow_type
from cdc.values.binlog import (
    BinlogColumn,
    Prefixed,
    binlog_column,
    fixed_column,
    prefixed_column,
    storage,
)


def column(kind: str, **fields: Any) -> Column:
    return Column("c", kind, **{"column_type": kind, **fields})


def source(code: int, meta: str = "", **fields: Any) -> BinlogColumn:
    return binlog_column(code, bytes.fromhex(meta), name="c", **fields)


def read(target: Column, origin: BinlogColumn, cells: list[bytes | None]) -> pa.Array:
    """The array of either kind of column; NULLs of a fixed one are zero bytes, as in the row buffer."""
    where = storage(origin)
    if isinstance(where, Prefixed):
        array = prefixed_column(target, origin, cells)
    else:
        present = [bytes(where.width) if cell is None else cell for cell in cells]
        matrix = np.frombuffer(b"".join(present), np.uint8).reshape(len(cells), where.width)
        valid = np.array([cell is not None for cell in cells])
        array = fixed_column(target, origin, matrix, None if valid.all() else valid)
    array.validate(full=True)
    assert array.type == arrow_type(target)
    return array


def values(target: Column, origin: BinlogColumn, *cells: str | None) -> list[Any]:
    array = read(target, origin, [None if cell is None else bytes.fromhex(cell) for cell in cells])
    found: list[Any] = array.to_pylist()
    return found


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def span(seconds: int, microseconds: int = 0) -> datetime.timedelta:
    return datetime.timedelta(seconds=seconds, microseconds=microseconds)
