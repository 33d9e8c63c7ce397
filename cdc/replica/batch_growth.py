"""How many times as many rows as usual a full batch should have, going by the tables that it changes.

DuckDB finds rows to delete by a look through the key of the whole table, and commits that with a look at each part of
it that lost one: over 50,000,000 rows a quarter of a second, for 10,000 keys as for 200,000.
"""

from __future__ import annotations

from cdc.replica.target import BatchTarget
from cdc.source.batcher import Batch
from cdc.source.cascades import ParentChanges
from cdc.source.rows import DELETE, INSERT, UPDATE

ROWS_FOR_USUAL = 12_500_000
"""A table of so many rows, or of fewer, is worth no larger batches: they would take memory for little."""
MOST = 4.0


def lost_rows(target: BatchTarget, batch: Batch) -> dict[str, int]:
    """How many rows `batch` deletes or replaces, by the names of their tables in DuckDB."""
    lost: dict[str, int] = {}
    for key, buffer in batch.buffers:
        if isinstance(buffer, ParentChanges) or not len(buffer):
            continue
        operations = (DELETE, UPDATE, INSERT) if target.overlap else (DELETE, UPDATE)
        count = sum(buffer.ops.count(operation) for operation in operations)
        if count:
            name = target.name_of(target.tables[key].name)
            lost[name] = lost.get(name, 0) + count
    return lost


def put_bytes(batch: Batch) -> int:
    """About how many bytes the rows of `batch` have: of an update the row before is no such row."""
    buffers = [buffer for _, buffer in batch.buffers if not isinstance(buffer, ParentChanges)]
    images = sum(len(buffer.ops) for buffer in buffers)
    return batch.bytes * min(batch.rows, images) // max(1, images)


def batch_growth(rows: int) -> float:
    """How many times as many rows as usual a full batch should have, from 1 to `MOST`, in proportion to the `rows`
    of the largest of the tables that lose some."""
    return min(MOST, max(1.0, rows / ROWS_FOR_USUAL))
