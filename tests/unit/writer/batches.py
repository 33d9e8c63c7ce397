"""Batches of rows, where they go, and a look at what a writer has made of them."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable

import duckdb

from cdc.errors import DucklingError
from cdc.metrics import Metrics
from cdc.position import Position
from cdc.replica import state
from cdc.replica.database import ReplicaDatabase
from cdc.replica.target import BatchTarget
from cdc.replica.writer import Writer
from cdc.schema import Column, Table
from cdc.source.batcher import Batch, FlushReason
from cdc.source.row_layout import RowLayout
from cdc.source.rows import INSERT, UPDATE, RowBuffer
from cdc.source.table_map import TableMap
from cdc.values.binlog import FieldType, binlog_column

WAIT = 3
T = Table("shop", "t", (Column("id", "int", "int"),), ("id",))
D = Table("shop", "d", (Column("day", "date", "date"),), ("day",))
_MAPS = {
    "t": TableMap("shop", "t", (binlog_column(FieldType.LONG, b"", name="id"),), named=True),
    "d": TableMap("shop", "d", (binlog_column(FieldType.DATE, b"", name="day"),), named=True),
}


def batch(
    *ids: int,
    at: int | None = None,
    table: str = "t",
    operation: int = INSERT,
    reason: FlushReason = FlushReason.IDLE,
) -> Batch:
    """Inserts of `ids`; `at` is the boundary's offset, None for a part. Days are numbers too, 0 is no day."""
    layout = RowLayout.of(_MAPS[table], ("id" if table == "t" else "day",))
    rows = RowBuffer(_MAPS[table], layout)
    for i in ids:
        image = b"\xfe" + (struct.pack("<i", i) if table == "t" else i.to_bytes(3, "little"))
        rows.add(operation, [image * 2 if operation == UPDATE else image])
    position = None if at is None else Position("mysql", "a-server", "binlog.000001", at)
    return Batch([(table, rows)], rows=len(ids), transactions=1, position=position, reason=reason)


def save(cursor: duckdb.DuckDBPyConnection, position: Position) -> None:
    state.save_position(cursor, "default", position)


def target(on_error: Callable[[DucklingError], None] = lambda _: None) -> BatchTarget:
    return BatchTarget({"t": T, "d": D}, save_position=save, on_error=on_error)


def new_writer(replica: ReplicaDatabase, *, clock: Callable[[], float] = time.monotonic) -> Writer:
    """A writer that makes no checkpoint for the size of its log, nor when idle. Not started."""
    return Writer(
        replica,
        Metrics().for_database("default"),
        name="default",
        checkpoint_wal_bytes=1 << 30,
        checkpoint_idle=3600.0,
        clock=clock,
    )


def ids(replica: ReplicaDatabase) -> list[int]:
    cursor = replica.cursor()
    try:
        return [i for (i,) in cursor.execute("SELECT id FROM t ORDER BY id").fetchall()]
    finally:
        cursor.close()


def settle(writer: Writer) -> None:
    writer.settle().result(WAIT)


def saved(writer: Writer) -> int | None:
    position = writer.submit(lambda cursor: state.load_position(cursor, "default")).result(WAIT)
    return position.offset if position else None


def held(writer: Writer) -> Callable[[], None]:
    """Keeps the writer from everything else until the returned function is called."""
    busy, go_on = threading.Event(), threading.Event()

    def hold(_: duckdb.DuckDBPyConnection) -> None:
        busy.set()
        go_on.wait(WAIT)

    writer.submit(hold)
    assert busy.wait(WAIT)
    return go_on.set
