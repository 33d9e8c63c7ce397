"""Compressed transactions (MySQL) and compressed events (MariaDB): the same rows as without."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cdc.sandbox.databases import Database, Host, create_database
from tests.replica import Replica

pytestmark = pytest.mark.timeout(90)

TABLES = (
    "CREATE TABLE texts (id INT PRIMARY KEY, body LONGTEXT, n INT)",
    "CREATE TABLE keyless (a INT, body TEXT)",
    "INSERT INTO texts VALUES (1, REPEAT('a', 3000), 1), (2, 'short', 2)",
)


@pytest.fixture
def mysql(mysql_server: Host) -> Iterator[Database]:
    made = create_database(mysql_server)
    made.execute(*TABLES)
    yield made
    made.drop()


@pytest.fixture
def compressing_mariadb(mariadb_server: Host) -> Iterator[Database]:
    """The settings are global there; whoever connects afterwards has them."""
    made = create_database(mariadb_server)
    made.execute(*TABLES)
    made.execute("SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10")
    yield made
    made.execute("SET GLOBAL log_bin_compress = OFF, GLOBAL log_bin_compress_min_len = 256")
    made.drop()


CHANGES = (
    "INSERT INTO texts VALUES (3, REPEAT('b', 5000), 3), (4, NULL, 4), (5, '', 5)",
    "UPDATE texts SET body = REPEAT('c', 100000), n = n + 10 WHERE id < 3",
    "UPDATE texts SET id = id + 100 WHERE id = 4",
    "DELETE FROM texts WHERE id = 5",
    "INSERT INTO keyless VALUES (1, REPEAT('x', 900)), (1, REPEAT('x', 900)), (2, NULL)",
    "DELETE FROM keyless WHERE a = 1 LIMIT 1",
)


def _changed(database: Database, *first: str) -> None:
    with database.connect() as session, session.cursor() as cursor:
        for statement in first:
            cursor.execute(statement)
        for statement in CHANGES:
            cursor.execute(statement)
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO texts VALUES (200, REPEAT('y', 2000), 1)")
        cursor.execute("SAVEPOINT s")
        cursor.execute("INSERT INTO texts VALUES (201, REPEAT('z', 2000), 1)")
        cursor.execute("ROLLBACK TO s")
        cursor.execute("UPDATE texts SET n = -1 WHERE id = 1")
        cursor.execute("COMMIT")


@pytest.mark.parametrize("batch_size", [50_000, 2])
def test_compressed_transactions_are_applied_as_others_are(
    mysql: Database, replica_factory: Callable[..., Replica], batch_size: int
) -> None:
    replica = replica_factory(mysql.url, batch_size=batch_size).start()
    _changed(mysql, "SET SESSION binlog_transaction_compression = ON")
    replica.catch_up()
    assert replica.assert_equal() == 7
    _changed_back = ("SET SESSION binlog_transaction_compression = OFF", "DELETE FROM texts WHERE id = 1")
    mysql.execute(*_changed_back)
    replica.catch_up()
    assert replica.assert_equal() == 6
    assert replica.pipeline.status().errors == 0


def test_a_stream_goes_on_between_compressed_transactions_after_a_restart(
    mysql: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(mysql.url).start()
    compress = "SET SESSION binlog_transaction_compression = ON"
    mysql.execute(compress, "INSERT INTO texts VALUES (10, REPEAT('q', 4000), 1)")
    replica.catch_up()
    replica.stop()
    mysql.execute(
        compress, "INSERT INTO texts VALUES (11, REPEAT('q', 4000), 1)", "DELETE FROM texts WHERE id = 2"
    )
    replica.start()
    replica.catch_up()
    assert replica.assert_equal() == 3


def test_a_large_compressed_transaction_is_unpacked_piece_by_piece(
    mysql: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(mysql.url, batch_size=1_000).start()
    mysql.execute(
        "SET SESSION binlog_transaction_compression = ON, SESSION cte_max_recursion_depth = 100000",
        "INSERT INTO texts WITH RECURSIVE n (i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 21000)"
        " SELECT i, REPEAT('w', 500), i FROM n",
    )
    replica.catch_up()
    assert replica.assert_equal() == 20_003


@pytest.mark.parametrize("batch_size", [50_000, 2])
def test_compressed_events_are_applied_as_others_are(
    compressing_mariadb: Database, replica_factory: Callable[..., Replica], batch_size: int
) -> None:
    replica = replica_factory(compressing_mariadb.url, batch_size=batch_size).start()
    _changed(compressing_mariadb)
    replica.catch_up()
    assert replica.assert_equal() == 7
    assert replica.pipeline.status().errors == 0


def test_a_compressed_statement_is_read(
    compressing_mariadb: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(compressing_mariadb.url).start()
    compressing_mariadb.execute(
        f"CREATE TABLE made (id INT PRIMARY KEY COMMENT '{'long ' * 60}')",
        "INSERT INTO made VALUES (1), (2)",
        "TRUNCATE TABLE keyless /* a text of some length that is worth to be compressed, compressed */",
    )
    replica.settle()
    assert replica.assert_equal() == 4
