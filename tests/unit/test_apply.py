"""Batches into real DuckDB tables: what stands there afterwards is what the source has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import DivergenceError
from cdc.replica.apply import _first_and_last, append_rows, apply_rows
from cdc.replica.tables import create_staging, staging_name
from cdc.schema import Column, Table
from cdc.source.rows import DELETE, INSERT, UPDATE
from cdc.types import arrow_type, row_schema

Row = tuple[Any, ...]


def column(name: str, kind: str = "int", column_type: str = "", **more: Any) -> Column:
    return Column(name, kind, column_type or kind, **more)


def table(*columns: Column, key: tuple[str, ...] = ()) -> Table:
    return Table("shop", "t", columns, key)


Batch = tuple[pa.Table, np.ndarray]


def batch(of: Table, *rows: tuple[int, Row]) -> Batch:
    """Rows and what each of them does."""
    arrays = [
        pa.array([row[i] for _, row in rows], arrow_type(column)) for i, column in enumerate(of.columns)
    ]
    operations = np.array([op for op, _ in rows], np.uint8)
    return pa.Table.from_arrays(arrays, schema=row_schema(of)), operations


@pytest.fixture
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def make(cursor: duckdb.DuckDBPyConnection, of: Table, *rows: Row) -> str:
    create_staging(cursor, of)
    if rows:
        append_rows(cursor, of, staging_name(of.name), batch(of, *((INSERT, r) for r in rows))[0])
    return staging_name(of.name)


def content(cursor: duckdb.DuckDBPyConnection, name: str) -> list[Row]:
    return cursor.execute(f'SELECT * FROM "{name}" ORDER BY ALL').fetchall()


KEYED = table(column("id"), column("v"), key=("id",))
UNINDEXED = replace(KEYED, key_index=False)
BOTH = pytest.mark.parametrize("keyed", [KEYED, UNINDEXED], ids=["index", "no index"])
KEYLESS = table(column("a"), column("b", "varchar"))


@BOTH
def test_a_chain_of_key_updates_moves_every_row(cursor: duckdb.DuckDBPyConnection, keyed: Table) -> None:
    name = make(cursor, keyed, (1, 10), (2, 20), (3, 30))
    chain = [(op, row) for k in (3, 2, 1) for op, row in ((DELETE, (k, k * 10)), (INSERT, (k + 1, k * 10)))]
    apply_rows(cursor, keyed, name, *batch(keyed, *chain), overlap=False)
    assert content(cursor, name) == [(2, 10), (3, 20), (4, 30)]


@BOTH
def test_two_keys_that_swap_in_one_transaction_are_swapped(
    cursor: duckdb.DuckDBPyConnection, keyed: Table
) -> None:
    name = make(cursor, keyed, (1, 10), (2, 20))
    steps = [
        (DELETE, (1, 10)),
        (INSERT, (9, 10)),
        (DELETE, (2, 20)),
        (INSERT, (1, 20)),
        (DELETE, (9, 10)),
        (INSERT, (2, 10)),
    ]
    apply_rows(cursor, keyed, name, *batch(keyed, *steps), overlap=False)
    assert content(cursor, name) == [(1, 20), (2, 10)]


@BOTH
def test_of_two_inserts_of_one_key_the_last_wins(cursor: duckdb.DuckDBPyConnection, keyed: Table) -> None:
    """The delete between them may not be in the log: a cascade, or sql_log_bin = 0."""
    name = make(cursor, keyed)
    apply_rows(cursor, keyed, name, *batch(keyed, (INSERT, (1, 1)), (INSERT, (1, 2))), overlap=False)
    assert content(cursor, name) == [(1, 2)]


@BOTH
@pytest.mark.parametrize("overlap", [False, True])
def test_rows_that_the_copy_lacks_are_told_unless_it_may_be_ahead(
    cursor: duckdb.DuckDBPyConnection, keyed: Table, overlap: bool
) -> None:
    name = make(cursor, keyed, (1, 10), (2, 20))
    steps = [(UPDATE, (1, 11)), (UPDATE, (3, 30)), (DELETE, (4, 40)), (INSERT, (5, 50))]
    done = apply_rows(cursor, keyed, name, *batch(keyed, *steps), overlap=overlap)
    assert done.missing == (0 if overlap else 2)
    assert content(cursor, name) == [(1, 11), (2, 20), (3, 30), (5, 50)]


def test_an_inserted_key_that_is_there_is_refused_by_the_index_and_replaced_without(
    cursor: duckdb.DuckDBPyConnection,
) -> None:
    """A cascade or sql_log_bin = 0 removed it at the source. The writer answers by replacing."""
    for keyed in (KEYED, UNINDEXED):
        name = make(cursor, keyed, (1, 10), (2, 20))
        rows = batch(keyed, (INSERT, (1, 11)))
        if keyed is KEYED:
            with pytest.raises(duckdb.ConstraintException):
                apply_rows(cursor, keyed, name, *rows, overlap=False, replace=False)
        apply_rows(cursor, keyed, name, *rows, overlap=False, replace=keyed is KEYED)
        assert content(cursor, name) == [(1, 11), (2, 20)]


def test_no_key_is_null_without_an_index_either(cursor: duckdb.DuckDBPyConnection) -> None:
    name = make(cursor, UNINDEXED, (1, 10))
    with pytest.raises(duckdb.ConstraintException):
        append_rows(cursor, UNINDEXED, name, batch(UNINDEXED, (INSERT, (None, 1)))[0])
    assert content(cursor, name) == [(1, 10)]


step = st.tuples(
    st.sampled_from(["put", "drop", "move"]), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99)
)


@given(
    start=st.dictionaries(st.integers(1, 5), st.integers(0, 99)),
    steps=st.lists(step, max_size=25),
    splits=st.integers(1, 4),
    overlap=st.booleans(),
    keyed=st.sampled_from([KEYED, UNINDEXED]),
    replace=st.booleans(),
)
def test_any_history_of_a_keyed_table_ends_as_at_the_source(
    start: dict[int, int],
    steps: list[tuple[str, int, int, int]],
    splits: int,
    overlap: bool,
    keyed: Table,
    replace: bool,
) -> None:
    model, ops = dict(start), []
    for kind, key, other, value in steps:
        if kind == "put":
            ops.append((UPDATE if key in model else INSERT, (key, value)))
            model[key] = value
        elif kind == "drop" and key in model:
            ops.append((DELETE, (key, model.pop(key))))
        elif kind == "move" and key in model and other not in model:
            old = model.pop(key)
            ops += [(DELETE, (key, old)), (INSERT, (other, value))]
            model[other] = value
    with duckdb.connect() as cursor:
        # With an overlap the copy may be ahead: at worst it is the end state already.
        name = make(cursor, keyed, *(model if overlap else start).items())
        size = max(1, -(-len(ops) // splits))
        cursor.execute("BEGIN")
        for at in range(0, len(ops), size):
            rows = batch(keyed, *ops[at : at + size])
            apply_rows(cursor, keyed, name, *rows, overlap=overlap, replace=replace)
        cursor.execute("COMMIT")
        assert content(cursor, name) == sorted(model.items())


@given(
    start=st.lists(st.tuples(st.none() | st.integers(1, 2), st.none() | st.sampled_from("ab")), max_size=8),
    steps=st.lists(
        st.tuples(st.booleans(), st.tuples(st.none() | st.integers(1, 2), st.none() | st.sampled_from("ab"))),
        max_size=20,
    ),
    splits=st.integers(1, 4),
)
def test_any_history_of_a_table_without_a_key_ends_as_at_the_source(
    start: list[Row], steps: list[tuple[bool, Row]], splits: int
) -> None:
    model, ops = Counter(start), []
    for put, row in steps:
        if put:
            model[row] += 1
            ops.append((INSERT, row))
        elif model[row]:
            model[row] -= 1
            ops.append((DELETE, row))
    with duckdb.connect() as cursor:
        name = make(cursor, KEYLESS, *start)
        size = max(1, -(-len(ops) // splits))
        cursor.execute("BEGIN")
        for at in range(0, len(ops), size):
            apply_rows(cursor, KEYLESS, name, *batch(KEYLESS, *ops[at : at + size]), overlap=False)
        cursor.execute("COMMIT")
        assert Counter(content(cursor, name)) == +model


def test_a_deleted_row_that_a_keyless_copy_lacks_is_an_error(cursor: duckdb.DuckDBPyConnection) -> None:
    name = make(cursor, KEYLESS, (1, "a"))
    with pytest.raises(DivergenceError) as caught:
        apply_rows(cursor, KEYLESS, name, *batch(KEYLESS, (DELETE, (1, "b"))), overlap=False)
    assert caught.value.table == "t"


VALUES: list[tuple[Column, Any, Any]] = [
    (column("k", "decimal", "decimal(30,4)", precision=30, scale=4), Decimal("1.0001"), Decimal("2.5000")),
    (column("k", "decimal", "decimal(60,4)", precision=60, scale=4), "1.0001", "2.5000"),
    (column("k", "varbinary", "varbinary(20)", length=20), b"\0\xff", b"\0"),
    (column("k", "varchar", "varchar(20)", length=20), "a", "A"),
    (column("k", "varchar", "varchar(20)", length=20), "a\0b", "a"),
    (column("k", "timestamp", "timestamp(6)", fraction=6), datetime(2020, 1, 1, 0, 0, 0, 1), datetime(2021, 1, 1)),
    (column("k", "date"), date(2020, 1, 1), date(1000, 1, 1)),
    (column("k", "time"), timedelta(hours=-838), timedelta(hours=1)),
    (column("k", "float"), 0.5, -0.5),
    (column("k", "double"), 0.1, 1e300),
    (column("k", "bigint", "bigint unsigned"), 2**64 - 1, 0),
    (column("k", "bit", "bit(64)", precision=64), 2**64 - 1, 0),
    (column("k", "enum", "enum('a','b')", members=("a", "b")), "a", "b"),
    (column("k", "year"), 1901, 2155),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "one", "two"), VALUES, ids=lambda value: getattr(value, "column_type", None)
)
@pytest.mark.parametrize("overlap", [False, True])
def test_a_key_of_any_type_tells_rows_apart(
    cursor: duckdb.DuckDBPyConnection, kind: Column, one: Any, two: Any, overlap: bool
) -> None:
    of = table(kind, column("n"), column("v"), key=("k", "n"))
    name = make(cursor, of, (one, 1, 1), (two, 1, 2))
    steps = [(UPDATE, (one, 1, 3)), (UPDATE, (one, 1, 4)), (DELETE, (two, 1, 2)), (INSERT, (two, 2, 5))]
    apply_rows(cursor, of, name, *batch(of, *steps), overlap=overlap)
    found = cursor.execute(f'SELECT n, v FROM "{name}" ORDER BY ALL').fetchall()
    assert found == [(1, 4), (2, 5)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (column("x", "json"), '{"a": [1, 2.0, null]}'),
        (column("x", "float"), 0.1),
        (column("x", "double"), -0.0),
        (column("x", "vector", "vector(2)"), [0.5, -1.5]),
        (column("x", "time"), timedelta(hours=-5)),
        (column("x", "blob"), b"\0\1"),
        (column("x", "json"), None),
        (column("x", "vector", "vector(2)"), None),
    ],
    ids=str,
)
def test_of_three_equal_rows_without_a_key_one_is_deleted(
    cursor: duckdb.DuckDBPyConnection, kind: Column, value: Any
) -> None:
    of = table(kind, column("v"))
    name = make(cursor, of, (value, 1), (value, 1), (value, 1), (value, 2))
    apply_rows(cursor, of, name, *batch(of, (DELETE, (value, 1))), overlap=False)
    assert [row[1] for row in cursor.execute(f'SELECT * FROM "{name}" ORDER BY v').fetchall()] == [1, 1, 2]


RESERVED = ["_op", "_OP", "_row", "_net", "_id", "_nth", "range", "rowid", "t", "n", "g"]


@pytest.mark.parametrize("word", RESERVED)
@pytest.mark.parametrize("key", [("id",), ("id", "the word"), ()], ids=["keyed", "in the key", "keyless"])
def test_a_column_may_have_any_name(
    cursor: duckdb.DuckDBPyConnection, word: str, key: tuple[str, ...]
) -> None:
    of = table(
        column("id"),
        column(word),
        column("v"),
        key=tuple(word if part == "the word" else part for part in key),
    )
    name = make(cursor, of, (1, 1, 1), (2, 2, 2))
    apply_rows(cursor, of, name, *batch(of, (DELETE, (1, 1, 1)), (INSERT, (3, 3, 3))), overlap=False)
    assert content(cursor, name) == [(2, 2, 2), (3, 3, 3)]


def test_the_cause_of_a_refused_row_is_not_covered_by_the_clearing_up(
    cursor: duckdb.DuckDBPyConnection,
) -> None:
    """Inside a transaction, as the writer works: what reaches it must be the constraint, not its consequence."""
    of = table(column("d", "date"), column("v"), key=("d",))
    name = make(cursor, of)
    cursor.execute("BEGIN")
    with pytest.raises(duckdb.ConstraintException):
        apply_rows(cursor, of, name, *batch(of, (INSERT, (None, 1))), overlap=False)
    cursor.execute("ROLLBACK")
    cursor.execute("BEGIN")
    with pytest.raises(duckdb.ConstraintException):
        append_rows(cursor, of, name, batch(of, (INSERT, (None, 1)))[0])
    cursor.execute("ROLLBACK")


def test_equal_rows_are_counted_where_a_column_hides_the_row_number(
    cursor: duckdb.DuckDBPyConnection,
) -> None:
    of = table(column("rowid"), column("v"))
    name = make(cursor, of, (1, 1), (1, 1), (1, 1), (1, 2), (2, 1))
    apply_rows(
        cursor, of, name, *batch(of, (DELETE, (1, 1)), (DELETE, (2, 1)), (INSERT, (3, 3))), overlap=False
    )
    assert content(cursor, name) == [(1, 1), (1, 1), (1, 2), (3, 3)]
    with pytest.raises(DivergenceError):
        apply_rows(cursor, of, name, *batch(of, *[(DELETE, (1, 1))] * 3), overlap=False)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40))
def test_the_ends_of_integer_keys_are_those_that_grouping_finds(keys: list[int]) -> None:
    """One integer column has a way of its own; with a second, constant one, the general way is taken."""
    single = pa.table({"c0": pa.array(keys, pa.int32())})
    double = single.append_column("c1", pa.array([0] * len(keys)))

    def pairs(of: pa.Table) -> list[tuple[int, int]]:
        first, last = _first_and_last(of)
        return sorted(zip(first.tolist(), last.tolist(), strict=True))

    assert pairs(single) == pairs(double)
