"""`python -m tests.benchmarks.deletion_marks_benchmark`: the memory that DuckDB alone needs to replace scattered rows.

A file with one table of a key and a number, and a process that does nothing but replace 50,000 rows of it, evenly
spread, in one transaction: DELETE and INSERT, without a checkpoint. Nothing of the service takes part. DuckDB's memory
limit is raised in steps until it can.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import duckdb
from rich.console import Console
from rich.table import Table

from cdc.replica.duckdb_errors import is_out_of_memory
from tests.benchmarks.peers import in_own_process

REPLACED = 50_000
STEP = 50
"""MB between two limits."""
_CONFIG = {"checkpoint_threshold": "1TB", "threads": "2", "preserve_insertion_order": "false"}


def _make(path: Path, rows: int, *, indexed: bool) -> None:
    with duckdb.connect(str(path), config={**_CONFIG, "memory_limit": "4GB"}) as connection:
        key = "PRIMARY KEY" if indexed else "NOT NULL"
        connection.execute(f"CREATE TABLE t (id BIGINT {key}, n INTEGER)")
        connection.execute(f"INSERT INTO t SELECT range, 1 FROM range({rows})")
        connection.execute("CHECKPOINT")


def _replace(path: str, rows: int, limit: int) -> float:
    """Seconds that it took; infinite where `limit` MB are too few."""
    connection = duckdb.connect(path, config={**_CONFIG, "memory_limit": f"{limit}MB"})
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    keys = f"SELECT range * {rows // REPLACED} AS id FROM range({REPLACED})"
    began = time.perf_counter()
    try:
        connection.execute("BEGIN")
        connection.execute(f"DELETE FROM t USING ({keys}) k WHERE t.id = k.id")
        connection.execute(f"INSERT INTO t SELECT id, 2 FROM ({keys})")
        connection.execute("COMMIT")
    except duckdb.Error as error:
        if is_out_of_memory(error):
            return float("inf")
        raise
    return time.perf_counter() - began


def _least(path: Path, rows: int) -> tuple[int, float, float]:
    """The least limit in MB, the seconds that the transaction takes with it, and the peak of the process in MB."""
    for limit in range(STEP, 100 * STEP, STEP):
        seconds, peak = in_own_process(_replace, str(path), rows, limit)
        if seconds != float("inf"):
            return limit, seconds, peak
    raise RuntimeError(f"{limit} MB were not enough for {rows:,} rows")


def main() -> None:
    """Prints the table; the arguments are numbers of rows (1,000,000, 10,000,000 and 50,000,000), at least 50,000."""
    sizes = [max(REPLACED, int(size)) for size in sys.argv[1:]] or [1_000_000, 10_000_000, 50_000_000]
    shown = Table(f"rows, of which {REPLACED:,} are replaced")
    for name in ("index of the key", "least memory limit", "peak of the process", "transaction"):
        shown.add_column(name, justify="right")
    for rows in sizes:
        for indexed in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "copy.db"
                _make(path, rows, indexed=indexed)
                limit, seconds, peak = _least(path, rows)
            shown.add_row(
                f"{rows:,}", "yes" if indexed else "no", f"{limit} MB", f"{peak:.0f} MB", f"{seconds:.1f} s"
            )
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
