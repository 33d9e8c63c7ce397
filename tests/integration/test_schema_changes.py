"""Every kind of ALTER, live and as a backlog: the copy is what a fresh one would be, and how it came to that."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import pytest

from cdc.replica.schema_history import Outcome, read_changes
from cdc.sandbox.databases import Database
from cdc.schema import quote_mysql
from tests.replica import Replica
from tests.schema.equality import assert_same, copy_shapes, source_shapes

pytestmark = pytest.mark.timeout(150)

APPLIED, REBUILT, COPIED, IGNORED = Outcome.APPLIED, Outcome.REBUILT, Outcome.COPIED_AGAIN, Outcome.IGNORED

BASE = (
    "CREATE TABLE {t} (id INT PRIMARY KEY, v VARCHAR(20), n SMALLINT NOT NULL DEFAULT 3, e ENUM('a','b'))",
    "INSERT INTO {t} VALUES (1, 'one', -5, 'a'), (2, NULL, 7, NULL), (3, 'drei 🛒', 0, 'b')",
)
KEYLESS = (
    "CREATE TABLE {t} (a INT, b VARCHAR(9))",
    "INSERT INTO {t} VALUES (1, 'x'), (1, 'x'), (NULL, NULL)",
)
EMPTY = ("CREATE TABLE {t} (a INT)",)
PAIR = (
    "CREATE TABLE {t} (a INT, b CHAR(3) NOT NULL, c INT NOT NULL, v TEXT, PRIMARY KEY (b, c))",
    "INSERT INTO {t} VALUES (1, 'x', 1, 'text'), (2, 'y', 1, NULL)",
)
PARTS = (
    "CREATE TABLE {t} (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id)"
    " (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (100))",
    "INSERT INTO {t} VALUES (1, 1), (50, 50)",
)
GENERATED = (
    "CREATE TABLE {t} (id INT PRIMARY KEY, a INT, s INT GENERATED ALWAYS AS (a + 1) STORED)",
    "INSERT INTO {t} (id, a) VALUES (1, 1), (2, NULL)",
)
WITH_NULLS = "UPDATE {t} SET v = NULL"


@dataclass(frozen=True)
class Case:
    """A table, statements on it, and what became of each; `server` is the one that knows them, if not both."""

    made: tuple[str, ...]
    statements: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    server: Literal["mysql", "mariadb", ""] = ""


def case(
    made: tuple[str, ...], *statements: str, became: tuple[Outcome, ...] | Outcome, server: str = ""
) -> Case:
    outcomes = became if isinstance(became, tuple) else (became,)
    return Case(made, statements, outcomes, server)  # type: ignore[arg-type]


def alter(made: tuple[str, ...], clauses: str, became: Outcome, *, server: str = "") -> Case:
    return case(made, "ALTER TABLE {t} " + clauses, became=became, server=server)


CASES = {
    # Columns that come
    "add_last": alter(BASE, "ADD COLUMN x INT", APPLIED),
    "add_without_the_word": alter(BASE, "ADD x INT NULL COMMENT 'it''s, (new)'", APPLIED),
    "add_several": alter(BASE, "ADD x INT, ADD COLUMN y VARCHAR(5) DEFAULT 'a, b', ADD z DATE", APPLIED),
    "add_in_parentheses": alter(BASE, "ADD COLUMN (x INT DEFAULT 7, y CHAR(4) NOT NULL DEFAULT 'y)')", APPLIED),
    "add_first": alter(BASE, "ADD COLUMN x INT FIRST", REBUILT),
    "add_behind": alter(BASE, "ADD COLUMN x INT DEFAULT -4 AFTER id, ADD y INT AFTER x", REBUILT),
    "add_text_default": alter(BASE, "ADD x VARCHAR(30) NOT NULL DEFAULT 'it''s \"new\"'", APPLIED),
    "add_decimal_default": alter(BASE, "ADD x DECIMAL(10,2) NOT NULL DEFAULT 1.5", APPLIED),
    "add_quoted_number": alter(BASE, "ADD x BIGINT UNSIGNED NOT NULL DEFAULT '18446744073709551615'", APPLIED),
    "add_negative": alter(BASE, "ADD x TINYINT DEFAULT -128", APPLIED),
    "add_boolean": alter(BASE, "ADD x BOOLEAN NOT NULL DEFAULT TRUE, ADD y BOOL DEFAULT FALSE", APPLIED),
    "add_enum_default": alter(BASE, "ADD x ENUM('p','q''r') NOT NULL DEFAULT 'q''r'", APPLIED),
    "add_enum_implicit": alter(BASE, "ADD x ENUM('p','q') NOT NULL, ADD y SET('p','q') NOT NULL", APPLIED),
    "add_implicit": alter(
        BASE,
        "ADD i INT NOT NULL, ADD d DECIMAL(5,2) NOT NULL, ADD f DOUBLE NOT NULL, ADD s VARCHAR(4) NOT NULL,"
        " ADD b BLOB NOT NULL, ADD t TEXT NOT NULL",
        APPLIED,
    ),
    "add_moment": alter(
        BASE,
        "ADD d DATE NOT NULL DEFAULT '2024-02-29', ADD m DATETIME(3) DEFAULT '2024-02-29 23:59:58.75',"
        " ADD s DATETIME NOT NULL DEFAULT '1999-12-31 00:00:00'",
        APPLIED,
    ),
    "add_types": alter(
        BASE,
        "ADD a1 TINYINT, ADD a2 SMALLINT UNSIGNED, ADD a3 MEDIUMINT UNSIGNED, ADD a4 INT(5) ZEROFILL, ADD a5 INTEGER,"
        " ADD a6 FLOAT, ADD a7 DOUBLE PRECISION, ADD a8 FLOAT(7,4), ADD a9 NUMERIC(60,3), ADD b1 CHAR(3),"
        " ADD b2 VARCHAR(20) CHARACTER SET latin1, ADD b3 TEXT COLLATE utf8mb4_bin, ADD b4 LONGTEXT, ADD b5 JSON,"
        " ADD b6 BINARY(3), ADD b7 VARBINARY(3), ADD b8 LONGBLOB, ADD c1 TIME(2), ADD c2 YEAR,"
        " ADD c3 TIMESTAMP(6) NULL, ADD c4 DATETIME, ADD c5 TINYINT(1), ADD c6 DECIMAL, ADD c7 FLOAT(30)",
        APPLIED,
    ),
    "add_now": alter(BASE, "ADD x DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP", COPIED),
    "add_timestamp": alter(BASE, "ADD x TIMESTAMP NULL DEFAULT '2024-02-29 12:00:00'", COPIED),
    "add_expression": alter(BASE, "ADD x VARCHAR(20) DEFAULT (CONCAT('a', 'b'))", COPIED),
    "add_letters_beyond_ascii": alter(BASE, "ADD x VARCHAR(20) NOT NULL DEFAULT 'ß'", COPIED),
    "add_rounded": alter(BASE, "ADD x DECIMAL(5,1) NOT NULL DEFAULT 1.25", COPIED),
    "add_stored": alter(BASE, "ADD x INT GENERATED ALWAYS AS (n * 2) STORED", COPIED),
    "add_virtual": alter(BASE, "ADD x INT AS (n * 2) VIRTUAL AFTER id", COPIED),
    "add_virtual_to_none": alter(EMPTY, "ADD x INT AS (a * 2) VIRTUAL", APPLIED),
    "add_now_to_none": alter(EMPTY, "ADD x DATETIME(6) DEFAULT NOW(6)", APPLIED),
    "add_where_missing": alter(BASE, "ADD COLUMN IF NOT EXISTS v INT, ADD x INT", APPLIED, server="mariadb"),
    "add_reference": alter(BASE, "ADD x INT REFERENCES `add_last` (id)", APPLIED, server="mysql"),
    "add_check": alter(BASE, "ADD x INT CHECK (x > 0), ADD CONSTRAINT c_add_check CHECK (n < 1000)", APPLIED),
    "add_point": alter(BASE, "ADD x POINT", COPIED),
    # Columns that go or are renamed
    "drop": alter(BASE, "DROP COLUMN v", APPLIED),
    "drop_without_the_word": alter(BASE, "DROP v, DROP COLUMN e", APPLIED),
    "drop_before_the_key": alter(PAIR, "DROP COLUMN a", REBUILT),
    "drop_and_add_again": alter(BASE, "DROP COLUMN n, ADD COLUMN n VARCHAR(3) DEFAULT 'n'", APPLIED),
    "drop_where_it_exists": alter(BASE, "DROP COLUMN IF EXISTS nope, DROP v", APPLIED, server="mariadb"),
    "drop_of_keyless": alter(KEYLESS, "DROP a", APPLIED),
    "rename_column": alter(BASE, "RENAME COLUMN v TO `the value`", APPLIED),
    "rename_key": alter(BASE, "RENAME COLUMN id TO ident", APPLIED),
    "rename_case": alter(BASE, "RENAME COLUMN v TO V", APPLIED),
    "rename_swap": alter(BASE, "RENAME COLUMN v TO e, RENAME COLUMN e TO v", REBUILT),
    "change_to_rename": alter(BASE, "CHANGE n `n``2` SMALLINT NOT NULL", APPLIED),
    "rename_and_add": alter(BASE, "RENAME COLUMN v TO w, ADD v INT DEFAULT 9", APPLIED),
    # Columns that change
    "modify_same": alter(BASE, "MODIFY v VARCHAR(20) COMMENT 'said'", APPLIED),
    "modify_longer": alter(BASE, "MODIFY v VARCHAR(300)", APPLIED),
    "modify_to_text": alter(BASE, "MODIFY v MEDIUMTEXT", APPLIED),
    "modify_shorter": alter(BASE, "MODIFY v VARCHAR(10)", COPIED),
    "modify_wider": alter(BASE, "MODIFY n BIGINT NOT NULL", REBUILT),
    "modify_key_wider": alter(BASE, "MODIFY id BIGINT", REBUILT),
    "modify_narrower": alter(BASE, "MODIFY n TINYINT NOT NULL", COPIED),
    "modify_unsigned": case(
        BASE, "UPDATE {t} SET n = 5", "ALTER TABLE {t} MODIFY n SMALLINT UNSIGNED", became=COPIED
    ),
    "modify_not_null": case(
        BASE,
        "UPDATE {t} SET v = 'v' WHERE v IS NULL",
        "ALTER TABLE {t} MODIFY v VARCHAR(20) NOT NULL",
        became=APPLIED,
    ),
    "modify_not_null_over_nulls": case(
        BASE,
        "SET SESSION sql_mode = ''",
        "ALTER TABLE {t} MODIFY v VARCHAR(20) NOT NULL",
        "SET SESSION sql_mode = DEFAULT",
        became=COPIED,
    ),
    "modify_null": alter(BASE, "MODIFY n SMALLINT NULL DEFAULT 8", APPLIED),
    "modify_place": alter(BASE, "MODIFY v VARCHAR(20) FIRST, MODIFY e ENUM('a','b') AFTER id", REBUILT),
    "modify_members_at_the_end": alter(BASE, "MODIFY e ENUM('a','b','c')", APPLIED),
    "modify_members_reordered": alter(BASE, "MODIFY e ENUM('c','b','a')", APPLIED),
    "modify_members_fewer": case(
        BASE, "UPDATE {t} SET e = 'a'", "ALTER TABLE {t} MODIFY e ENUM('a')", became=COPIED
    ),
    "modify_character_set": alter(BASE, "MODIFY v VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", APPLIED),
    "modify_to_number": case(BASE, "UPDATE {t} SET v = '5'", "ALTER TABLE {t} MODIFY v INT", became=COPIED),
    "modify_key_numbers_rows": alter(BASE, "MODIFY id INT AUTO_INCREMENT", APPLIED),
    "modify_key_numbers_zero": case(
        BASE,
        "UPDATE {t} SET id = id + 10",
        "INSERT INTO {t} VALUES (0, 'zero', 0, 'a')",
        "ALTER TABLE {t} MODIFY id INT AUTO_INCREMENT",
        became=COPIED,
    ),
    "modify_beside_generated": alter(GENERATED, "MODIFY a BIGINT", COPIED),
    "rename_beside_generated": alter(GENERATED, "ADD b INT, MODIFY a INT COMMENT 'x'", APPLIED),
    "drop_generated": alter(GENERATED, "DROP s", APPLIED),
    "change_all": alter(BASE, "CHANGE v w VARCHAR(40) NULL AFTER n, ADD x INT AFTER w, DROP e", REBUILT),
    "decimal_wider": case(
        ("CREATE TABLE {t} (d DECIMAL(6,2))", "INSERT INTO {t} VALUES (1.5), (-9999.99), (NULL)"),
        "ALTER TABLE {t} MODIFY d DECIMAL(12,4)",
        became=REBUILT,
    ),
    "convert": alter(BASE, "CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", COPIED),
    "default_character_set": case(
        BASE,
        "ALTER TABLE {t} DEFAULT CHARACTER SET latin1",
        "ALTER TABLE {t} ADD w VARCHAR(5)",
        "ALTER TABLE {t} ADD x VARCHAR(5) CHARACTER SET utf8mb4, COLLATE = utf8mb4_bin",
        "ALTER TABLE {t} ADD y VARCHAR(5)",
        became=(APPLIED, APPLIED, APPLIED, APPLIED),
    ),
    "set_default": alter(BASE, "ALTER COLUMN n SET DEFAULT 4, ALTER v DROP DEFAULT", IGNORED),
    # Keys
    "drop_key": alter(BASE, "DROP PRIMARY KEY", REBUILT),
    "drop_key_by_index": case(BASE, "DROP INDEX `PRIMARY` ON {t}", became=REBUILT),
    "add_key": case(
        KEYLESS,
        "DELETE FROM {t}",
        "INSERT INTO {t} VALUES (1, 'x'), (2, 'x')",
        "ALTER TABLE {t} ADD CONSTRAINT pk PRIMARY KEY (a) USING BTREE",
        became=REBUILT,
    ),
    "change_key": alter(BASE, "DROP PRIMARY KEY, ADD PRIMARY KEY (n, id)", REBUILT),
    "reorder_key": alter(PAIR, "DROP PRIMARY KEY, ADD PRIMARY KEY (c, b(2) DESC)", REBUILT),
    "give_a_key": alter(KEYLESS, "ADD COLUMN id INT AUTO_INCREMENT PRIMARY KEY", COPIED),
    "give_a_key_to_none": alter(EMPTY, "ADD id INT AUTO_INCREMENT PRIMARY KEY FIRST", REBUILT),
    # What keeps rows and columns
    "index": alter(BASE, "ADD INDEX i (v(3), n DESC), ADD UNIQUE KEY u (n), ADD FULLTEXT f (v)", IGNORED),
    "index_gone": case(
        BASE,
        "ALTER TABLE {t} ADD KEY k (n)",
        "ALTER TABLE {t} RENAME INDEX k TO `PRIMARY KEY`, ALGORITHM=INPLACE",
        "DROP INDEX `PRIMARY KEY` ON {t}",
        became=(IGNORED, IGNORED),
    ),
    "options": alter(
        BASE, "AUTO_INCREMENT = 7, COMMENT = 'x, DROP COLUMN v', ROW_FORMAT=DYNAMIC, LOCK=DEFAULT", IGNORED
    ),
    "engine": alter(BASE, "ENGINE=InnoDB", APPLIED),
    "force": alter(BASE, "FORCE", IGNORED),
    "add_partition": alter(PARTS, "ADD PARTITION (PARTITION p2 VALUES LESS THAN (1000))", IGNORED),
    "reorganize": alter(
        PARTS,
        "REORGANIZE PARTITION p0, p1 INTO (PARTITION pa VALUES LESS THAN (20), PARTITION pb VALUES LESS THAN (200))",
        IGNORED,
    ),
    "remove_partitioning": alter(PARTS, "REMOVE PARTITIONING", IGNORED),
    "partition_by": alter(BASE, "PARTITION BY HASH (id) PARTITIONS 3", IGNORED),
    "drop_partition": alter(PARTS, "DROP PARTITION p0", COPIED),
    "truncate_partition": alter(PARTS, "TRUNCATE PARTITION p0", COPIED),
    # Ways to write it
    "comments": case(
        BASE, "/* first */ ALTER /* , */ TABLE -- DROP n\n {t} # ADD b INT\n ADD x INT /* , DROP v */", became=APPLIED
    ),
    "executable_comment": case(BASE, "ALTER TABLE {t} /*!40101 ADD COLUMN x INT */", became=APPLIED),
    "comment_of_later_versions": case(BASE, "ALTER TABLE {t} ADD x INT /*!999999 , ADD y INT */", became=APPLIED),
    "comment_of_mariadb": case(BASE, "ALTER TABLE {t} ADD x INT /*M! , ADD y INT */", became=COPIED),
    "ansi_quotes": case(
        BASE,
        "SET SESSION sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES,NO_BACKSLASH_ESCAPES')",
        'ALTER TABLE {t} ADD "x "" y" VARCHAR(9) NOT NULL DEFAULT \'a\\b\'',
        "SET SESSION sql_mode = DEFAULT",
        became=APPLIED,
    ),
    "odd_names": alter(BASE, "ADD `a``b` INT DEFAULT 1, ADD `日本` INT, ADD `s\"t` INT, ADD `comment` INT", APPLIED),
    "two_statements": case(
        BASE,
        "ALTER TABLE {t} ADD x INT DEFAULT 1",
        "UPDATE {t} SET x = id",
        "ALTER TABLE {t} DROP x, ADD y INT FIRST",
        "ALTER TABLE {t} RENAME COLUMN y TO x",
        became=(APPLIED, REBUILT, APPLIED),
    ),
}  # fmt: skip


def _cases(database: Database) -> dict[str, Case]:
    return {name: each for name, each in CASES.items() if each.server in ("", str(database.flavor))}


def _make(database: Database, cases: dict[str, Case]) -> None:
    database.execute(
        *(each.format(t=quote_mysql(name)) for name, case in cases.items() for each in case.made)
    )


def _change(database: Database, cases: dict[str, Case]) -> None:
    """The statements of all cases, and rows before and after them."""
    for name, each in cases.items():
        statements = [statement.format(t=quote_mysql(name)) for statement in each.statements]
        database.execute(f"DELETE FROM `{name}` LIMIT 1", *statements, f"DELETE FROM `{name}` LIMIT 1")


def _outcomes(replica: Replica) -> dict[str, tuple[Outcome, ...]]:
    found: dict[str, tuple[Outcome, ...]] = {}
    with closing(replica.pipeline.reader()) as cursor:
        for record in reversed(read_changes(cursor, limit=10_000)):
            found[record.table] = (*found.get(record.table, ()), record.outcome)
    return found


@pytest.mark.crossed
@pytest.mark.parametrize("backlog", [False, True], ids=["live", "backlog"])
def test_a_changed_table_is_what_a_fresh_copy_of_it_would_be(
    database: Database, replica: Replica, backlog: bool
) -> None:
    cases = _cases(database)
    _make(database, cases)
    replica.start()
    if backlog:
        replica.stop()
    _change(database, cases)
    if backlog:
        replica.start(live=False)
    replica.settle()
    assert _outcomes(replica) == {name: each.outcomes for name, each in cases.items()}
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)


def test_a_default_of_bits_fills_rows_as_the_number_that_it_is(database: Database, replica: Replica) -> None:
    database.execute(*(statement.format(t="t") for statement in BASE))
    replica.start()
    database.execute("ALTER TABLE t ADD x BIT(9) NOT NULL DEFAULT b'100000001', ADD y BIT NOT NULL")
    replica.settle()
    assert _outcomes(replica) == {"t": (APPLIED,)}
    assert replica.rows("SELECT id, x, y FROM t ORDER BY id") == [(1, 257, 0), (2, 257, 0), (3, 257, 0)]


def test_invisible_columns_are_columns_of_the_copy(database: Database, replica: Replica) -> None:
    database.execute(*(statement.format(t="t") for statement in BASE))
    replica.start()
    database.execute("ALTER TABLE t ADD x INT DEFAULT 5 INVISIBLE", "INSERT INTO t (id, x) VALUES (4, 6)")
    replica.settle()
    assert _outcomes(replica) == {"t": (APPLIED,)}
    assert replica.rows("SELECT id, x FROM t ORDER BY id") == [(1, 5), (2, 5), (3, 5), (4, 6)]
    with closing(replica.pipeline.reader()) as copy:
        assert copy_shapes(copy) == source_shapes(database.url)
