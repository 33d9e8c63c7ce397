from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pymysql
import pytest

from cdc.sandbox import shop
from cdc.sandbox.comparison import compare_table
from cdc.sandbox.databases import Database
from cdc.sandbox.load import Load
from cdc.sandbox.probe import Probe, percentile
from tests.sessions import sessions

pytestmark = pytest.mark.crossed

ROWS = 500
DUCKDB_TYPES = {
    "preferences": "JSON",
    "payload": "JSON",
    "price": "DECIMAL(12, 2)",
    "unit_price": "DECIMAL(12, 2)",
    "total": "DECIMAL(14, 2)",
    "discount": "DECIMAL(5, 4)",
    "weight": "DOUBLE",
    "created_at": "TIMESTAMP",
    "at": "TIMESTAMP",
    "placed_at": "TIMESTAMPTZ",
    "updated_at": "TIMESTAMPTZ",
    "due": "DATE",
    "newsletter": "BOOLEAN",
}
TEXTS = {"name", "email", "note", "sku", "title", "category", "labels", "status", "kind"}


def rows_of(database: Database, statement: str) -> list[tuple[Any, ...]]:
    with database.connect().cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


@pytest.fixture
def small_shop(database: Database) -> Database:
    connection = database.connect()
    shop.create_tables(connection)
    shop.fill_tables(connection, rows=ROWS)
    return database


@pytest.fixture
def copy(small_shop: Database, tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The shop as DuckDB holds it, written by nothing but INSERT."""
    with duckdb.connect(str(tmp_path / "copy.db")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table in shop.TABLES:
            with small_shop.connect().cursor() as cursor:
                cursor.execute(f"SELECT * FROM {table}")
                names = [str(column[0]) for column in cursor.description]
                rows = list(cursor.fetchall())
            kinds = [DUCKDB_TYPES.get(name, "VARCHAR" if name in TEXTS else "BIGINT") for name in names]
            columns = ", ".join(f'"{name}" {kind}' for name, kind in zip(names, kinds, strict=True))
            connection.execute(f"CREATE TABLE {table} ({columns})")
            marks = ", ".join("?" * len(names))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        yield connection


def test_the_shop_has_the_number_of_rows_that_was_asked_for(small_shop: Database) -> None:
    sizes = shop.table_sizes(ROWS)
    counted = {name: rows_of(small_shop, f"SELECT COUNT(*) FROM {name}")[0][0] for name in shop.TABLES}
    assert counted == sizes
    assert sum(counted.values()) == ROWS
    assert sum(shop.table_sizes().values()) == shop.ROWS == 200_000


def test_the_same_seed_makes_the_same_rows(small_shop: Database) -> None:
    before = {name: rows_of(small_shop, f"SELECT * FROM {name}") for name in shop.TABLES}
    small_shop.execute(*(f"TRUNCATE TABLE {name}" for name in shop.TABLES))
    shop.fill_tables(small_shop.connect(), rows=ROWS)
    after = {name: rows_of(small_shop, f"SELECT * FROM {name}") for name in shop.TABLES}
    assert {name: sorted(rows, key=repr) for name, rows in before.items()} == {
        name: sorted(rows, key=repr) for name, rows in after.items()
    }


def test_the_event_log_has_equal_rows_and_no_key(small_shop: Database) -> None:
    assert rows_of(small_shop, "SHOW KEYS FROM events WHERE NOT Non_unique") == []
    assert rows_of(small_shop, "SELECT 1 FROM events GROUP BY at, kind, customer_id HAVING COUNT(*) > 1")


def test_the_load_changes_every_table_and_counts_what_it_commits(small_shop: Database) -> None:
    before = {name: sorted(rows_of(small_shop, f"SELECT * FROM {name}"), key=repr) for name in shop.TABLES}
    load = Load(small_shop.url, rate=0).start()
    load.wait_for(300)
    figures = load.stop()
    assert figures.transactions >= 300
    assert figures.rows > figures.transactions
    assert figures.rollbacks > 0
    for name in shop.TABLES:
        assert sorted(rows_of(small_shop, f"SELECT * FROM {name}"), key=repr) != before[name], name


def test_the_load_changes_keys(small_shop: Database) -> None:
    with Load(small_shop.url, rate=0) as load:
        load.wait_for(300)
    assert rows_of(small_shop, "SELECT 1 FROM order_lines WHERE line > 100")
    assert rows_of(small_shop, f"SELECT 1 FROM orders WHERE id < {shop.FIRST_ORDER}")


def test_two_loads_work_side_by_side(small_shop: Database) -> None:
    with Load(small_shop.url, rate=0, seed=1) as first, Load(small_shop.url, rate=0, seed=2) as second:
        first.wait_for(200)
        second.wait_for(200)


def test_a_load_that_loses_its_table_says_so(small_shop: Database) -> None:
    load = Load(small_shop.url, rate=0).start()
    load.wait_for(10)
    small_shop.execute("DROP TABLE products")
    with pytest.raises(pymysql.MySQLError, match="products"):
        load.wait_for(1_000_000)
    with pytest.raises(pymysql.MySQLError, match="products"):
        load.stop()


def test_a_load_that_survives_goes_on_after_its_connection_is_killed(small_shop: Database) -> None:
    load = Load(small_shop.url, rate=0, survive=True).start()
    load.wait_for(20)
    of_the_load = [each.number for each in sessions(small_shop.url) if each.database == small_shop.name]
    assert of_the_load
    others = small_shop.connect(database=None)
    with others.cursor() as cursor:
        for number in of_the_load:
            try:
                cursor.execute(f"KILL {number}")
            except pymysql.MySQLError as error:
                assert error.args[0] == 1094  # noqa: PT017 - ER_NO_SUCH_THREAD: it had just ended
    load.wait_for(load.figures.transactions + 50)
    load.stop()


def test_equal_contents_are_equal_whatever_the_order_of_rows(
    small_shop: Database, copy: duckdb.DuckDBPyConnection
) -> None:
    copy.execute('CREATE TABLE sorted AS SELECT * FROM events ORDER BY kind DESC, "at"')
    copy.execute("DELETE FROM events")
    copy.execute("INSERT INTO events SELECT * FROM sorted")
    results = [compare_table(small_shop.connect(), copy, name) for name in shop.TABLES]
    assert [result.table for result in results if not result.equal] == []
    assert sum(result.copy_rows for result in results) == ROWS


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("customers", "UPDATE customers SET name = name || ' ' WHERE id = 7"),
        ("customers", """UPDATE customers SET preferences = '{"theme": "other"}' WHERE id = 7"""),
        ("customers", "UPDATE customers SET created_at = created_at + INTERVAL 1 MICROSECOND WHERE id = 7"),
        ("customers", "UPDATE customers SET newsletter = NOT newsletter WHERE id = 7"),
        ("products", "UPDATE products SET price = price + 0.01 WHERE sku = 'SKU-000003'"),
        ("products", "UPDATE products SET weight = 0 WHERE sku = 'SKU-000003'"),
        ("orders", "UPDATE orders SET placed_at = placed_at + INTERVAL 1 HOUR WHERE id = 1000001"),
    ],
)
def test_one_changed_value_is_a_difference_on_both_sides(
    small_shop: Database, copy: duckdb.DuckDBPyConnection, table: str, change: str
) -> None:
    copy.execute(change)
    result = compare_table(small_shop.connect(), copy, table)
    assert (result.only_source, result.only_copy) == (1, 1)
    assert len(result.samples) == 2


def test_an_equal_row_that_is_there_once_too_often_is_a_difference(
    small_shop: Database, copy: duckdb.DuckDBPyConnection
) -> None:
    copy.execute("INSERT INTO events SELECT * FROM events WHERE kind = 'login' LIMIT 1")
    result = compare_table(small_shop.connect(), copy, "events")
    assert (result.only_source, result.only_copy) == (0, 1)


def test_a_column_that_the_copy_lacks_is_a_difference(
    small_shop: Database, copy: duckdb.DuckDBPyConnection
) -> None:
    copy.execute("ALTER TABLE orders DROP COLUMN due")
    assert not compare_table(small_shop.connect(), copy, "orders").equal


def test_the_probe_measures_every_row_until_it_is_seen(database: Database) -> None:
    Probe.create_table(database.url)
    connection = database.connect()

    def seen() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT COALESCE(MAX(id), 0) FROM probe")
            return int(cursor.fetchone()[0])

    probe = Probe(database.url, seen, interval=0.001).start()
    probe.wait_for(20)
    figures = probe.stop()
    assert figures.rows == rows_of(database, "SELECT COUNT(*) FROM probe")[0][0]
    assert figures.p50 is not None
    assert figures.highest is not None
    assert 0 <= figures.p50 <= figures.highest


def test_a_probe_whose_reader_fails_raises_that_error(database: Database) -> None:
    Probe.create_table(database.url)

    def seen() -> int:
        raise OSError("the copy is gone")

    probe = Probe(database.url, seen, interval=0.001).start()
    with pytest.raises(OSError, match="the copy is gone"):
        probe.wait_for(1)
    with pytest.raises(OSError, match="the copy is gone"):
        probe.stop()


@pytest.mark.parametrize(("percent", "expected"), [(50, 2.0), (95, 4.0), (100, 4.0), (0, 1.0), (25, 1.0)])
def test_a_percentile_is_a_value_of_the_list_by_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == expected
