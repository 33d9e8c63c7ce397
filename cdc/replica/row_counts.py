"""How many rows each table has, told at once even where there are thousands of tables."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import duckdb

from cdc.schema import quote_duckdb

EXACT_TABLES = 100
"""Tables counted at every call, at least: DuckDB takes about a millisecond for each, whatever its size."""
_BUDGET_SECONDS = 0.05
"""What counting more of them may take."""


class RowCounts:
    """Counts of rows. Exact at every call for up to `EXACT_TABLES` tables.

    Where there are more, each call counts those again whose count is oldest, and the others' is that of an
    earlier call; of a table that was never counted, DuckDB's estimate.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        """Oldest first."""

    def read(self, cursor: duckdb.DuckDBPyConnection, tables: Sequence[str]) -> dict[str, int]:
        """The number of rows of each of `tables`."""
        wanted = set(tables)
        with self._lock:
            known = [name for name in self._counts if name in wanted]
        fresh = set(known)
        order = [*(name for name in tables if name not in fresh), *known]
        deadline = time.monotonic() + _BUDGET_SECONDS
        counted: dict[str, int] = {}
        for number, name in enumerate(order):
            if number >= EXACT_TABLES and time.monotonic() > deadline:
                break
            row = cursor.execute(f"SELECT count(*) FROM main.{quote_duckdb(name)}").fetchone()
            assert row is not None
            counted[name] = int(row[0])
        with self._lock:
            left = {
                name: count for name, count in self._counts.items() if name in wanted and name not in counted
            }
            self._counts = {**left, **counted}
            found = dict(self._counts)
        if len(found) < len(wanted):
            found = {**_estimates(cursor), **found}
        return {name: found[name] for name in tables if name in found}


def _estimates(cursor: duckdb.DuckDBPyConnection) -> dict[str, int]:
    rows = cursor.execute(
        "SELECT table_name, estimated_size FROM duckdb_tables() WHERE schema_name = 'main'"
    ).fetchall()
    return {str(name): int(size) for name, size in rows}
