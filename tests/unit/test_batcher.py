"""When a micro-batch closes."""

from __future__ import annotations

from cdc.position import Position
from cdc.source.batcher import Batch, Batcher, FlushReason
from cdc.source.row_layout import RowLayout
from cdc.source.rows import INSERT
from cdc.source.table_map import TableMap
from cdc.values.binlog import FieldType, binlog_column

HERE = Position("mysql", "a-server", "binlog.000001", 100)
MAP = TableMap("shop", "t", (binlog_column(FieldType.LONG, b"", name="id"),), named=True)
LAYOUT = RowLayout.of(MAP, ("id",))


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.idle = True
        self.growth = 1.0
        self.given: list[Batch] = []
        self.batcher = Batcher(
            self.given.append,
            lambda: self.idle,
            max_rows=10,
            max_bytes=1000,
            max_age=1.0,
            growth=lambda: self.growth,
            clock=lambda: self.now,
        )

    def rows(self, count: int) -> None:
        buffer = self.batcher.buffer("t", MAP, LAYOUT)
        for _ in range(count):
            buffer.add(INSERT, [b"\xfe\1\0\0\0"])
        self.batcher.batch.rows += count


def test_an_empty_batch_is_never_due() -> None:
    bench = Bench()
    assert bench.batcher.due(drained=True) is None


def test_a_batch_closes_when_all_is_read_and_the_writer_is_free() -> None:
    bench = Bench()
    bench.rows(1)
    assert bench.batcher.due(drained=True) is FlushReason.IDLE
    bench.idle = False
    assert bench.batcher.due(drained=True) is None


def test_while_more_comes_a_batch_closes_by_age() -> None:
    bench = Bench()
    bench.rows(1)
    assert bench.batcher.due(drained=False) is None
    bench.now = 1.0
    assert bench.batcher.due(drained=False) is FlushReason.AGE


def test_a_full_batch_closes_although_the_writer_is_busy() -> None:
    bench = Bench()
    bench.idle = False
    bench.rows(10)
    assert bench.batcher.due(drained=False) is FlushReason.ROWS
    bench.batcher.batch.rows, bench.batcher.batch.bytes = 1, 1000
    assert bench.batcher.due(drained=False) is FlushReason.BYTES


def test_a_full_batch_may_hold_a_quarter_more_before_its_transaction_is_cut() -> None:
    bench = Bench()
    bench.rows(11)
    assert (bench.batcher.full(), bench.batcher.overfull()) == (FlushReason.ROWS, None)
    bench.rows(1)
    assert bench.batcher.overfull() is FlushReason.ROWS
    bench.batcher.batch.rows, bench.batcher.batch.bytes = 1, 1249
    assert (bench.batcher.full(), bench.batcher.overfull()) == (FlushReason.BYTES, None)
    bench.batcher.batch.bytes = 1250
    assert bench.batcher.overfull() is FlushReason.BYTES


def test_over_large_tables_a_batch_holds_more_from_the_next_one_on() -> None:
    bench = Bench()
    bench.idle = False
    bench.rows(9)
    bench.growth = 1.5
    assert bench.batcher.room()[0] == 1
    bench.rows(1)
    assert bench.batcher.full() is FlushReason.ROWS
    bench.batcher.flush(HERE, FlushReason.ROWS)
    assert bench.batcher.room()[0] == 15
    bench.rows(14)
    assert bench.batcher.full() is None
    bench.rows(1)
    assert bench.batcher.full() is FlushReason.ROWS


def test_the_last_part_of_a_transaction_is_due_even_where_it_is_empty() -> None:
    bench = Bench()
    bench.rows(10)
    bench.batcher.flush_part(FlushReason.ROWS)
    bench.idle = False
    assert bench.batcher.due(drained=False) is FlushReason.ROWS
    bench.batcher.flush(HERE, FlushReason.ROWS)
    assert [batch.position for batch in bench.given] == [None, HERE]
    assert bench.batcher.due(drained=True) is None


def test_rows_behind_a_changed_table_map_go_into_a_buffer_of_their_own_in_order() -> None:
    bench = Bench()
    other = TableMap("shop", "t", MAP.columns, named=True)
    first = bench.batcher.buffer("t", MAP, LAYOUT)
    bench.batcher.buffer("u", MAP, LAYOUT)
    assert bench.batcher.buffer("t", MAP, LAYOUT) is first
    second = bench.batcher.buffer("t", other, LAYOUT)
    assert second is not first
    assert bench.batcher.buffer("t", other, LAYOUT) is second
    assert bench.batcher.buffer("t", MAP, LAYOUT) is not first
    bench.batcher.flush(HERE, FlushReason.IDLE)
    assert [name for name, _ in bench.given[0].buffers] == ["t", "u", "t", "t"]
