"""A DuckDB file whose memory follows the need, and a look at what DuckDB was told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from cdc.config import AUTO
from cdc.replica import state, tables
from cdc.replica.database import ReplicaDatabase
from tests.unit.writer.batches import D, T

MACHINE = 64 << 30


class Clock:
    """A clock that stands still."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def opened(path: Path, clock: Callable[[], float] = time.monotonic, limit: str = AUTO) -> ReplicaDatabase:
    database = ReplicaDatabase(path, memory_limit=limit, threads=1, clock=clock)
    database.open()
    cursor = database.cursor()
    state.prepare(cursor, "default", "shop")
    if not tables.any_row(cursor, "duckdb_tables", "table_name = 't'"):
        for table in (T, D):
            tables.create_staging(cursor, table)
            tables.swap(cursor, table.name)
    cursor.close()
    return database


def limit_of(database: ReplicaDatabase) -> int:
    """DuckDB's limit as it says itself, in MB."""
    [[text]] = database.read(lambda c: c.execute("SELECT current_setting('memory_limit')").fetchall())
    size, unit = str(text).split()
    return round(float(size) * {"MiB": 1 << 20, "GiB": 1 << 30}[unit] / 1e6)


def megabytes(size: int) -> int:
    return round(size / 1e6)
