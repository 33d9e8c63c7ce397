"""What changes keep in memory until the next checkpoint is set aside."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import duckdb
import pytest

from cdc.config import AUTO
from cdc.replica import memory_demand
from cdc.replica.database import ReplicaDatabase
from cdc.replica.memory import MemoryLimit
from cdc.replica.memory_demand import (
    BYTES_A_ROW,
    BYTES_A_TABLE,
    INDEX_BYTES_A_ROW,
    INDEX_ROWS,
    TIMES_ITS_ROWS,
    VECTOR_ROWS,
    MemoryDemand,
)
from tests.unit.memory.files import MACHINE


@pytest.mark.usefixtures("exactly")
def test_a_row_marks_its_vector_and_many_rows_the_whole_table(replica: ReplicaDatabase) -> None:
    cursor = replica.cursor()
    cursor.execute("INSERT INTO t SELECT i FROM range(100_000) AS r(i)")
    limit = MemoryLimit(AUTO, machine_bytes=MACHINE)
    demand = MemoryDemand(limit)
    demand.changed(cursor, {"t": 1})
    assert limit.bytes - limit.base == VECTOR_ROWS * BYTES_A_ROW + INDEX_ROWS * INDEX_BYTES_A_ROW
    assert demand.index_bytes == INDEX_ROWS * INDEX_BYTES_A_ROW
    for _ in range(100):
        demand.changed(cursor, {"t": 1_000})
    assert limit.bytes - limit.base == 100_000 * (BYTES_A_ROW + INDEX_BYTES_A_ROW)
    assert demand.rows_of(["t", "u"]) == 100_000
    demand.changed(cursor, {"gone": 1_000_000})
    assert limit.bytes - limit.base == 100_000 * (BYTES_A_ROW + INDEX_BYTES_A_ROW)
    demand.written()
    assert (limit.bytes, demand.rows_of(["t"])) == (limit.base, 0)
    cursor.close()


@pytest.mark.usefixtures("exactly")
def test_nothing_is_set_aside_for_an_index_that_is_not_there(replica: ReplicaDatabase) -> None:
    cursor = replica.cursor()
    cursor.execute("CREATE TABLE plain AS SELECT i FROM range(100_000) AS r(i)")
    cursor.execute("INSERT INTO t SELECT i FROM range(10_000) AS r(i)")
    limit = MemoryLimit(AUTO, machine_bytes=MACHINE)
    demand = MemoryDemand(limit)
    demand.changed(cursor, {"plain": 100_000, "t": 10_000}, look=True)
    assert demand.index_bytes == 10_000 * INDEX_BYTES_A_ROW
    assert limit.bytes - limit.base == 110_000 * BYTES_A_ROW + 10_000 * INDEX_BYTES_A_ROW
    demand.changed(cursor, {"plain": 1})
    assert limit.bytes - limit.base == 110_000 * BYTES_A_ROW + 10_000 * INDEX_BYTES_A_ROW
    demand.written()
    assert (limit.bytes, demand.index_bytes) == (limit.base, 0)
    cursor.close()


def test_few_rows_all_over_a_large_table_bring_its_index_and_have_room_for_it(tmp_path: Path) -> None:
    path = tmp_path / "large.db"
    with duckdb.connect(str(path)) as made:
        made.execute("CREATE TABLE large (i BIGINT PRIMARY KEY, n INTEGER)")
        made.execute("INSERT INTO large SELECT i, 0 FROM range(2_000_000) AS r(i)")
    limit = MemoryLimit(AUTO, machine_bytes=MACHINE)
    with duckdb.connect(str(path), config={"checkpoint_threshold": "1TB"}) as connection:
        demand = MemoryDemand(limit)
        demand.changed(connection, {"large": 100})
        keys = "SELECT range * 20_000 AS i FROM range(100)"
        connection.execute("BEGIN")
        connection.execute(f"DELETE FROM large USING ({keys}) AS k WHERE large.i = k.i")
        connection.execute(f"INSERT INTO large SELECT i, 1 FROM ({keys})")
        found = connection.execute(
            "SELECT sum(memory_usage_bytes) FROM duckdb_memory() WHERE tag = 'ART_INDEX'"
        ).fetchall()
        connection.execute("COMMIT")
    assert 10_000_000 < found[0][0] <= demand.index_bytes + 4_000_000


@pytest.mark.usefixtures("exactly")
def test_a_large_transaction_has_what_a_quarter_of_the_base_does_not_hold(replica: ReplicaDatabase) -> None:
    cursor = replica.cursor()
    limit = MemoryLimit(AUTO, machine_bytes=MACHINE)
    demand = MemoryDemand(limit)
    demand.changed(cursor, {}, tables=3, size=1_000_000)
    assert limit.bytes == limit.base
    demand.changed(cursor, {}, tables=30, size=10_000_000)
    beyond = 30 * BYTES_A_TABLE + 10_000_000 * TIMES_ITS_ROWS - limit.base // 4
    assert limit.bytes - limit.base == beyond
    demand.changed(cursor, {}, tables=1)
    assert limit.bytes - limit.base == beyond
    demand.written()
    assert limit.bytes == limit.base
    cursor.close()


def test_few_rows_wait_for_no_look_at_the_catalogue(
    replica: ReplicaDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[set[str]] = []

    def look(_: object, names: Iterable[str]) -> dict[str, object]:
        looks.append(set(names))
        return {}

    monkeypatch.setattr(memory_demand, "_sizes", look)
    demand = MemoryDemand(MemoryLimit(AUTO, machine_bytes=MACHINE))
    cursor = replica.cursor()
    for number in range(9):
        demand.changed(cursor, {f"t{number}": 6})
    assert looks == []
    demand.changed(cursor, {"t9": 6})
    assert looks == [{f"t{number}" for number in range(10)}]
    demand.changed(cursor, {"t9": 100_000, "t0": 1})
    assert len(looks) == 1
    demand.changed(cursor, {"t9": 1, "t10": 1}, look=True)
    demand.changed(cursor, {}, look=True)
    assert looks[1:] == [{"t9", "t10"}]
    cursor.close()
