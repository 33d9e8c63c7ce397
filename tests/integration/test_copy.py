"""The copy: every value of every table, seen by readers when it is whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from cdc.sandbox import shop
from cdc.sandbox.databases import Database
from cdc.status import TableState
from tests.replica import Replica, staging_tables
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(90)

SHAPES = (
    "CREATE TABLE `empty one` (id INT PRIMARY KEY, note TEXT)",
    """CREATE TABLE by_text (code VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT)""",
    "INSERT INTO by_text VALUES ('a', 1), ('B', 2), ('ß', 3), ('日本 🦆', 4), ('', 5)",
    "CREATE TABLE by_three (a INT, b VARBINARY(8), c DATE, note VARCHAR(9), PRIMARY KEY (c, a, b))",
    "INSERT INTO by_three VALUES (1, x'00ff', '2024-02-29', NULL), (1, x'00', '2024-02-29', 'x')",
    "CREATE TABLE equal_rows (n INT, x DOUBLE, f FLOAT, t VARCHAR(5), at DATETIME(3))",
    "INSERT INTO equal_rows VALUES (1, 0.1, 1.1, NULL, NULL), (1, 0.1, 1.1, NULL, NULL),"
    " (1, 0.1, 1.1, NULL, NULL), (NULL, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL)",
    'CREATE TABLE `sel``ect "it"` (`or"der` INT PRIMARY KEY, `naïve 名` VARCHAR(5), `a.b` INT)',
    "INSERT INTO `sel``ect \"it\"` VALUES (1, 'é', NULL), (-2, '', 7)",
    "CREATE TABLE unique_only (a INT NOT NULL UNIQUE, b INT UNIQUE)",
    "INSERT INTO unique_only VALUES (1, NULL), (2, NULL), (3, 3)",
    "CREATE VIEW looks AS SELECT * FROM by_text",
)


@pytest.fixture
def small_shop(database: Database) -> Database:
    connection = database.connect()
    shop.create_tables(connection)
    shop.fill_tables(connection, rows=5_000)
    return database


@pytest.mark.usefixtures("small_shop")
def test_every_value_of_every_table_is_equal_after_the_copy(replica: Replica) -> None:
    replica.start()
    assert replica.assert_equal() == 5_000


def test_the_size_of_its_pieces_does_not_change_the_copy(
    small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, copy_batch_rows=97, batch_bytes=1 << 16).start()
    assert replica.assert_equal() == 5_000


def test_tables_with_any_key_or_none_and_any_name_are_equal_after_the_copy(
    database: Database, replica: Replica
) -> None:
    database.execute(*SHAPES)
    replica.start()
    assert replica.assert_equal() == 17
    assert replica.value("SELECT count(*) FROM equal_rows WHERE n = 1 AND t IS NULL") == 3


def test_only_the_tables_that_the_settings_choose_are_copied(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(
        *(f"CREATE TABLE {name} AS SELECT 1 AS n" for name in ("orders", "order_log", "sessions"))
    )
    replica = replica_factory(database.url, included_tables="order*", excluded_tables="*_log").start()
    assert replica.assert_equal(without=("order_log", "sessions")) == 1


def test_a_source_without_tables_is_followed_from_the_first_one_on(
    database: Database, replica: Replica
) -> None:
    replica.start()
    assert replica.assert_equal() == 0
    database.execute("CREATE TABLE first (id INT PRIMARY KEY)", "INSERT INTO first VALUES (1), (2)")
    replica.settle()
    assert replica.assert_equal() == 2


def test_readers_see_the_old_rows_of_a_table_until_its_new_copy_is_whole(
    small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, copy_batch_rows=100).start()
    rows = shop.table_sizes(5_000)
    run = replica.pipeline.start_full_sync()
    seen: set[tuple[int, ...]] = set()
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in rows)
    with closing(replica.pipeline.reader()) as cursor:
        while not run.done:
            seen.update(cursor.execute(f"SELECT {counts}").fetchall())
    assert run.wait(0).errors == ()
    assert seen == {tuple(rows.values())}
    assert replica.assert_equal() == 5_000


def test_no_staging_table_stays_behind_a_copy_that_is_cancelled(
    small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, copy_batch_rows=20).start(live=False)
    run = wait_until(replica.pipeline.current_run, "the first copy begins")
    wait_until(lambda: sum(table.rows for table in run.progress()) > 500, "500 rows are copied")
    stopping = threading.Thread(target=replica.stop)
    stopping.start()
    stopping.join(10)
    assert not stopping.is_alive()

    again = replica_factory(small_shop.url).start(live=False)
    with closing(again.pipeline.reader()) as cursor:
        assert staging_tables(cursor) == set()
    again.wait_live()
    assert again.assert_equal() == 5_000


def test_a_copy_begins_behind_an_event_that_is_larger_than_the_servers_packets(
    database: Database, replica: Replica
) -> None:
    database.execute("CREATE TABLE files (id INT PRIMARY KEY, a LONGBLOB, b LONGBLOB)")
    half = "REPEAT('0123456789abcdef', 600000)"
    database.execute("FLUSH BINARY LOGS", f"INSERT INTO files VALUES (1, {half}, {half})")
    try:
        replica.start()
        assert replica.assert_equal() == 1
    finally:
        database.execute("FLUSH BINARY LOGS")


@pytest.mark.usefixtures("small_shop")
def test_the_states_of_tables_and_the_log_tell_of_the_copy(replica: Replica) -> None:
    replica.start()
    status = replica.pipeline.status()
    assert {table.table: table.rows for table in status.tables} == shop.table_sizes(5_000)
    assert {table.state for table in status.tables} == {TableState.STREAMING}
    logged = {entry.table: entry.records for entry in replica.pipeline.sync_log()}
    assert logged == shop.table_sizes(5_000)
