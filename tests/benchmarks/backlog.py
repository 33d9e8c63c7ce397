"""The test table at the source, and what is written to it: rows in bulk, or a transaction for each row."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.sandbox.databases import Database, session

TABLE = "t"
COLUMNS = ("id", "name", "amt", "note", "ts", "n", "d", "st")

_DEFINITION = f"""
CREATE TABLE {TABLE} (
    id BIGINT NOT NULL PRIMARY KEY,
    name VARCHAR(60) NOT NULL,
    amt DECIMAL(12,2) NOT NULL,
    note VARCHAR(200),
    ts DATETIME(6) NOT NULL,
    n INT NOT NULL,
    d DOUBLE NOT NULL,
    st TINYINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
"""

_STATEMENT_ROWS = 10_000
_VALUES = (
    "{i}, CONCAT('customer ', {i}), ({i} * 37 % 1000003) / 100, IF({i} % 10 = 0, NULL, 'a note of some length'),"
    " TIMESTAMP('2024-01-01') + INTERVAL {i} * 1000003 MICROSECOND, {i} * 7 % 100000, {i} / 7, {i} % 5"
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the source's binary log: from a file's first event up to an offset in it."""

    file: str
    end: int


def create_table(database: Database) -> None:
    """The empty test table: about 69 bytes a row in the binary log."""
    database.execute(_DEFINITION)


def begin_file(database: Database) -> str:
    """A new file of the binary log, so that a reader of the backlog passes over nothing else; its name."""
    database.execute("FLUSH BINARY LOGS")
    return _end(database).file


def insert_many(database: Database, rows: int) -> None:
    """Inserts rows 1 to `rows`, 10,000 a transaction: events of as many rows as binlog_row_event_max_size takes."""
    with session(database.url) as connection, connection.cursor() as cursor:
        for first in range(1, rows + 1, _STATEMENT_ROWS):
            last = min(first + _STATEMENT_ROWS - 1, rows)
            if database.flavor == "mysql":
                cursor.execute(f"SET SESSION cte_max_recursion_depth = {_STATEMENT_ROWS}")
            cursor.execute(
                f"INSERT INTO {TABLE} WITH RECURSIVE s (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM s"
                f" WHERE i < {last}) SELECT {_VALUES.format(i='i')} FROM s"
            )


def update_many(database: Database, rows: int) -> None:
    """Updates each of the rows 1 to `rows`, 10,000 a transaction."""
    with session(database.url) as connection, connection.cursor() as cursor:
        for first in range(1, rows + 1, _STATEMENT_ROWS):
            last = min(first + _STATEMENT_ROWS - 1, rows)
            cursor.execute(
                f"UPDATE {TABLE} SET amt = amt + 1, st = 1 - st WHERE id BETWEEN {first} AND {last}"
            )


def insert_singly(database: Database, rows: int) -> None:
    """Inserts rows 1 to `rows`, each a transaction of its own."""
    with session(database.url) as connection, connection.cursor() as cursor:
        cursor.execute("DROP PROCEDURE IF EXISTS fill_singly")
        cursor.execute(
            "CREATE PROCEDURE fill_singly(IN n INT) BEGIN DECLARE x INT DEFAULT 1; WHILE x <= n DO"
            f" INSERT INTO {TABLE} VALUES ({_VALUES.format(i='x')}); SET x = x + 1; END WHILE; END"
        )
    begin_file(database)
    with session(database.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CALL fill_singly({rows})")


def stretch(database: Database) -> Stretch:
    """The file that is written now, up to its end."""
    return _end(database)


def _end(database: Database) -> Stretch:
    statement = "SHOW MASTER STATUS" if database.flavor == "mariadb" else "SHOW BINARY LOG STATUS"
    with session(database.url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
    assert row is not None
    return Stretch(str(row[0]), int(row[1]))
