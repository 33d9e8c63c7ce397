"""Full batches over large tables: the writer asks for larger ones."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import pytest

from cdc.replica import batch_growth, batch_rows
from cdc.replica.database import ReplicaDatabase
from cdc.replica.duckdb_errors import OUT_OF_MEMORY
from cdc.replica.writer import Writer
from cdc.source.batcher import FlushReason
from cdc.source.rows import DELETE, INSERT, UPDATE
from tests.unit.writer.batches import batch, ids, settle, target

FULL = FlushReason.ROWS


@pytest.fixture(autouse=True)
def _few_rows_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_growth, "ROWS_FOR_USUAL", 1_000)


@pytest.mark.parametrize(
    ("rows", "operation", "expected"),
    [
        (900, UPDATE, 1.0),
        (2_500, UPDATE, 2.5),
        (2_500, DELETE, 2.5),
        (9_000, UPDATE, batch_growth.MOST),
        (9_000, INSERT, 1.0),
    ],
)
def test_what_a_full_batch_does_to_a_table_of_a_size(
    rows: int, operation: int, expected: float, writer: Writer
) -> None:
    into = target()
    writer.deliver(into, batch(*range(rows), at=100))
    key = rows if operation == INSERT else 0
    writer.deliver(into, batch(key, at=200, operation=operation, reason=FlushReason.AGE))
    settle(writer)
    assert into.growth == 1.0
    writer.deliver(into, batch(key + 1, at=300, operation=operation, reason=FULL))
    settle(writer)
    assert into.error is None
    assert into.growth == pytest.approx(expected, rel=0.01)


def test_inserts_into_what_a_copy_overlaps_replace_rows(writer: Writer) -> None:
    into = target()
    into.overlap = True
    writer.deliver(into, batch(*range(2_000), at=100))
    writer.deliver(into, batch(1, at=200, reason=FULL))
    settle(writer)
    assert into.growth == pytest.approx(2.0, rel=0.01)


def test_only_tables_that_lose_rows_count(writer: Writer) -> None:
    into = target()
    day = 1 << 9 | 1 << 5 | 1
    writer.deliver(into, batch(*range(3_000), at=100))
    writer.deliver(into, batch(day, day + 1, at=200, table="d"))
    deleted = batch(day, at=300, table="d", operation=DELETE, reason=FULL)
    writer.deliver(into, replace(deleted, buffers=deleted.buffers + batch(3_000).buffers))
    settle(writer)
    assert (into.error, into.growth) == (None, 1.0)
    deleted = batch(day + 1, at=400, table="d", operation=DELETE, reason=FULL)
    writer.deliver(into, replace(deleted, buffers=deleted.buffers + batch(7, operation=DELETE).buffers))
    settle(writer)
    assert into.growth == pytest.approx(3.0, rel=0.01)


def test_a_table_whose_rows_were_all_rolled_back_does_not_count(writer: Writer) -> None:
    into = target()
    into.overlap = True
    writer.deliver(into, batch(*range(3_000), at=100))
    writer.deliver(into, replace(batch(at=200, reason=FULL), buffers=[("left", batch().buffers[0][1])]))
    settle(writer)
    assert (into.error, into.growth) == (None, 1.0)


def test_batches_stay_small_behind_one_that_did_not_fit_into_memory(
    writer: Writer, replica: ReplicaDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = target()
    writer.deliver(into, batch(*range(2_000), at=100))
    writer.deliver(into, batch(1, at=200, operation=UPDATE, reason=FULL))
    settle(writer)
    assert into.growth == pytest.approx(2.0, rel=0.01)

    def starve(*_: object, **__: object) -> None:
        raise duckdb.OutOfMemoryException("could not allocate block")

    with monkeypatch.context() as patched:
        patched.setattr(batch_rows, "apply_rows", starve)
        writer.deliver(into, batch(2, at=300, operation=DELETE, reason=FULL))
        settle(writer)
    assert into.error is not None
    assert into.error.code == OUT_OF_MEMORY
    again = target()
    writer.deliver(again, batch(2, at=300, operation=DELETE, reason=FULL))
    settle(writer)
    assert again.growth == 1.0
    assert ids(replica) == [0, 1, *range(3, 2_000)]
