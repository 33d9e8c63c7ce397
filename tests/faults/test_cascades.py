"""Foreign keys whose actions the source does not log: MariaDB, and MySQL with InnoDB's own foreign keys.

The children's rows change without an event of theirs; the copy must have them all the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pymysql
import pytest

import cdc.cascades
from cdc.sandbox.databases import Database, Host, create_database
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import running
from cdc.status import TableState
from tests.replica import Replica
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

REFUSED = {1451, 1452, 1062, 1048, 1364, 1213}
"""A foreign key refuses, a key is taken: what random statements run into."""


@pytest.fixture(scope="module", params=list(Flavor), ids=str)
def silent_server(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A server that does not log what its foreign keys do."""
    if request.param is Flavor.MARIADB:
        yield request.getfixturevalue("mariadb_server")
        return
    with running(Flavor.MYSQL, "--innodb-native-foreign-keys=ON") as server:
        yield server


@pytest.fixture
def family(silent_server: Host) -> Iterator[Database]:
    database = create_database(silent_server)
    yield database
    database.drop()


TREE = (
    "CREATE TABLE country (code INT PRIMARY KEY, name VARCHAR(20))",
    "CREATE TABLE town (id INT PRIMARY KEY, country INT, name VARCHAR(20), KEY (country),"
    " FOREIGN KEY (country) REFERENCES country (code) ON DELETE CASCADE ON UPDATE CASCADE)",
    "CREATE TABLE house (id INT PRIMARY KEY, town INT, FOREIGN KEY (town) REFERENCES town (id)"
    " ON DELETE CASCADE ON UPDATE CASCADE)",
    "CREATE TABLE guest (town INT, house INT, note VARCHAR(20),"
    " FOREIGN KEY (town) REFERENCES town (id) ON DELETE SET NULL ON UPDATE CASCADE,"
    " FOREIGN KEY (house) REFERENCES house (id) ON DELETE CASCADE ON UPDATE SET NULL)",
    "CREATE TABLE folder (id INT PRIMARY KEY, inside INT,"
    " FOREIGN KEY (inside) REFERENCES folder (id) ON DELETE CASCADE)",
    "INSERT INTO country VALUES (1, 'one'), (2, 'two'), (3, 'three')",
    "INSERT INTO town VALUES (10, 1, 'a'), (11, 1, 'b'), (20, 2, 'c'), (30, 3, 'd'), (40, NULL, 'e')",
    "INSERT INTO house VALUES (100, 10), (101, 10), (110, 11), (200, 20), (300, 30)",
    "INSERT INTO guest VALUES (10, 100, 'x'), (10, 100, 'x'), (20, 100, 'y'), (20, 110, 'z'), (30, NULL, 'n')",
    "INSERT INTO folder VALUES (1, NULL), (2, 1), (3, 2), (4, 3), (5, NULL), (6, 5)",
)


def assert_followed(replica: Replica) -> None:
    """Equal, and no table was copied twice."""
    replica.catch_up()
    replica.assert_equal()
    copies = replica.copies()
    assert len(copies) == len(set(copies)), copies


def test_what_a_cascade_does_over_several_levels_is_in_the_copy(
    family: Database, replica_factory: Callable[..., Replica]
) -> None:
    family.execute(*TREE)
    replica = replica_factory(family.url).start()
    for statement in (
        "DELETE FROM country WHERE code = 1",
        "UPDATE country SET code = 7 WHERE code = 2",
        "UPDATE town SET id = 31 WHERE id = 30",
        "UPDATE house SET id = 201 WHERE id = 200",
        "DELETE FROM folder WHERE id = 2",
        "UPDATE country SET name = 'renamed'",
        "REPLACE INTO country VALUES (7, 'again')",
        "DELETE FROM town",
        "DELETE FROM folder",
    ):
        family.execute(statement)
        assert_followed(replica)


@pytest.mark.parametrize("unindexed", ["", "*"], ids=["index", "no index"])
def test_a_moved_child_takes_the_place_of_one_that_went_unseen(
    family: Database, replica_factory: Callable[..., Replica], unindexed: str
) -> None:
    family.execute(
        "CREATE TABLE owner (id INT PRIMARY KEY)",
        "CREATE TABLE pet (owner INT, n INT, note VARCHAR(9), PRIMARY KEY (owner, n),"
        " FOREIGN KEY (owner) REFERENCES owner (id) ON DELETE CASCADE ON UPDATE CASCADE)",
        "INSERT INTO owner VALUES (1), (2), (3)",
        "INSERT INTO pet VALUES (1, 1, 'first'), (2, 1, 'unseen'), (3, 1, 'third')",
    )
    replica = replica_factory(family.url, unindexed_tables=unindexed).start()
    family.execute(
        "SET SESSION sql_log_bin = 0",
        "DELETE FROM owner WHERE id = 2",
        "SET SESSION sql_log_bin = 1",
        "UPDATE owner SET id = 2 WHERE id = 1",
    )
    assert_followed(replica)
    assert replica.rows("SELECT * FROM pet ORDER BY ALL") == [(2, 1, "first"), (3, 1, "third")]


def test_rows_behind_a_cascade_in_the_log_are_behind_it_in_the_copy(
    family: Database, replica_factory: Callable[..., Replica]
) -> None:
    """Children that come again under the same values, in one transaction and so in one batch."""
    family.execute(*TREE)
    replica = replica_factory(family.url).start()
    with family.connect(autocommit=False).cursor() as cursor:
        for statement in (
            "INSERT INTO town VALUES (12, 1, 'before')",
            "DELETE FROM country WHERE code = 1",
            "INSERT INTO country VALUES (1, 'again')",
            "INSERT INTO town VALUES (10, 1, 'behind')",
            "UPDATE town SET country = 1 WHERE id = 20",
            "UPDATE country SET code = 9 WHERE code = 1",
            "INSERT INTO country VALUES (1, 'thrice')",
            "INSERT INTO town VALUES (12, 1, 'last')",
            "UPDATE country SET code = code + 100 ORDER BY code DESC",
            "DELETE FROM country WHERE code = 109",
        ):
            cursor.execute(statement)
        cursor.connection.commit()
    assert_followed(replica)


def test_a_savepoint_takes_its_cascades_back(
    family: Database, replica_factory: Callable[..., Replica]
) -> None:
    family.execute(*TREE)
    replica = replica_factory(family.url).start()
    with family.connect(autocommit=False).cursor() as cursor:
        for statement in (
            "DELETE FROM country WHERE code = 2",
            "SAVEPOINT before_it",
            "DELETE FROM country WHERE code = 1",
            "ROLLBACK TO before_it",
            "UPDATE country SET code = 5 WHERE code = 3",
        ):
            cursor.execute(statement)
        cursor.connection.commit()
    assert_followed(replica)


def test_without_checks_nothing_cascades(family: Database, replica_factory: Callable[..., Replica]) -> None:
    family.execute(*TREE)
    replica = replica_factory(family.url).start()
    with family.connect().cursor() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
        cursor.execute("DELETE FROM country WHERE code = 1")
        cursor.execute("UPDATE town SET id = 21 WHERE id = 20")
    assert_followed(replica)
    assert replica.value("SELECT count(*) FROM town WHERE country = 1") == 2


def test_a_transaction_in_parts_cascades_as_a_whole_one(
    family: Database, replica_factory: Callable[..., Replica]
) -> None:
    family.execute(*TREE)
    replica = replica_factory(family.url, batch_size=5).start()
    with family.connect(autocommit=False).cursor() as cursor:
        for i in range(1_000, 1_040):
            cursor.execute("INSERT INTO country VALUES (%s, 'n')", (i,))
            cursor.execute("INSERT INTO town VALUES (%s, %s, 't')", (i, i))
        cursor.execute("DELETE FROM country WHERE code >= 1000 AND code % 2")
        cursor.execute("UPDATE country SET code = code + 5000 WHERE code >= 1000")
        cursor.connection.commit()
    assert_followed(replica)


def test_text_keys_that_differ_by_case_are_followed_or_copied_again(
    family: Database, replica_factory: Callable[..., Replica]
) -> None:
    family.execute(
        "CREATE TABLE tag (name VARCHAR(20) PRIMARY KEY)",
        "CREATE TABLE post (id INT PRIMARY KEY, tag VARCHAR(20),"
        " FOREIGN KEY (tag) REFERENCES tag (name) ON DELETE CASCADE ON UPDATE CASCADE)",
        "INSERT INTO tag VALUES ('Red'), ('Blue'), ('Green')",
        "INSERT INTO post VALUES (1, 'Red'), (2, 'Red'), (3, 'Blue'), (4, 'Green')",
    )
    replica = replica_factory(family.url).start()
    family.execute("UPDATE tag SET name = 'Rouge' WHERE name = 'Red'", "DELETE FROM tag WHERE name = 'Blue'")
    assert_followed(replica)
    family.execute("INSERT INTO post VALUES (5, 'gREEN')", "DELETE FROM tag WHERE name = 'Green'")
    wait_until(lambda: replica.copies().count("post") == 2, "the table is copied again")
    replica.settle()
    replica.assert_equal()


def test_generated_columns_behind_a_cascade_are_right(
    family: Database, replica_factory: Callable[..., Replica]
) -> None:
    family.execute(
        "CREATE TABLE p (id INT PRIMARY KEY)",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, q INT AS (p + 1) VIRTUAL, KEY (p),"
        " FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE ON UPDATE CASCADE)",
        "INSERT INTO p VALUES (1), (2)",
        "INSERT INTO c (id, p) VALUES (1, 1), (2, 2)",
    )
    replica = replica_factory(family.url).start()
    family.execute("DELETE FROM p WHERE id = 1")
    assert_followed(replica)
    family.execute("UPDATE p SET id = 9 WHERE id = 2")
    wait_until(lambda: replica.copies().count("c") == 2, "the table is copied again")
    replica.settle()
    replica.assert_equal()


def test_a_child_whose_parent_is_left_out_is_set_aside(
    family: Database, replica_factory: Callable[..., Replica]
) -> None:
    family.execute(*TREE)
    replica = replica_factory(family.url, excluded_tables="country").start(live=False)
    replica.pipeline.wait_streaming(60)
    states = {table.table: table for table in replica.pipeline.status().tables}
    assert {name for name, table in states.items() if table.state is TableState.ERRORED} == {
        "town",
        "house",
        "guest",
    }
    assert "not replicated" in (states["town"].reason or "")
    assert states["folder"].state is TableState.STREAMING


def test_a_child_is_copied_together_with_its_parents(
    family: Database, replica_factory: Callable[..., Replica]
) -> None:
    family.execute(*TREE)
    replica = replica_factory(family.url).start()
    replica.pipeline.start_table_sync("house", "full").wait(60)
    assert replica.copies().count("house") == replica.copies().count("country") == 2
    assert replica.copies().count("folder") == 1
    family.execute("DELETE FROM country WHERE code = 1")
    replica.catch_up()
    replica.assert_equal()


def test_a_key_that_is_added_or_dropped_while_streaming_counts_from_there(
    family: Database, replica_factory: Callable[..., Replica]
) -> None:
    family.execute(
        "CREATE TABLE p (id INT PRIMARY KEY)",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, KEY (p))",
        "INSERT INTO p VALUES (1), (2), (3)",
        "INSERT INTO c VALUES (1, 1), (2, 2), (3, 3)",
    )
    replica = replica_factory(family.url).start()
    family.execute("ALTER TABLE c ADD CONSTRAINT k FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE")
    family.execute("DELETE FROM p WHERE id = 1")
    replica.settle()
    replica.assert_equal()
    replica.stop()
    family.execute(
        "DELETE FROM p WHERE id = 2", "ALTER TABLE c DROP FOREIGN KEY k", "DELETE FROM p WHERE id = 3"
    )
    replica.start(live=False).settle()
    replica.assert_equal()
    assert replica.value("SELECT count(*) FROM c") == 1


@pytest.mark.parametrize("seed", range(3))
def test_random_changes_of_a_family_of_tables_leave_both_sides_equal(
    family: Database, replica_factory: Callable[..., Replica], seed: int
) -> None:
    family.execute(*TREE)
    replica = replica_factory(family.url, batch_size=7 if seed == 1 else 50_000).start()
    chance = random.Random(seed)
    tables = {"country": "code", "town": "id", "house": "id", "folder": "id"}
    parents = {"town": ("country", "country"), "house": ("town", "town"), "folder": ("inside", "folder")}
    connection = family.connect(autocommit=False)
    for _ in range(120):
        with connection.cursor() as cursor:
            for _ in range(chance.randint(1, 6)):
                table = chance.choice([*tables, "guest"])
                key, new = chance.randrange(40), chance.randrange(40)
                try:
                    if table == "guest":
                        cursor.execute("INSERT INTO guest VALUES (%s, %s, 'r')", (key, new))
                    elif chance.random() < 0.3:
                        cursor.execute(f"DELETE FROM {table} WHERE {tables[table]} = %s", (key,))
                    elif chance.random() < 0.3 and table != "folder":
                        cursor.execute(
                            f"UPDATE {table} SET {tables[table]} = %s WHERE {tables[table]} = %s", (new, key)
                        )
                    elif table in parents:
                        column, _ = parents[table]
                        cursor.execute(
                            f"INSERT INTO {table} ({tables[table]}, {column}) VALUES (%s, %s)"
                            f" ON DUPLICATE KEY UPDATE {column} = VALUES({column})",
                            (key, new),
                        )
                    else:
                        cursor.execute(f"INSERT INTO {table} VALUES (%s, 'r')", (key,))
                except pymysql.MySQLError as error:
                    if error.args[0] not in REFUSED:
                        raise
            (connection.rollback if chance.random() < 0.1 else connection.commit)()
    assert_followed(replica)


def test_a_parent_that_is_set_aside_takes_its_children_along_and_brings_them_back(
    family: Database, replica_factory: Callable[..., Replica]
) -> None:
    family.execute(*TREE)
    replica = replica_factory(family.url).start()
    # A column that the copy has in another shape than the log: the parent must be copied again.
    family.execute(
        "ALTER TABLE country ADD COLUMN extra INT AS (code * 2) STORED", "DELETE FROM country WHERE code = 1"
    )
    replica.settle()
    replica.assert_equal()
    family.execute("DELETE FROM country WHERE code = 2")
    replica.catch_up()
    replica.assert_equal()


@pytest.mark.parametrize("image", ["MINIMAL", "NOBLOB"])
def test_images_that_lack_columns_tell_enough_of_a_parent(
    family: Database, replica_factory: Callable[..., Replica], image: str
) -> None:
    family.execute(*TREE)
    replica = replica_factory(family.url).start()
    with family.connect().cursor() as cursor:
        cursor.execute(f"SET SESSION binlog_row_image = {image}")
        cursor.execute("UPDATE country SET name = 'renamed' WHERE code = 3")
        cursor.execute("UPDATE country SET code = 8 WHERE code = 1")
        cursor.execute("DELETE FROM country WHERE code = 2")
        cursor.execute("DELETE FROM house WHERE id = 100")
    assert_followed(replica)
    assert replica.value("SELECT count(*) FROM town WHERE country = 8") == 2


def test_a_table_that_leaves_the_stream_is_noted_also_where_that_took_two_attempts(
    family: Database, replica_factory: Callable[..., Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory lacks, the writer rolls a job back and runs it again."""
    family.execute(
        "CREATE TABLE parent (id INT PRIMARY KEY)",
        "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
        "INSERT INTO parent VALUES (1), (2)",
        "INSERT INTO child VALUES (10, 1), (20, 2)",
    )
    replica = replica_factory(family.url).start()
    taken_out = cdc.cascades._take_out
    attempts: list[tuple[list[str], list[str]]] = []

    def lacks_memory_once(*arguments: Any) -> list[str]:
        live = arguments[3]
        before = sorted(live)
        attempts.append((before, taken_out(*arguments)))
        if attempts[-1][1] and sum(bool(done) for _, done in attempts) == 1:
            raise duckdb.OutOfMemoryException("Out of Memory Error: could not allocate block")
        return attempts[-1][1]

    monkeypatch.setattr(cdc.cascades, "_take_out", lacks_memory_once)
    family.execute(
        "ALTER TABLE parent ADD COLUMN twice INT AS (id * 2) STORED",  # the parent must be copied again
        "INSERT INTO child VALUES (21, 2)",
        "DELETE FROM parent WHERE id = 2",
    )
    replica.settle()
    replica.assert_equal()
    failed = next(at for at, (_, done) in enumerate(attempts) if done)
    assert attempts[failed + 1] == attempts[failed] == (["child"], ["child"])
