"""Events that stand between rows: none of them loses, doubles or stops anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from cdc.catch_up import CatchUp
from cdc.errors import RolledBackPartError
from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.servers import Server
from tests.replica import Replica
from tests.waiting import SECONDS

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def source(database: Database) -> Iterator[Database]:
    database.execute("CREATE TABLE t (id TINYINT PRIMARY KEY, v TINYINT)", "INSERT INTO t VALUES (1, 1)")
    yield database
    database.execute("SET GLOBAL binlog_checksum = CRC32")


def test_checksums_may_be_switched_off_and_on_while_the_stream_runs(
    source: Database, replica: Replica
) -> None:
    """Each switch begins a new file. A server that can't serve a reader without checksums ends its dump."""
    replica.start()
    for number, algorithm in enumerate(("NONE", "CRC32", "NONE", "CRC32"), start=2):
        source.execute(
            f"SET GLOBAL binlog_checksum = {algorithm}",
            f"INSERT INTO t VALUES ({number}, 1), ({number + 10}, 2), ({number + 20}, 3)",
        )
        replica.settle()
        replica.assert_equal()


def test_files_may_change_at_any_place_between_transactions(source: Database, replica: Replica) -> None:
    replica.start()
    source.execute(
        "FLUSH BINARY LOGS",
        "FLUSH BINARY LOGS",
        "INSERT INTO t VALUES (2, 2)",
        "FLUSH BINARY LOGS",
        "UPDATE t SET v = 5",
        "CREATE TABLE u (id INT PRIMARY KEY)",
        "FLUSH BINARY LOGS",
        "INSERT INTO u VALUES (1)",
        "FLUSH BINARY LOGS",
    )
    replica.settle()
    assert replica.assert_equal() == 3
    replica.stop()
    replica.start()
    source.execute("FLUSH BINARY LOGS", "DELETE FROM t WHERE id = 1")
    replica.catch_up()
    assert replica.assert_equal() == 2


def test_statements_and_values_that_only_explain_rows_change_nothing(
    source: Database, replica: Replica
) -> None:
    replica.start()
    explain = "binlog_rows_query_log_events" if source.flavor == "mysql" else "binlog_annotate_row_events"
    source.execute(
        f"SET SESSION {explain} = ON",
        "SET @x = 7",
        "INSERT INTO t VALUES (2, @x)",
        "INSERT INTO t SELECT 3, FLOOR(RAND() * 100)",
        "CREATE TEMPORARY TABLE temporary_one (id INT PRIMARY KEY)",
        "INSERT INTO temporary_one VALUES (1)",
        "INSERT INTO t SELECT 4, id FROM temporary_one",
        "DROP TEMPORARY TABLE temporary_one",
    )
    replica.catch_up()
    assert replica.assert_equal() == 4
    assert replica.pipeline.status().errors == 0


def test_a_table_made_from_a_query_arrives_with_its_rows(source: Database, replica: Replica) -> None:
    replica.start()
    source.execute(
        "CREATE TABLE made (PRIMARY KEY (id)) SELECT id, v FROM t", "INSERT INTO made VALUES (2, 2)"
    )
    replica.settle()
    assert replica.assert_equal() == 3


def test_a_savepoint_is_undone_and_what_takes_no_part_in_transactions_stays(
    source: Database, replica: Replica
) -> None:
    source.execute("CREATE TABLE plain (id INT PRIMARY KEY) ENGINE = MyISAM")
    replica.start()
    mixes = source.flavor == "mariadb"  # MySQL with GTIDs refuses it (error 1785)
    with source.connect() as session, session.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO t VALUES (2, 2)")
        cursor.execute("SAVEPOINT s")
        if mixes:
            cursor.execute("INSERT INTO plain VALUES (1)")
        cursor.execute("INSERT INTO t VALUES (3, 3)")
        cursor.execute("UPDATE t SET v = 9")
        cursor.execute("ROLLBACK TO s")
        cursor.execute("INSERT INTO t VALUES (4, 4)")
        cursor.execute("COMMIT")
        if mixes:
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO plain VALUES (2)")
            cursor.execute("INSERT INTO t VALUES (5, 5)")
            cursor.execute("INSERT INTO plain VALUES (3)")
            cursor.execute("ROLLBACK")
    source.execute("INSERT INTO plain VALUES (9)")
    replica.catch_up()
    assert replica.assert_equal() == (7 if mixes else 4)
    assert replica.pipeline.status().errors == 0


@pytest.mark.parametrize("size", [(1 << 24) - 200, (1 << 24) - 40, 1 << 24, (1 << 24) + 5, (1 << 25) - 100])
def test_rows_about_the_size_of_a_packet_arrive_whole(source: Database, replica: Replica, size: int) -> None:
    source.execute("CREATE TABLE large (id INT PRIMARY KEY, a LONGBLOB, b LONGBLOB)")
    replica.start()
    half = size // 2
    source.execute(
        f"INSERT INTO large VALUES (1, REPEAT('x', {half}), REPEAT('y', {size - half})), (2, 'behind', 'it')",
        "INSERT INTO t VALUES (9, 9)",
    )
    replica.catch_up()
    lengths = "SELECT id, octet_length(a) + octet_length(b) FROM large ORDER BY id"
    assert replica.rows(lengths) == [(1, size), (2, 8)]
    replica.assert_equal()


@pytest.mark.parametrize("way", ["stream", "copy"])
def test_a_savepoint_is_undone_of_which_a_part_was_handed_on(
    mariadb_server: Server, replica_factory: Callable[..., Replica], way: str
) -> None:
    """A table without transactions keeps the rollback in the log, which MySQL with GTIDs does not take. Batches of
    three rows are handed on before it."""
    database = create_database(mariadb_server)
    database.execute(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE keyless (v INT)",
        "CREATE TABLE plain (id INT PRIMARY KEY) ENGINE=MyISAM",
        "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
    )
    replica = replica_factory(database.url, batch_size=3).start()
    many = ", ".join(f"({number}, 0)" for number in range(10, 40))
    statements = (
        f"INSERT INTO t VALUES {many}",
        "SAVEPOINT s",
        "UPDATE t SET v = 100",
        "INSERT INTO keyless SELECT id FROM t",
        "DELETE FROM t WHERE id < 20",
        "INSERT INTO plain VALUES (1)",
        "ROLLBACK TO s",
        "UPDATE t SET v = v + 1 WHERE id > 2",
    )

    def write() -> None:
        with closing(database.connect(autocommit=False)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            connection.commit()

    if way == "stream":
        write()
    else:
        written_while_copied(replica, write)
    replica.settle()
    replica.assert_equal()
    assert replica.value("SELECT count(*) FROM keyless") == 0
    assert replica.copies().count("t") == (1 if way == "stream" else 2)
    database.execute("INSERT INTO keyless VALUES (1), (2), (3), (4)")
    replica.catch_up()
    replica.assert_equal()


def written_while_copied(replica: Replica, write: Callable[[], None]) -> None:
    """Copies all again; `write` comes between the snapshot and the catch-up. The copy fails, and is asked for again."""
    join = CatchUp.join
    written: list[bool] = []

    def join_behind_it(catch_up: CatchUp, *arguments: Any) -> None:
        if not written:
            written.append(True)
            write()
        join(catch_up, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CatchUp, "join", join_behind_it)
        with suppress(RolledBackPartError):
            replica.pipeline.start_full_sync().wait(SECONDS)
        replica.settle()
        if replica.copies().count("t") < 2:
            replica.pipeline.start_full_sync().wait(SECONDS)
