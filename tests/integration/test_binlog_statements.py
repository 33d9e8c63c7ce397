"""Sessions that log statements instead of rows: the tables that they touch are copied again, the others go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.sandbox.databases import Database
from tests.replica import Replica

pytestmark = pytest.mark.timeout(90)

TABLES = (
    "CREATE TABLE a (id INT PRIMARY KEY, n INT)",
    "CREATE TABLE b (id INT PRIMARY KEY, n INT)",
    "INSERT INTO a VALUES (1, 1), (2, 2)",
    "INSERT INTO b VALUES (1, 1)",
)


def _run(database: Database, *statements: str) -> None:
    database.execute("SET SESSION binlog_format = STATEMENT", *statements)


def test_a_table_changed_by_a_logged_statement_is_copied_again_and_the_others_stay(
    database: Database, replica: Replica
) -> None:
    database.execute(*TABLES)
    replica.start()
    _run(database, "UPDATE a SET n = n * 10", "INSERT INTO a VALUES (3, 3)")
    database.execute("INSERT INTO b VALUES (2, 2)")
    replica.settle()
    assert replica.assert_equal() == 5
    assert replica.copies().count("b") == 1


def test_rows_of_other_tables_in_the_same_transaction_are_applied_once(
    database: Database, replica: Replica
) -> None:
    database.execute(*TABLES)
    replica.start()
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO b VALUES (5, 5)")
        cursor.execute("COMMIT")
        cursor.execute("SET SESSION binlog_format = STATEMENT")
        cursor.execute("BEGIN")
        cursor.execute("DELETE FROM a WHERE id = 1")
        cursor.execute("SAVEPOINT s")
        cursor.execute("UPDATE a SET n = 0")
        cursor.execute("COMMIT")
    replica.settle()
    assert replica.assert_equal() == 3


def test_a_statement_that_fires_a_trigger_has_every_table_copied_again(
    database: Database, replica: Replica
) -> None:
    """Its text does not name the table that the trigger writes."""
    database.execute(
        *TABLES, "CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW INSERT INTO b VALUES (NEW.id, NEW.n)"
    )
    replica.start()
    _run(database, "INSERT INTO a VALUES (7, 7)")
    replica.settle()
    assert replica.assert_equal() == 5


def test_a_statement_through_a_view_reaches_its_table(database: Database, replica: Replica) -> None:
    database.execute(*TABLES, "CREATE VIEW seen AS SELECT id, n FROM a")
    replica.start()
    _run(database, "UPDATE seen SET n = 99 WHERE id = 1")
    replica.settle()
    assert replica.assert_equal() == 3


def test_a_statement_on_a_table_that_is_not_captured_changes_nothing(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(*TABLES, "CREATE TABLE left_out (id INT PRIMARY KEY)")
    replica = replica_factory(database.url, excluded_tables=["left_out"]).start()
    _run(database, "INSERT INTO left_out VALUES (1)")
    database.execute("INSERT INTO a VALUES (9, 9)")
    replica.catch_up()
    assert replica.assert_equal(without=["left_out"]) == 4
    assert replica.pipeline.status().errors == 0
