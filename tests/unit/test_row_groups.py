"""The pieces of a copy, joined to row groups: the same rows in the same order, in sizes that suit DuckDB."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from cdc.replica.row_groups import ROW_GROUP, in_groups

LARGE = 1 << 40


def pieces(sizes: list[int]) -> list[pa.Table]:
    """Tables of so many rows, numbered through, each with a text of its own."""
    made, first = [], 0
    for size in sizes:
        numbers = range(first, first + size)
        made.append(pa.table({"c0": pa.array(numbers, pa.int64()), "c1": [f"row {n}" for n in numbers]}))
        first += size
    return made


def numbers(groups: list[pa.Table]) -> list[int]:
    return [number for group in groups for number in group["c0"].to_pylist()]


@given(sizes=st.lists(st.integers(1, 40), max_size=12), rows=st.integers(1, 50))
def test_every_row_comes_once_in_its_order_and_every_group_but_the_last_is_full(
    sizes: list[int], rows: int
) -> None:
    groups = list(in_groups(pieces(sizes), rows=rows, size=LARGE))
    assert numbers(groups) == list(range(sum(sizes)))
    assert [len(group) for group in groups[:-1]] == [rows] * (len(groups) - 1)
    assert all(0 < len(group) <= rows for group in groups)


@given(sizes=st.lists(st.integers(1, 40), max_size=12), rows=st.integers(1, 50), size=st.integers(1, 2_000))
def test_no_more_is_held_than_may_be(sizes: list[int], rows: int, size: int) -> None:
    made = pieces(sizes)
    groups = list(in_groups(made, rows=rows, size=size))
    assert numbers(groups) == list(range(sum(sizes)))
    largest = max((piece.nbytes for piece in made), default=0)
    assert all(group.nbytes <= max(size, largest) for group in groups)


def test_nothing_comes_of_nothing() -> None:
    assert list(in_groups(iter(()), rows=3, size=LARGE)) == []


def test_a_full_row_group_goes_past_the_write_ahead_log(tmp_path: Path) -> None:
    """What the size is for. One row less, and all of them stand in the log too."""
    sizes = []
    for rows in (ROW_GROUP, ROW_GROUP - 1):
        path = tmp_path / f"{rows}.db"
        with duckdb.connect(str(path), config={"checkpoint_threshold": "1TB"}) as connection:
            connection.execute("SET SESSION preserve_insertion_order = false")
            connection.execute("CREATE TABLE t (c0 BIGINT PRIMARY KEY, c1 VARCHAR)")
            [piece] = pieces([rows])
            connection.register("piece", piece)
            connection.execute("INSERT INTO t SELECT * FROM piece")
            sizes.append(path.with_name(path.name + ".wal").stat().st_size)
            assert connection.execute("SELECT count(*), sum(c0) FROM t").fetchall() == [
                (rows, rows * (rows - 1) // 2)
            ]
    assert sizes[0] < sizes[1] / 10


def _written(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection as the writer's, to a file that no close makes a checkpoint of."""
    connection = duckdb.connect(str(path), config={"checkpoint_threshold": "1TB", "threads": "2"})
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    connection.execute("SET SESSION preserve_insertion_order = false")
    return connection


def _assert_all_keys_are_known(path: Path, rows: int) -> None:
    """By the index: a look-up of each, and no second row with any."""
    with duckdb.connect(str(path)) as connection:
        for key in (0, 1, ROW_GROUP - 1, ROW_GROUP, rows - 1):
            assert connection.execute("SELECT c1 FROM t WHERE c0 = ?", [key]).fetchall() == [(f"row {key}",)]
        known = connection.execute("INSERT INTO t SELECT * FROM t ON CONFLICT DO NOTHING").fetchall()
        assert known == [(0,)]
        assert connection.execute("SELECT count(*), sum(c0) FROM t").fetchall() == [
            (rows, rows * (rows - 1) // 2)
        ]


def test_keys_that_went_past_the_log_are_in_the_index_when_the_file_is_opened_again(tmp_path: Path) -> None:
    """In pieces of three, as a copy has them, onto rows that are there, and by two threads."""
    path, third = tmp_path / "copy.db", ROW_GROUP // 3
    rows = 2 * ROW_GROUP + 100
    with _written(path) as connection:
        connection.execute("CREATE TABLE t (c0 BIGINT PRIMARY KEY, c1 VARCHAR)")
        sizes = [third] * (rows // third) + [rows % third]
        for group in in_groups(pieces(sizes), rows=ROW_GROUP, size=LARGE):
            connection.register("piece", group)
            connection.execute("INSERT INTO t SELECT * FROM piece")
    assert 0 < path.with_name("copy.db.wal").stat().st_size < 200_000
    _assert_all_keys_are_known(path, rows)


def test_keys_that_a_large_transaction_replaced_are_in_the_index_when_the_file_is_opened_again(
    tmp_path: Path,
) -> None:
    """As a batch of the stream does it: DELETE by key, then INSERT of more than a row group."""
    path, rows = tmp_path / "copy.db", 2 * ROW_GROUP
    with _written(path) as connection:
        connection.execute("CREATE TABLE t (c0 BIGINT PRIMARY KEY, c1 VARCHAR)")
        [piece] = pieces([rows])
        connection.register("piece", piece)
        connection.execute("INSERT INTO t SELECT * FROM piece")
        connection.execute("CHECKPOINT")
        connection.execute("BEGIN")
        connection.execute("CREATE TEMP TABLE g AS SELECT * FROM piece WHERE hash(c0) % 3 <> 0")
        connection.execute("DELETE FROM t USING g WHERE t.c0 = g.c0")
        connection.execute("INSERT INTO t SELECT * FROM g")
        connection.execute("COMMIT")
    _assert_all_keys_are_known(path, rows)
