"""Rows as views: small ones through a view that stays, whatever becomes of the transaction around it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest

from cdc.replica import row_views
from cdc.replica.row_views import registered


@pytest.fixture
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def numbers(*values: int, name: str = "n") -> pa.Table:
    return pa.table({name: pa.array(values, pa.int64())})


def read(cursor: duckdb.DuckDBPyConnection, rows: pa.Table) -> list[tuple[int, ...]]:
    with registered(cursor, rows) as view:
        return cursor.execute(f"SELECT * FROM {view}").fetchall()


def views(cursor: duckdb.DuckDBPyConnection) -> int:
    sql = "SELECT count(*) FROM duckdb_views() WHERE starts_with(view_name, '_duckling_rows')"
    return int(cursor.execute(sql).fetchall()[0][0])


def test_each_use_sees_its_own_rows_and_one_view_serves_all(cursor: duckdb.DuckDBPyConnection) -> None:
    for values in ([1, 2], [3], [], list(range(5_000)), [4]):
        assert read(cursor, numbers(*values)) == [(value,) for value in values]
    assert views(cursor) == 1


def test_a_statement_may_read_the_view_twice(cursor: duckdb.DuckDBPyConnection) -> None:
    with registered(cursor, numbers(1, 2, 3)) as view:
        found = cursor.execute(f"SELECT count(*) FROM {view} a JOIN {view} b USING (n)").fetchall()
    assert found == [(3,)]


def test_views_of_different_schemas_stand_side_by_side(cursor: duckdb.DuckDBPyConnection) -> None:
    with registered(cursor, numbers(1)) as one, registered(cursor, numbers(2, name="m")) as two:
        assert cursor.execute(f"SELECT n, m FROM {one}, {two}").fetchall() == [(1, 2)]


def test_a_view_that_a_rollback_took_along_is_made_again(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute("BEGIN")
    assert read(cursor, numbers(1)) == [(1,)]
    cursor.execute("ROLLBACK")
    row_views.forget(cursor)
    assert read(cursor, numbers(2)) == [(2,)]
    cursor.execute("BEGIN")
    assert read(cursor, numbers(3, name="m")) == [(3,)]
    with pytest.raises(duckdb.Error), registered(cursor, numbers(4)) as view:
        cursor.execute(f"SELECT n / 0, error('no') FROM {view}").fetchall()
    cursor.execute("ROLLBACK")
    assert read(cursor, numbers(5)) == [(5,)]
    assert read(cursor, numbers(6, name="m")) == [(6,)]


def test_rows_are_not_kept_behind_their_use(cursor: duckdb.DuckDBPyConnection) -> None:
    rows = numbers(*range(10))
    gone = weakref.ref(rows)
    read(cursor, rows)
    del rows
    gc.collect()
    assert gone() is None


def test_a_database_of_very_many_tables_does_not_pile_up_views(
    cursor: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_views, "_KEPT", 5)
    for turn in range(3):
        for column in range(12):
            assert read(cursor, numbers(turn, name=f"c{column}")) == [(turn,)]
            assert views(cursor) <= 5


def test_cursors_have_views_of_their_own(cursor: duckdb.DuckDBPyConnection) -> None:
    with (
        cursor.cursor() as other,
        registered(cursor, numbers(1)) as one,
        registered(other, numbers(2)) as two,
    ):
        assert cursor.execute(f"SELECT n FROM {one}").fetchall() == [(1,)]
        assert other.execute(f"SELECT n FROM {two}").fetchall() == [(2,)]
