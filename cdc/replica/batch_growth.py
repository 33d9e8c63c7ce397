"""How many times as many rows as usual a full batch should have, going by the tables that it changes.

DuckDB finds rows to delete by a look through the key of the whole table, and commits that with a look at each part of
it that lost one: over 50,000,000 rows a quarter of a second, for 10,000 keys as for 200,000.
"""

from __future__ import annotations

import duckdb

from cdc.replica.target import BatchTarget
from cdc.source.batcher import Batch
from cdc.source.cascades import ParentChanges
from cdc.source.rows import INSERT

ROWS_FOR_USUAL = 12_500_000
"""A table of so many rows, or of fewer, is worth no larger batches: they would take memory for little."""
MOST = 4.0


def batch_growth(cursor: duckdb.DuckDBPyConnection, target: BatchTarget, batch: Batch) -> float:
    """From 1 to `MOST`, in proportion to the largest table of which `batch` deletes rows, or replaces some.

    DuckDB's estimate is of the rows that are looked through: those deleted since the last checkpoint are among them.
    """
    names = {
        target.name_of(target.tables[key].name)
        for key, buffer in batch.buffers
        if not isinstance(buffer, ParentChanges)
        and len(buffer)
        and (target.overlap or (buffer.operations() != INSERT).any())
    }
    found = cursor.execute(
        "SELECT max(estimated_size) FROM duckdb_tables()"
        " WHERE schema_name = 'main' AND list_contains(?, table_name)",
        [list(names)],
    ).fetchall()
    return min(MOST, max(1.0, (found[0][0] or 0) / ROWS_FOR_USUAL))
