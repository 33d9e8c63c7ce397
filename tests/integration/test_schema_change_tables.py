"""Tables that come, go and change their names: the copy is what a fresh one would be, and how it came to that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pymysql
import pytest

from cdc.replica.schema_history import Outcome, read_changes
from cdc.sandbox.databases import Database, Host, create_database
from cdc.status import TableState
from tests.replica import Replica
from tests.schema.equality import assert_same

pytestmark = pytest.mark.timeout(90)

APPLIED, COPIED, IGNORED = Outcome.APPLIED, Outcome.COPIED_AGAIN, Outcome.IGNORED

TABLES = (
    "CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(20))",
    "INSERT INTO a VALUES (1, 'one'), (2, NULL)",
    "CREATE TABLE b (id INT PRIMARY KEY, n INT)",
    "INSERT INTO b VALUES (3, 3)",
    "CREATE TABLE bag (n INT, v VARCHAR(20))",
    "INSERT INTO bag VALUES (1, 'x'), (1, 'x'), (NULL, NULL)",
)

CHANGES: dict[str, tuple[list[str], list[tuple[str, Outcome]]]] = {
    "create": (
        ["CREATE TABLE c (id INT AUTO_INCREMENT, v VARCHAR(9) NOT NULL, e ENUM('x','y'), PRIMARY KEY (id), KEY (v))",
         "INSERT INTO c (v, e) VALUES ('one', 'y')"],
        [("c", APPLIED)],
    ),
    "create_with_options": (
        ["CREATE TABLE c (`a b` TEXT, d DECIMAL(30,2), CONSTRAINT ck CHECK (d > 0)) ENGINE=InnoDB AUTO_INCREMENT=5"
         " DEFAULT CHARSET=latin1 COMMENT='x) LIKE a'", "INSERT INTO c VALUES ('t', 1)"],
        [("c", APPLIED)],
    ),
    "create_partitioned": (
        ["CREATE TABLE c (id INT, v DATE, PRIMARY KEY (id, v)) PARTITION BY RANGE (YEAR(v))"
         " (PARTITION p0 VALUES LESS THAN (2020), PARTITION p1 VALUES LESS THAN MAXVALUE)",
         "INSERT INTO c VALUES (1, '2021-01-01')"],
        [("c", APPLIED)],
    ),
    "create_generated": (
        ["CREATE TABLE c (id INT PRIMARY KEY, d INT AS (id * 2) STORED, e INT GENERATED ALWAYS AS (id + 1) VIRTUAL)",
         "INSERT INTO c (id) VALUES (4)"],
        [("c", APPLIED)],
    ),
    "create_where_missing": (
        ["CREATE TABLE IF NOT EXISTS c (id INT)", "INSERT INTO c VALUES (1)"],
        [("c", COPIED)],
    ),
    "create_like": (
        ["CREATE TABLE c LIKE a", "INSERT INTO c SELECT * FROM a", "CREATE TABLE d (LIKE bag)"],
        [("c", APPLIED), ("d", APPLIED)],
    ),
    "create_select": (
        ["CREATE TABLE c AS SELECT * FROM a", "INSERT INTO c VALUES (9, 'x')"],
        [("c", COPIED)],
    ),
    "drop_and_create": (
        ["DROP TABLE a", "CREATE TABLE a (k CHAR(3) PRIMARY KEY)", "INSERT INTO a VALUES ('x')"],
        [("a", APPLIED), ("a", APPLIED)],
    ),
    "drop_several": (["DROP TABLE IF EXISTS a, missing, bag"], [("a", APPLIED), ("bag", APPLIED)]),
    "truncate": (["TRUNCATE bag", "INSERT INTO bag VALUES (7, 'y')"], [("bag", APPLIED)]),
    "rename": (
        ["RENAME TABLE a TO z", "INSERT INTO z VALUES (9, 'x')", "UPDATE z SET v = 'y' WHERE id = 1"],
        [("a", APPLIED), ("z", APPLIED)],
    ),
    "rename_by_alter": (
        ["ALTER TABLE a RENAME AS z, ADD COLUMN x INT DEFAULT 4", "INSERT INTO z VALUES (9, 'x', 1)"],
        [("a", APPLIED), ("a", APPLIED), ("z", APPLIED)],
    ),
    "swap": (
        ["CREATE TABLE shadow LIKE a", "ALTER TABLE shadow ADD COLUMN x INT NOT NULL DEFAULT 7",
         "INSERT INTO shadow SELECT id, v, 8 FROM a", "RENAME TABLE a TO old, shadow TO a",
         "INSERT INTO a VALUES (9, 'x', 9)", "DROP TABLE old"],
        [("shadow", APPLIED), ("shadow", APPLIED), ("a", APPLIED), ("old", APPLIED), ("shadow", APPLIED),
         ("a", APPLIED), ("old", APPLIED)],
    ),
    "swap_through_a_third_name": (
        ["RENAME TABLE a TO tmp, b TO a, tmp TO b", "INSERT INTO b VALUES (9, 'x')", "INSERT INTO a VALUES (9, 9)"],
        [("b", APPLIED), ("a", APPLIED), ("a", APPLIED), ("b", APPLIED)],
    ),
    "rename_case": (["RENAME TABLE a TO A", "INSERT INTO A VALUES (9, 'x')"], [("a", APPLIED), ("A", APPLIED)]),
    "views_and_the_like": (
        ["CREATE VIEW w AS SELECT * FROM a", "ALTER VIEW w AS SELECT id FROM a", "DROP VIEW w",
         "CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW SET NEW.v = 'trigger'", "ANALYZE TABLE a",
         "CREATE INDEX i ON a (v)", "DROP INDEX i ON a", "INSERT INTO a (id) VALUES (7)"],
        [],
    ),
    "temporary": (
        ["CREATE TEMPORARY TABLE a2 (id INT)", "INSERT INTO a2 VALUES (1)", "DROP TEMPORARY TABLE a2",
         "INSERT INTO a VALUES (7, 'x')"],
        [],
    ),
    "create_by_another_default": (
        ["ALTER DATABASE CHARACTER SET latin1", "CREATE TABLE c (v CHAR(4))", "INSERT INTO c VALUES ('é')"],
        [("c", APPLIED)],
    ),
}  # fmt: skip


def outcomes(replica: Replica) -> list[tuple[str, Outcome]]:
    """What became of each table, in order."""
    with closing(replica.pipeline.reader()) as cursor:
        return [(record.table, record.outcome) for record in reversed(read_changes(cursor))]


@pytest.mark.parametrize("backlog", [False, True], ids=["live", "backlog"])
@pytest.mark.parametrize("change", CHANGES)
def test_tables_of_the_copy_are_those_of_the_source(
    database: Database, replica: Replica, change: str, backlog: bool
) -> None:
    statements, expected = CHANGES[change]
    database.execute(*TABLES)
    replica.start()
    if backlog:
        replica.stop()
    database.execute("INSERT INTO b VALUES (5, 5)", *statements, "CREATE TABLE later (id INT)")
    if backlog:
        replica.start(live=False)
    replica.settle()
    assert outcomes(replica) == [*expected, ("later", APPLIED)]
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)


def test_tables_leave_for_another_schema_and_come_from_one(database: Database, replica: Replica) -> None:
    database.execute(*TABLES)
    replica.start()
    other = create_database(database.server)
    try:
        database.execute(
            f"RENAME TABLE a TO `{other.name}`.a, b TO `{other.name}`.b",
            f"INSERT INTO `{other.name}`.a VALUES (8, 'elsewhere')",
            f"RENAME TABLE `{other.name}`.a TO back",
            "INSERT INTO back VALUES (9, 'here')",
        )
        replica.settle()
    finally:
        other.drop()
    assert outcomes(replica) == [("a", APPLIED), ("b", APPLIED), ("back", COPIED)]
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)


def test_a_name_that_the_settings_do_not_choose_takes_a_table_out_and_the_other_way_round(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(*TABLES, "CREATE TABLE tmp_1 (id INT PRIMARY KEY)", "INSERT INTO tmp_1 VALUES (5)")
    replica = replica_factory(database.url, excluded_tables=["tmp_*"])
    replica.start()
    database.execute(
        "RENAME TABLE a TO tmp_a, tmp_1 TO one",
        "INSERT INTO one VALUES (6)",
        "INSERT INTO tmp_a VALUES (6, 'x')",
        "CREATE TABLE tmp_2 (id INT)",
    )
    replica.settle()
    assert outcomes(replica) == [("a", APPLIED), ("one", COPIED), ("tmp_2", IGNORED)]
    replica.assert_equal(without=["tmp_a", "tmp_2"])


def test_a_table_that_does_not_stream_keeps_its_state_under_its_new_name(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, d DATE)",
        "SET SESSION sql_mode = ''",
        "INSERT INTO a VALUES (1, '2024-01-01')",
    )
    replica = replica_factory(database.url, zero_dates="error")
    replica.start()
    database.execute(
        "SET SESSION sql_mode = ''",
        "INSERT INTO a VALUES (2, '0000-00-00')",
        "RENAME TABLE a TO z",
        "DELETE FROM z WHERE id = 2",
    )
    replica.settle()
    assert replica.rows("SELECT id FROM z") == [(1,)]
    statuses: list[Any] = [(table.table, table.state) for table in replica.pipeline.status().tables]
    assert statuses == [("z", TableState.STREAMING)]


def test_the_history_tells_statement_place_and_reason_without_the_text_of_strings(
    database: Database, replica: Replica
) -> None:
    database.execute(*TABLES)
    replica.start()
    database.execute(
        "ALTER TABLE a ADD COLUMN /* why */ s VARCHAR(20) DEFAULT 'hush', ADD e ENUM('x','y') COMMENT 'psst'",
        "ALTER TABLE bag MODIFY v VARCHAR(5)",
    )
    replica.settle()
    rows = replica.rows(
        "SELECT id, table_name, statement, kind, outcome, reason, filename = '', position > 0, gtid = '',"
        " source_time IS NULL, recorded_at IS NULL FROM _duckling.schema_changes ORDER BY id"
    )
    told = (False, True, False, False, False)
    statement = "ALTER TABLE a ADD COLUMN s VARCHAR(20) DEFAULT '…', ADD e ENUM('x','y') COMMENT '…'"
    reason = "column v gets another type, which may change its values"
    assert rows == [
        (1, "a", statement, "alter", "applied", None, *told),
        (2, "bag", "ALTER TABLE bag MODIFY v VARCHAR(5)", "alter", "copied again", reason, *told),
    ]


def test_an_alter_in_two_phases_counts_when_it_is_committed_and_not_when_it_is_taken_back(
    mariadb_server: Host, replica_factory: Callable[..., Replica]
) -> None:
    database = create_database(mariadb_server)
    try:
        database.execute(*TABLES)
        replica = replica_factory(database.url)
        replica.start()
        with closing(database.connect()) as session, session.cursor() as cursor:
            cursor.execute("SET SESSION binlog_alter_two_phase = 1")
            cursor.execute("ALTER TABLE a ADD COLUMN x INT DEFAULT 4")
            with pytest.raises(pymysql.err.DataError):
                cursor.execute("ALTER TABLE a MODIFY v VARCHAR(20) NOT NULL, ALGORITHM=COPY")
            cursor.execute("INSERT INTO a VALUES (5, NULL, 5)")
        replica.settle()
        assert outcomes(replica) == [("a", APPLIED)]
        with closing(replica.pipeline.reader()) as copy:
            assert_same(database.url, copy)
    finally:
        database.drop()


def test_a_table_that_is_there_is_not_created_again(
    mysql_server: Host, replica_factory: Callable[..., Replica]
) -> None:
    """MySQL logs such a statement although it does nothing; MariaDB does not."""
    database = create_database(mysql_server)
    try:
        database.execute(*TABLES)
        replica = replica_factory(database.url)
        replica.start()
        database.execute("CREATE TABLE IF NOT EXISTS a (other INT)", "INSERT INTO a VALUES (5, 'x')")
        replica.settle()
        assert outcomes(replica) == [("a", IGNORED)]
        with closing(replica.pipeline.reader()) as copy:
            assert_same(database.url, copy)
    finally:
        database.drop()
