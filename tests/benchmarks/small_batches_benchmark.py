"""`python -m tests.benchmarks.small_batches_benchmark`: ways to put a few rows into DuckDB, in ms a table.

Ten tables of ROWS rows with a primary key, one transaction over all ten, the median of nine. What stands beside a
change in docs/performance.md is measured here.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from cdc.replica.apply import _ends_of_integers
from cdc.replica.row_views import registered

TABLES = 10
TURNS = 9
_COLUMNS = "id, name, amt, note, n, updated_at"
_SCHEMA = pa.schema(
    [
        ("c0", pa.int64()),
        ("c1", pa.string()),
        ("c2", pa.decimal128(12, 2)),
        ("c3", pa.string()),
        ("c4", pa.int32()),
        ("c5", pa.timestamp("us")),
    ]
)
Cursor = duckdb.DuckDBPyConnection
Way = Callable[[Cursor, str, pa.Table], object]


def _make(cursor: Cursor, rows: int) -> None:
    for number in range(TABLES):
        cursor.execute(
            f"CREATE TABLE t{number} (id BIGINT PRIMARY KEY, name VARCHAR, amt DECIMAL(12,2), note VARCHAR, n INT,"
            " updated_at TIMESTAMP)"
        )
        cursor.execute(
            f"INSERT INTO t{number} SELECT range, 'customer ' || range, range * 37 % 1000003 / 100,"
            f" 'a note of some length', range * 7 % 100000, TIMESTAMP '2024-01-01' FROM range({rows})"
        )
    cursor.execute("CHECKPOINT")


def _batch(rows: int, count: int) -> pa.Table:
    ids = random.sample(range(rows), count)
    names = [f"customer {i}" for i in ids]
    columns = [ids, names, [Decimal("12.34")] * count, ["a note"] * count, [5] * count]
    return pa.table([*columns, [datetime(2026, 1, 1)] * count], schema=_SCHEMA)


def _register_anew(cursor: Cursor, table: str, rows: pa.Table) -> None:
    cursor.register("gone", rows.select(["c0"]))
    cursor.execute(f"DELETE FROM {table} t USING gone g WHERE t.id = g.c0").fetchall()
    cursor.unregister("gone")
    cursor.register("put", rows)
    cursor.execute(f"INSERT INTO {table} ({_COLUMNS}) SELECT * FROM put")
    cursor.unregister("put")


def _views_that_stay(cursor: Cursor, table: str, rows: pa.Table) -> None:
    with registered(cursor, rows.select(["c0"])) as gone:
        cursor.execute(f"DELETE FROM {table} t USING {gone} g WHERE t.id = g.c0").fetchall()
    _insert(cursor, table, rows)


def _literals(cursor: Cursor, table: str, rows: pa.Table) -> None:
    listed = ", ".join(str(key) for key in rows["c0"].to_pylist())
    cursor.execute(f"DELETE FROM {table} WHERE id IN ({listed})").fetchall()
    _insert(cursor, table, rows)


def _insert(cursor: Cursor, table: str, rows: pa.Table, verb: str = "INSERT") -> None:
    with registered(cursor, rows) as put:
        cursor.execute(f"{verb} INTO {table} ({_COLUMNS}) SELECT * FROM {put}")


def _replace(cursor: Cursor, table: str, rows: pa.Table) -> None:
    _insert(cursor, table, rows, "INSERT OR REPLACE")


def _appender(cursor: Cursor, table: str, rows: pa.Table) -> None:
    with cursor.appender(table, action="upsert") as appender:
        appender.append_rows(list(zip(*rows.to_pydict().values(), strict=True)))


WAYS: dict[str, Way] = {
    "DELETE USING + INSERT, views that stay (what we do)": _views_that_stay,
    "DELETE USING + INSERT, registered anew": _register_anew,
    "DELETE IN (literals) + INSERT": _literals,
    "INSERT OR REPLACE": _replace,
    "appender, upsert": _appender,
}


def _milliseconds(cursor: Cursor, way: Way, rows: int, count: int) -> float:
    taken = []
    for _ in range(TURNS):
        batches = [_batch(rows, count) for _ in range(TABLES)]
        cursor.execute("BEGIN")
        began = time.perf_counter()
        for number, batch in enumerate(batches):
            way(cursor, f"t{number}", batch)
        taken.append((time.perf_counter() - began) * 1000 / TABLES)
        cursor.execute("COMMIT")
    return median(taken)


def _keys(console: Console) -> None:
    """How long it takes to find each key's first and last row among 50,000."""
    shown = Table("keys of 50,000 rows", "compared or sorted, ms", "grouped, ms")
    numbers = np.arange(50_000)
    for name, keys in (("rising", numbers), ("in any order", np.random.permutation(numbers))):
        table = pa.table({"c0": keys, "row": numbers})
        ours, theirs = [], []
        for _ in range(TURNS):
            began = time.perf_counter()
            _ends_of_integers(keys, numbers)
            between = time.perf_counter()
            table.group_by("c0", use_threads=False).aggregate([("row", "min"), ("row", "max")])
            ours.append((between - began) * 1000)
            theirs.append((time.perf_counter() - between) * 1000)
        shown.add_row(name, f"{median(ours):.2f}", f"{median(theirs):.2f}")
    console.print(shown)


def main() -> None:
    """Prints the tables; the first argument is the number of rows (50,000)."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    console = Console()
    counts = (1, 50, 1_000)
    shown = Table(f"ms a table of {rows:,} rows, for", *(f"{count:,} rows" for count in counts))
    with tempfile.TemporaryDirectory() as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "checkpoint_threshold": "1TB",
            "threads": "2",
        }
        with duckdb.connect(str(Path(folder) / "copy.db"), config=config) as cursor:
            _make(cursor, rows)
            for name, way in WAYS.items():
                shown.add_row(name, *(f"{_milliseconds(cursor, way, rows, count):.2f}" for count in counts))
    console.print(shown)
    _keys(console)


if __name__ == "__main__":
    main()
