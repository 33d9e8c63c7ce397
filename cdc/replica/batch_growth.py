"""How many times as many rows as usual a full batch should have, going by the tables that it changes.

DuckDB finds rows to delete by a look through the key of the whole table, and commits that with a look at each part of
it that lost one: over 50,000,000 rows a quarter of a second, for 10,000 keys as for 200,000.
"""

from __future__ import annotations

from cdc.replica.target import BatchTarget
from cdc.source.batcher import Batch
from cdc.source.cascades import ParentChanges
from cdc.source.rows import INSERT

ROWS_FOR_USUAL = 12_500_000
"""A table of so many rows, or of fewer, is worth no larger batches: they would take memory for little."""
MOST = 4.0


def changed_tables(target: BatchTarget, batch: Batch) -> set[str]:
    """The tables of which `batch` deletes rows, or replaces some, by their names in DuckDB."""
    return {
        target.name_of(target.tables[key].name)
        for key, buffer in batch.buffers
        if not isinstance(buffer, ParentChanges)
        and len(buffer)
        and (target.overlap or buffer.ops.count(INSERT) < len(buffer.ops))
    }


def batch_growth(rows: dict[str, int]) -> float:
    """How many times as many rows as usual a full batch should have, from 1 to `MOST`, in proportion to the largest
    of the tables that are changed."""
    return min(MOST, max(1.0, max(rows.values(), default=0) / ROWS_FOR_USUAL))
