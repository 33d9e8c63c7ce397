"""How a statement is written changes nothing: comments, quoting, odd names, USE; and what is no table costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise

import pytest

from cdc.sandbox.databases import Database, create_database, session
from cdc.sandbox.installation import Flavor
from cdc.schema import quote_duckdb, quote_mysql
from tests.replica import Replica
from tests.schema.equality import assert_same

pytestmark = pytest.mark.timeout(90)

NAMES = [
    "back`tick",
    'dou"ble',
    "sin'gle",
    "sp ace",
    "dot.ted",
    "per%cent",
    "back\\slash",
    "semi;colon",
    "--dashes",
    "/*comment*/",
    "#hash",
    "par(en,the)ses",
    "select",
    "TABLE",
    "to",
    "1st",
    "$dollar",
    "трубл",
    "表テーブル",
    "☃ snow",
    "a" * 64,
]
"""Names that a table and its columns may bear. The servers allow none beyond U+FFFF."""


@pytest.fixture
def other(database: Database) -> Iterator[Database]:
    """A second database on the same server, of which nothing is copied."""
    made = create_database(database.server, database.name + "_other")
    yield made
    made.drop()


def settle_and_compare(database: Database, replica: Replica) -> None:
    """Asserts that the copy is what a fresh copy would be."""
    replica.settle()
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)


def copies(replica: Replica) -> int:
    """Tables that were copied so far, the first copies among them."""
    return sum(entry.sync_type == "snapshot" for entry in replica.pipeline.sync_log())


@pytest.mark.crossed
@pytest.mark.parametrize("backlog", [False, True], ids=["live", "backlog"])
def test_tables_and_columns_with_odd_names_are_altered_renamed_and_emptied(
    database: Database, replica: Replica, backlog: bool
) -> None:
    quoted = [quote_mysql(name) for name in NAMES]
    for name in quoted:
        database.execute(
            f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT)", f"INSERT INTO {name} VALUES (1, 1)"
        )
    replica.start()
    if backlog:
        replica.stop()
    for number, name in enumerate(quoted):
        column = quoted[number - 1]
        database.execute(
            f"ALTER TABLE {name} ADD COLUMN {column} VARCHAR(20) DEFAULT 'a`b,c)' AFTER id",
            f"UPDATE {name} SET {column} = 'x' WHERE id = 1",
            f"INSERT INTO {name} (id) VALUES (2)",
        )
    spare = quote_mysql("the `spare` one")
    database.execute(
        "RENAME TABLE "
        + ", ".join(f"{a} TO {spare}, {b} TO {a}, {spare} TO {b}" for a, b in pairwise(quoted)),
        f"TRUNCATE TABLE {quoted[3]}",
        f"DROP TABLE {quoted[4]}, {quoted[5]}",
        f"INSERT INTO {quoted[6]} (id) VALUES (77)",
    )
    if backlog:
        replica.start(live=False)
    settle_and_compare(database, replica)
    # Names of the copy are those of the source to the letter: quoting was undone, nothing else.
    assert replica.rows(f"SELECT id FROM {quote_duckdb(NAMES[6])} ORDER BY id")[-1] == (77,)


WRITTEN = {
    "comment_first": "/* RENAME TABLE t TO u; */ ALTER TABLE t ADD c INT DEFAULT 1",
    "comments_within": "ALTER/**/TABLE/* t2 */t -- TABLE u\n ADD /* DROP v, */ c INT # DROP COLUMN v\n DEFAULT 1",
    "executable_comment": "ALTER TABLE t /*!50000 ADD COLUMN c INT DEFAULT 5 */ /*!99999 , DROP COLUMN v */",
    "all_executable": "/*!50000 ALTER TABLE t DROP COLUMN v */",
    "lower_case_and_lines": "alter\n\ttable\r\n`t`\nadd\ncolumn\n`c`\nint",
    "semicolon_at_the_end": "ALTER TABLE t ADD c INT DEFAULT 1 ;",
    "a_string_like_sql": "ALTER TABLE t ADD c VARCHAR(60) DEFAULT 'x'', DROP v; -- ' COMMENT \"RENAME TO u\"",
    "backslash_in_a_string": "ALTER TABLE t ADD c VARCHAR(60) DEFAULT 'it\\'s \\\\', ADD d INT DEFAULT 4",
    "a_column_called_column": "ALTER TABLE t ADD `column` INT, ADD `first` INT FIRST, ADD `after` INT AFTER `first`",
    "no_word_column": "ALTER TABLE t ADD (c INT, d DECIMAL(5,2) DEFAULT 1.25), DROP v",
    "if_exists": "DROP TABLE IF EXISTS nothing, t",
    "truncate_without_table": "TRUNCATE t",
    "with_a_schema": "ALTER TABLE {schema}.t ADD c INT DEFAULT 1",
    "with_a_quoted_schema": "ALTER TABLE `{schema}` . `t` DROP COLUMN v",
    "rename_with_as": "ALTER TABLE t RENAME AS u",
    "rename_with_schemas": "RENAME TABLE {schema}.t TO {schema}.u, `u2` TO `{schema}`.`t`",
    "a_comment_of_the_table": "ALTER TABLE t COMMENT 'ADD COLUMN x INT', ADD INDEX (v)",
    "names_as_ansi": "SET sql_mode = 'ANSI_QUOTES'; ALTER TABLE \"t\" ADD \"c d\" INT DEFAULT 1, DROP \"v\"",
    "no_backslash_escapes": (
        "SET sql_mode = 'NO_BACKSLASH_ESCAPES'; ALTER TABLE t ADD c VARCHAR(9) DEFAULT 'a\\', ADD d INT DEFAULT 2"
    ),
    "in_another_character_set": "SET NAMES latin1; ALTER TABLE t ADD `né` VARCHAR(9) DEFAULT 'é'",
    "case_of_a_column": "ALTER TABLE t RENAME COLUMN v TO V, ADD c INT AFTER ID",
    "index_and_key_are_no_columns": "ALTER TABLE t ADD INDEX v_index (v), ADD UNIQUE KEY (n), ADD CHECK (v < 99)",
}  # fmt: skip


@pytest.mark.crossed
@pytest.mark.parametrize("backlog", [False, True], ids=["live", "backlog"])
def test_a_statement_is_understood_however_it_is_written(
    database: Database, replica: Replica, backlog: bool
) -> None:
    for number, written in enumerate(WRITTEN.values()):
        # Each has its own tables, so that all of them are tried on one replica.
        for name in ("t", "u2") if "u2" in written else ("t",):
            database.execute(
                f"CREATE TABLE {name}_{number} (id INT PRIMARY KEY, v INT, n INT)",
                f"INSERT INTO {name}_{number} VALUES (1, 2, 3), (4, NULL, 6)",
            )
    replica.start()
    if backlog:
        replica.stop()
    for number, written in enumerate(WRITTEN.values()):
        with session(database.url) as connection, connection.cursor() as cursor:
            for statement in own_names(written.format(schema=database.name), number):
                if statement.startswith("SET NAMES"):
                    connection.set_character_set("latin1")
                else:
                    cursor.execute(statement)
    if backlog:
        replica.start(live=False)
    settle_and_compare(database, replica)
    # What was derived must also fit the rows to come.
    with session(database.url) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW TABLES")
        for (name,) in cursor.fetchall():
            cursor.execute(f"INSERT INTO {quote_mysql(name)} (id) VALUES (9)")
    settle_and_compare(database, replica)


def own_names(written: str, number: int) -> list[str]:
    """The statements, with the tables t, u and u2 called t_1, u_1 and u2_1."""
    for name in ("t", "u", "u2"):
        for before, behind in (
            (" ", " "),
            (" ", ","),
            ("`", "`"),
            ('"', '"'),
            (".", " "),
            (".", ","),
            ("*/", " "),
        ):
            written = written.replace(f"{before}{name}{behind}", f"{before}{name}_{number}{behind}")
        for end in (f" {name}", f".{name}", f"`{name}"):
            if written.endswith(end):
                written += f"_{number}"
    return written.split("; ", 1) if written.startswith("SET ") else [written]


def test_a_statement_speaks_of_the_database_in_use_unless_it_names_another(
    database: Database, other: Database, replica: Replica
) -> None:
    make = ("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
    database.execute(*make, "CREATE TABLE w (id INT PRIMARY KEY)")
    other.execute(*make)
    replica.start()
    ours, theirs = quote_mysql(database.name), quote_mysql(other.name)
    before = copies(replica)
    database.execute(
        f"USE {theirs}",
        "ALTER TABLE t ADD COLUMN x INT DEFAULT 3 FIRST",
        "TRUNCATE TABLE t",
        "DROP TABLE t",
        f"CREATE TABLE t LIKE {ours}.t",
        "RENAME TABLE t TO w, w TO t",
    )
    settle_and_compare(database, replica)
    assert copies(replica) == before
    database.execute(
        f"USE {theirs}",
        f"ALTER TABLE {ours}.t ADD COLUMN y INT DEFAULT 4 FIRST",
        f"INSERT INTO {ours}.t VALUES (5, 2, 2)",
        f"CREATE TABLE {ours}.made (id INT PRIMARY KEY) SELECT * FROM t",
        f"TRUNCATE {ours}.w",
    )
    settle_and_compare(database, replica)
    database.execute(
        f"RENAME TABLE w TO {theirs}.gone, {theirs}.t TO came",
        "INSERT INTO came VALUES (8, 8)",
        f"USE {theirs}",
        f"ALTER TABLE {ours}.made RENAME TO {theirs}.made",
        f"RENAME TABLE gone TO {ours}.`back again`",
        f"INSERT INTO {ours}.`back again` VALUES (3)",
    )
    settle_and_compare(database, replica)


def test_a_database_that_is_dropped_and_made_again_is_followed(database: Database, replica: Replica) -> None:
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
    replica.start()
    name = quote_mysql(database.name)
    with session(database.server.url()) as connection, connection.cursor() as cursor:
        for statement in (
            f"DROP DATABASE {name}",
            f"CREATE DATABASE {name}",
            f"CREATE TABLE {name}.t (w CHAR(3))",
            f"INSERT INTO {name}.t VALUES ('new')",
        ):
            cursor.execute(statement)
    settle_and_compare(database, replica)


def test_names_of_tables_that_differ_by_case_only_are_two_names(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    """DuckDB could not hold both: one is excluded, and what happens to it must not touch the other."""
    database.execute(
        "CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)", "CREATE TABLE T (v INT)"
    )
    replica = replica_factory(database.url, excluded_tables="T,T2").start()
    before = copies(replica)
    database.execute(
        "ALTER TABLE T ADD COLUMN w INT",
        "INSERT INTO T VALUES (1, 2)",
        "TRUNCATE TABLE T",
        "RENAME TABLE T TO T2, T2 TO T",
        "DROP TABLE T",
        "INSERT INTO t VALUES (2)",
    )
    settle_and_compare(database, replica)
    assert copies(replica) == before
    database.execute(
        "ALTER TABLE t ADD COLUMN n INT DEFAULT 3", "RENAME TABLE t TO tt", "RENAME TABLE tt TO t"
    )
    settle_and_compare(database, replica)


NO_TABLE = {
    "rights": [
        "CREATE USER {user}@localhost IDENTIFIED BY 'a-Password-1'",
        "GRANT SELECT ON `{schema}`.* TO {user}@localhost",
        "ALTER USER {user}@localhost IDENTIFIED BY 'a-Password-2'",
        "SET PASSWORD FOR {user}@localhost = {password}",
        "RENAME USER {user}@localhost TO {user}x@localhost",
        "REVOKE ALL PRIVILEGES, GRANT OPTION FROM {user}x@localhost",
        "DROP USER {user}x@localhost",
        "CREATE ROLE {user}r",
        "DROP ROLE {user}r",
    ],
    "views": [
        "CREATE VIEW seen AS SELECT * FROM t",
        "CREATE OR REPLACE ALGORITHM = MERGE DEFINER = CURRENT_USER SQL SECURITY INVOKER VIEW seen AS SELECT id FROM t",
        "ALTER VIEW seen AS SELECT v FROM t",
        "DROP VIEW seen",
    ],
    "routines": [
        "CREATE PROCEDURE changing() BEGIN ALTER TABLE t ADD never INT; DROP TABLE t; END",
        "CREATE FUNCTION one() RETURNS INT DETERMINISTIC NO SQL RETURN 1",
        "ALTER PROCEDURE changing COMMENT 'ALTER TABLE t DROP COLUMN v'",
        "DROP FUNCTION one",
        "DROP PROCEDURE changing",
    ],
    "triggers": [
        "CREATE TRIGGER before_t BEFORE INSERT ON t FOR EACH ROW SET NEW.v = NEW.v + 1",
        "INSERT INTO t VALUES (50, 1)",
        "DROP TRIGGER before_t",
    ],
    "events": [
        "CREATE EVENT later ON SCHEDULE EVERY 1 YEAR DISABLE DO TRUNCATE TABLE t",
        "ALTER EVENT later RENAME TO `later on`",
        "DROP EVENT `later on`",
    ],
    "upkeep": ["ANALYZE TABLE t", "OPTIMIZE TABLE t", "REPAIR TABLE t", "FLUSH TABLES", "FLUSH LOGS"],
    "indexes": ["CREATE INDEX by_v ON t (v)", "CREATE UNIQUE INDEX by_both ON t (id, v)", "DROP INDEX by_v ON t"],
    "other_databases": [
        "CREATE DATABASE `{schema}_x`",
        "CREATE TABLE `{schema}_x`.t (a INT)",
        "DROP DATABASE `{schema}_x`",
    ],
    "temporary_tables": [
        "CREATE TEMPORARY TABLE t (x INT)",
        "ALTER TABLE t ADD y INT",
        "TRUNCATE TABLE t",
        "DROP TEMPORARY TABLE t",
    ],
    "tables_that_are_not_there": [
        "DROP TABLE IF EXISTS nothing, `no thing`",
        "CREATE TABLE IF NOT EXISTS t (other INT)",
    ],
    "savepoints": [
        "BEGIN",
        "SAVEPOINT `ALTER TABLE t`",
        "INSERT INTO t VALUES (60, 1)",
        "ROLLBACK TO SAVEPOINT `ALTER TABLE t`",
        "COMMIT",
    ],
}  # fmt: skip


def test_statements_that_change_no_table_cost_nothing_and_stop_nothing(
    database: Database, replica: Replica
) -> None:
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)", "INSERT INTO t VALUES (1, 1)")
    replica.start()
    before = copies(replica)
    connected = replica.pipeline.status().connected_at
    mariadb = database.flavor is Flavor.MARIADB
    words = {
        "schema": database.name,
        "user": f"u{database.name[-20:]}",
        "password": "PASSWORD('a-Password-3')" if mariadb else "'a-Password-3'",
    }
    for number, (what, statements) in enumerate(NO_TABLE.items()):
        database.execute(*(statement.format(**words) for statement in statements))
        database.execute(f"INSERT INTO t VALUES ({100 + number}, 7)")
        replica.catch_up()
        with closing(replica.pipeline.reader()) as copy:
            assert_same(database.url, copy)
        assert copies(replica) == before, what
        assert replica.pipeline.status().connected_at == connected, what


def test_tables_that_the_settings_exclude_stay_so_under_new_names(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(
        "CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE _t_gho (id INT PRIMARY KEY, v INT DEFAULT 3)"
    )
    replica = replica_factory(database.url, excluded_tables="_*").start()
    database.execute(
        "INSERT INTO _t_gho (id) VALUES (1), (2)",
        "RENAME TABLE t TO _t_del, _t_gho TO t",
        "INSERT INTO t VALUES (3, 4)",
        "INSERT INTO _t_del VALUES (9)",
        "CREATE TABLE _more (id INT)",
    )
    replica.settle()
    assert replica.rows("SELECT * FROM t ORDER BY id") == [(1, 3), (2, 3), (3, 4)]
    replica.assert_equal(without=["_t_del", "_more"])
