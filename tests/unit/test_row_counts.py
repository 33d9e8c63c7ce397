"""Numbers of rows for the status."""

from __future__ import annotations

import duckdb

from cdc.replica.row_counts import EXACT_TABLES, RowCounts


def make(tables: int) -> tuple[duckdb.DuckDBPyConnection, list[str]]:
    connection = duckdb.connect()
    names = [f"t{number}" for number in range(tables)]
    for number, name in enumerate(names):
        connection.execute(f"CREATE TABLE {name} AS SELECT i FROM range({number}) r(i)")
    return connection, names


def test_a_few_tables_are_counted_exactly_at_every_call() -> None:
    connection, names = make(EXACT_TABLES)
    counts = RowCounts()
    assert counts.read(connection, names) == {name: number for number, name in enumerate(names)}
    connection.execute("DELETE FROM t50")
    connection.execute("INSERT INTO t1 VALUES (1), (2)")
    now = counts.read(connection, names)
    assert (now["t50"], now["t1"]) == (0, 3)


def test_of_many_tables_every_one_has_a_count_and_each_is_counted_again_in_turn() -> None:
    connection, names = make(EXACT_TABLES * 4)
    counts = RowCounts()
    assert counts.read(connection, names) == {name: number for number, name in enumerate(names)}
    for name in names:
        connection.execute(f"DELETE FROM {name}")
    for _ in range(4):
        now = counts.read(connection, names)
    assert now == dict.fromkeys(names, 0)


def test_a_table_that_went_is_forgotten_and_a_name_needs_its_quotes() -> None:
    connection, names = make(2)
    counts = RowCounts()
    counts.read(connection, names)
    connection.execute("DROP TABLE t0")
    connection.execute('CREATE TABLE "od""d name" (i INT)')
    assert counts.read(connection, ["t1", 'od"d name']) == {"t1": 1, 'od"d name': 0}
