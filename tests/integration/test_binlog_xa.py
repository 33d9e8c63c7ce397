"""XA transactions: rows count from the verdict on, wherever it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cdc.sandbox.databases import Database
from tests.replica import Replica

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def source(database: Database) -> Iterator[Database]:
    database.execute(
        "CREATE TABLE x (id INT PRIMARY KEY, v VARCHAR(20))",
        "CREATE TABLE keyless (n INT)",
        "INSERT INTO x VALUES (1, 'one'), (2, 'two')",
    )
    yield database
    leave_nothing_prepared(database)


def leave_nothing_prepared(database: Database) -> None:
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("XA RECOVER")
        for number, first, second, data in cursor.fetchall():
            if database.name in data:
                cursor.execute(f"XA ROLLBACK '{data[:first]}','{data[first : first + second]}',{number}")


def prepare(database: Database, xid: str, *statements: str) -> str:
    """A prepared transaction; returns its name at the source."""
    name = f"'{database.name}{xid}','b',7"
    database.execute(f"XA START {name}", *statements, f"XA END {name}", f"XA PREPARE {name}")
    return name


def test_rows_of_an_xa_transaction_count_from_its_commit_on(source: Database, replica: Replica) -> None:
    replica.start()
    name = prepare(source, "a", "INSERT INTO x VALUES (3, 'three')", "DELETE FROM x WHERE id = 1")
    other = prepare(source, "b", "INSERT INTO x VALUES (4, 'never')")
    source.execute("INSERT INTO x VALUES (5, 'between')")
    replica.catch_up()
    assert replica.rows("SELECT id FROM x ORDER BY id") == [(1,), (2,), (5,)]
    source.execute(f"XA COMMIT {name}", f"XA ROLLBACK {other}")
    replica.catch_up()
    assert replica.rows("SELECT id FROM x ORDER BY id") == [(2,), (3,), (5,)]
    replica.assert_equal()
    assert replica.pipeline.status().errors == 0
    assert replica.rows("SELECT * FROM _duckling.prepared_transactions") == []


def test_an_xa_transaction_of_one_phase_counts_at_once(source: Database, replica: Replica) -> None:
    replica.start()
    source.execute(
        "XA START 'one'", "INSERT INTO keyless VALUES (1), (1)", "XA END 'one'", "XA COMMIT 'one' ONE PHASE"
    )
    replica.catch_up()
    assert replica.assert_equal() == 4
    assert replica.pipeline.status().errors == 0


@pytest.mark.parametrize("batch_size", [50_000, 2])
def test_a_verdict_after_a_restart_in_another_file_finds_the_prepared_rows(
    source: Database, replica_factory: Callable[..., Replica], batch_size: int
) -> None:
    replica = replica_factory(source.url, batch_size=batch_size).start()
    kept = prepare(
        source, "kept", "INSERT INTO x VALUES (3, 'a'), (4, 'b'), (6, 'd')", "INSERT INTO keyless VALUES (1)"
    )
    gone = prepare(source, "gone", "INSERT INTO x VALUES (5, 'c')")
    replica.catch_up()
    replica.stop()
    source.execute("FLUSH BINARY LOGS", "UPDATE x SET v = 'zwei' WHERE id = 2")
    replica.start()
    source.execute(f"XA COMMIT {kept}", "FLUSH BINARY LOGS", f"XA ROLLBACK {gone}")
    replica.catch_up()
    assert replica.assert_equal() == 6
    assert replica.pipeline.status().errors == 0
    assert replica.rows("SELECT * FROM _duckling.prepared_transactions") == []


def test_a_large_xa_transaction_is_kept_in_pieces_and_applied_in_parts(
    source: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(source.url, batch_size=1000, batch_bytes=1 << 21).start()
    source.execute(
        "CREATE TABLE d (n INT PRIMARY KEY)",
        "INSERT INTO d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
        "CREATE TABLE big (id INT PRIMARY KEY, body VARCHAR(3000))",
    )
    name = prepare(
        source,
        "big",
        "INSERT INTO big SELECT a.n + 10 * b.n + 100 * c.n + 1000 * e.n, REPEAT('x', 2500)"
        " FROM d a, d b, d c, d e",
    )
    replica.settle()
    replica.stop()
    replica.start()
    assert replica.value("SELECT count(*) FROM big") == 0
    assert replica.value("SELECT count(*) FROM _duckling.prepared_transactions") > 10
    source.execute(f"XA COMMIT {name}")
    replica.catch_up()
    assert replica.assert_equal() == 10_012
    assert replica.pipeline.status().errors == 0


def test_a_savepoint_inside_an_xa_transaction_is_respected(source: Database, replica: Replica) -> None:
    replica.start()
    name = prepare(
        source,
        "s",
        "INSERT INTO x VALUES (7, 'kept')",
        "SAVEPOINT s",
        "INSERT INTO x VALUES (8, 'undone')",
        "ROLLBACK TO s",
        "UPDATE x SET v = 'after' WHERE id = 7",
    )
    source.execute(f"XA COMMIT {name}")
    replica.catch_up()
    assert replica.assert_equal() == 3


def test_a_transaction_that_was_prepared_before_the_copy_is_not_lost(
    source: Database, replica: Replica
) -> None:
    """Nobody has read its rows: the tables are copied again."""
    name = prepare(source, "early", "INSERT INTO x VALUES (9, 'early')")
    replica.start()
    source.execute(f"XA COMMIT {name}", "INSERT INTO x VALUES (10, 'late')")
    replica.settle()
    assert replica.assert_equal() == 4


def test_what_is_prepared_while_tables_are_copied_again_is_in_the_copy_once_committed(
    source: Database, replica: Replica
) -> None:
    replica.start()
    name = prepare(source, "during", "INSERT INTO x VALUES (11, 'prepared')")
    run = replica.pipeline.start_full_sync()
    second = prepare(source, "during2", "INSERT INTO x VALUES (12, 'prepared')")
    run.wait(60)
    source.execute(f"XA COMMIT {name}", f"XA COMMIT {second}")
    replica.settle()
    assert replica.assert_equal() == 4
