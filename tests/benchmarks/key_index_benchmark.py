"""`python -m tests.benchmarks.key_index_benchmark`: what DuckDB's index of a primary key costs, and what it gives.

One table of ROWS rows, made and changed as a copy is, with the index and without (UNINDEXED_TABLES), for keys that rise
and for keys all over their range. Medians of nine.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table as Shown

from cdc.replica import tables
from cdc.replica.apply import append_rows, apply_rows
from cdc.replica.row_groups import ROW_GROUP
from cdc.schema import Column, Table
from cdc.source.rows import INSERT, UPDATE
from cdc.types import row_schema

TURNS = 9
TABLE = Table(
    "shop",
    "t",
    (
        Column("id", "bigint", "bigint"),
        Column("name", "varchar", "varchar(40)", length=40),
        Column("x", "double", "double"),
        Column("n", "int", "int"),
    ),
    ("id",),
)
_ODD = 0x9E3779B97F4A7C15
"""Multiplied by this, numbers that follow each other are all over the range of 64 bits."""
Keys = Callable[[np.ndarray], np.ndarray]


def _rising(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.int64)


def _scattered(numbers: np.ndarray) -> np.ndarray:
    return (numbers.astype(np.uint64) * np.uint64(_ODD)).astype(np.int64)


def _rows(keys: np.ndarray, n: int) -> pa.Table:
    names = pa.array([f"customer {i % 1000}" for i in range(len(keys))])
    columns = [keys, names, np.full(len(keys), 0.5), np.full(len(keys), n, np.int32)]
    return pa.Table.from_arrays([pa.array(c) for c in columns], schema=row_schema(TABLE))


class _Copy:
    """A copy of so many rows whose keys are `keys(0)`, `keys(1)`, …, in the order in which InnoDB gives them."""

    def __init__(self, path: Path, table: Table, keys: Keys, rows: int) -> None:
        self._table = table
        self._keys = keys
        self._rows = rows
        self._new = count(rows)
        self._chance = np.random.default_rng(rows)
        self.path = path
        self.cursor = duckdb.connect(str(path), config={"checkpoint_threshold": "1TB", "threads": "2"})
        self.cursor.execute("SET SESSION preserve_insertion_order = false")
        began = time.perf_counter()
        tables.create(self.cursor, table, table.name)
        ordered = np.sort(keys(np.arange(rows)))
        for first in range(0, rows, ROW_GROUP):
            append_rows(self.cursor, table, table.name, _rows(ordered[first : first + ROW_GROUP], 0))
        self.cursor.execute("CHECKPOINT")
        self.seconds = time.perf_counter() - began

    def put(self, many: int, operation: int) -> float:
        """Milliseconds of a transaction of so many new or changed rows."""
        if operation == INSERT:
            numbers = np.fromiter(self._new, np.int64, many)
        else:
            numbers = self._chance.choice(self._rows, many, replace=False)
        rows = _rows(self._keys(numbers), 1)
        began = time.perf_counter()
        self.cursor.execute("BEGIN")
        operations = np.full(many, operation, np.uint8)
        apply_rows(self.cursor, self._table, self._table.name, rows, operations, overlap=False, replace=False)
        self.cursor.execute("COMMIT")
        return (time.perf_counter() - began) * 1000

    def look_up(self, many: int) -> float:
        """Milliseconds of a query for so many rows by their keys."""
        keys = self._keys(self._chance.choice(self._rows, many, replace=False)).tolist()
        began = time.perf_counter()
        found = self.cursor.execute(f"SELECT * FROM t WHERE id IN ({', '.join(map(str, keys))})").fetchall()
        if len(found) != many:
            raise RuntimeError(f"{len(found)} rows instead of {many}")
        return (time.perf_counter() - began) * 1000


def _figures(path: Path, table: Table, keys: Keys, rows: int) -> Iterator[str]:
    copy = _Copy(path, table, keys, rows)
    yield f"{copy.seconds:.1f} s"
    yield f"{path.stat().st_size / 1e6:,.0f} MB"
    for many in (1, 10):
        yield f"{median(copy.look_up(many) for _ in range(TURNS)):.1f} ms"
    for operation in (INSERT, UPDATE):
        for many in (1, 100, 50_000):
            yield f"{median(copy.put(many, operation) for _ in range(TURNS)):.1f} ms"
    copy.cursor.close()


def main() -> None:
    """Prints the table; the first argument is the number of rows (10,000,000)."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    names = ["made in", "file", "one row by its key", "ten rows by key"]
    names += [f"{many:,} {kind}" for kind in ("new", "changed") for many in (1, 100, 50_000)]
    columns = []
    shown = Shown(f"{rows:,} rows")
    for kind, keys in (("rising", _rising), ("scattered", _scattered)):
        for index in (True, False):
            shown.add_column(f"{kind}, {'index' if index else 'none'}", justify="right")
            with tempfile.TemporaryDirectory() as folder:
                table = replace(TABLE, key_index=index)
                columns.append(list(_figures(Path(folder) / "copy.db", table, keys, rows)))
    for line in zip(names, *columns, strict=True):
        shown.add_row(*line)
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
