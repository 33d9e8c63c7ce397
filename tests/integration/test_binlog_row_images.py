"""Sessions that log a part of each row: MINIMAL and NOBLOB images give the rows that FULL ones give."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.sandbox.databases import Database
from tests.replica import Replica

pytestmark = pytest.mark.timeout(90)

TABLES = (
    "CREATE TABLE wide (id INT PRIMARY KEY, a INT, b VARCHAR(20), t TEXT, d DECIMAL(10,2), e ENUM('x','y'),"
    " s SET('p','q'), at DATETIME(3), bits SMALLINT, bin VARBINARY(10), g INT GENERATED ALWAYS AS (a + 1) STORED)",
    "INSERT INTO wide (id, a, b, t, d, e, s, at, bits, bin) VALUES"
    " (1, 1, 'one', 'text one', 1.10, 'x', 'p,q', '2024-01-02 03:04:05.678', 341, x'00FF'),"
    " (2, 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),"
    " (3, 3, '', '', 0, 'y', '', '1000-01-01', 0, ''),"
    " (4, 4, 'four', REPEAT('4', 3000), 4, 'x', 'q', '9999-12-31 23:59:59.999', 1, x'01')",
    "CREATE TABLE pairs (a INT, b VARCHAR(10), n INT, t TEXT, PRIMARY KEY (b, a))",
    "INSERT INTO pairs VALUES (1,'x',1,'1x'), (1,'y',2,'1y'), (2,'x',3,'2x'), (2,'y',4,'2y')",
    "CREATE TABLE keyless (a INT, b INT, t TEXT)",
    "INSERT INTO keyless VALUES (1,1,'a'), (1,1,'a'), (2,NULL,NULL)",
    "CREATE TABLE clocked (d TIME PRIMARY KEY, n INT, m INT)",
    "INSERT INTO clocked VALUES ('-01:00:00', 1, 1), ('100:00:00', 2, 2)",
)

CHANGES = (
    "UPDATE wide SET a = 10 WHERE id = 1",
    "UPDATE wide SET b = 'uno', t = NULL WHERE id = 1",
    "UPDATE wide SET a = 11 WHERE id = 1",
    "UPDATE wide SET t = 'zwei', e = 'y', s = 'p' WHERE id = 2",
    "UPDATE wide SET id = 30 WHERE id = 3",
    "UPDATE wide SET d = 3.33, bits = 7 WHERE id = 30",
    "UPDATE wide SET id = 3 WHERE id = 30",
    "UPDATE wide SET id = id + 1 ORDER BY id DESC",
    "DELETE FROM wide WHERE id = 5",
    "INSERT INTO wide (id, a, b, t, d, e, s, at, bits, bin) VALUES"
    " (5, 5, 'five', 'fresh', 5, 'x', 'p', '2025-05-05', 5, x'05')",
    "UPDATE wide SET bin = x'0505' WHERE id = 5",
    "UPDATE pairs SET a = 3 WHERE a = 2 AND b = 'x'",
    "UPDATE pairs SET n = n * 10 WHERE a = 1",
    "UPDATE pairs SET b = 'z', t = CONCAT(t, '!') WHERE b = 'y'",
    "DELETE FROM pairs WHERE a = 1 AND b = 'x'",
    "UPDATE keyless SET b = 5 WHERE a = 2",
    "UPDATE keyless SET b = 9 WHERE a = 1 LIMIT 1",
    "DELETE FROM keyless WHERE b = 9",
    "INSERT INTO keyless VALUES (7, 7, 'seven')",
    "UPDATE clocked SET n = 5",
    "UPDATE clocked SET d = '-02:00:00' WHERE d < 0",
    "UPDATE clocked SET m = 6",
)


def _changed(database: Database, image: str, statements: tuple[str, ...], *, in_one: bool) -> None:
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute(f"SET SESSION binlog_row_image = {image}")
        if in_one:
            cursor.execute("BEGIN")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("COMMIT")


@pytest.mark.parametrize("batch_size", [50_000, 2])
@pytest.mark.parametrize("in_one", [True, False], ids=["one_transaction", "one_by_one"])
@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB"])
def test_changes_with_partial_row_images_leave_both_sides_equal(
    database: Database, replica_factory: Callable[..., Replica], image: str, in_one: bool, batch_size: int
) -> None:
    database.execute(*TABLES)
    replica = replica_factory(database.url, batch_size=batch_size).start()
    _changed(database, image, CHANGES, in_one=in_one)
    replica.catch_up()
    assert replica.assert_equal() == 12
    assert replica.pipeline.status().errors == 0


def test_full_and_partial_images_of_a_row_follow_each_other(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(*TABLES)
    replica = replica_factory(database.url).start()
    for image in ("FULL", "MINIMAL", "NOBLOB", "FULL", "MINIMAL"):
        database.execute(
            f"SET SESSION binlog_row_image = {image}",
            f"UPDATE wide SET b = '{image}', a = a + 1",
            "UPDATE wide SET id = id + 10 WHERE id = 2",
            "UPDATE wide SET t = CONCAT(COALESCE(t, ''), '+') WHERE id > 10",
            "UPDATE wide SET id = id - 10 WHERE id > 10",
        )
    replica.catch_up()
    assert replica.assert_equal() == 13
    assert replica.pipeline.status().errors == 0


def test_rows_rolled_back_to_a_savepoint_leave_no_trace(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(*TABLES)
    replica = replica_factory(database.url).start()
    _changed(
        database,
        "MINIMAL",
        (
            "UPDATE wide SET a = 100 WHERE id = 1",
            "SAVEPOINT s",
            "UPDATE wide SET a = 200 WHERE id = 1",
            "ROLLBACK TO s",
            "UPDATE wide SET b = 'kept' WHERE id = 1",
        ),
        in_one=True,
    )
    replica.catch_up()
    replica.assert_equal()
    assert replica.value("SELECT a FROM wide WHERE id = 1") == 100


def test_an_inserted_row_whose_image_lacks_columns_gets_their_values(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    """The log leaves out what the table's defaults gave."""
    database.execute(
        "CREATE TABLE given (id INT PRIMARY KEY, a INT DEFAULT 5, b VARCHAR(9) NOT NULL DEFAULT 'd', t TEXT)",
        "CREATE TABLE other (id INT PRIMARY KEY)",
    )
    replica = replica_factory(database.url).start()
    _changed(
        database,
        "MINIMAL",
        (
            "INSERT INTO given (id) VALUES (1)",
            "INSERT INTO given (id, t) VALUES (2, 'x')",
            "INSERT INTO other VALUES (1)",
        ),
        in_one=False,
    )
    replica.settle()
    assert replica.assert_equal() == 3
    assert replica.rows("SELECT * FROM given ORDER BY id") == [(1, 5, "d", None), (2, 5, "d", "x")]


def test_a_table_whose_unique_key_stands_in_for_a_primary_key_is_right(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    """The log names its rows by that key alone; the copy does not know it."""
    database.execute("CREATE TABLE u (a INT NOT NULL UNIQUE, b INT)", "INSERT INTO u VALUES (1, 1), (2, 2)")
    replica = replica_factory(database.url).start()
    _changed(
        database, "MINIMAL", ("UPDATE u SET b = 7 WHERE a = 1", "DELETE FROM u WHERE a = 2"), in_one=False
    )
    replica.settle()
    assert replica.assert_equal() == 1


def test_partial_images_are_applied_while_the_table_is_copied_again(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(*TABLES)
    replica = replica_factory(database.url).start()
    run = replica.pipeline.start_full_sync()
    for n in range(30):
        _changed(
            database,
            "MINIMAL",
            (f"UPDATE wide SET a = {n} WHERE id = 1", f"UPDATE pairs SET n = {n}"),
            in_one=True,
        )
    run.wait(60)
    replica.settle()
    assert replica.assert_equal() == 13
