"""Readers while tables are altered, emptied, swapped and copied again: never a table missing or half made."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from cdc.sandbox.databases import Database
from tests.replica import Replica
from tests.schema import ledger
from tests.schema.equality import assert_same
from tests.schema.ledger import Clerk, Readers

pytestmark = pytest.mark.timeout(120)

OLD = ("id", "owner", "balance", "note")
CHANGES: list[tuple[list[str], tuple[str, ...]]] = [
    (["ALTER TABLE ledger ADD COLUMN generation INT NOT NULL DEFAULT 7 FIRST"], ("generation", *OLD)),
    (["UPDATE ledger SET generation = 8"], ("generation", *OLD)),
    (
        ["ALTER TABLE ledger MODIFY generation BIGINT AFTER note, MODIFY balance DECIMAL(30,2) NOT NULL"],
        (*OLD, "generation"),
    ),
    (["ALTER TABLE ledger RENAME COLUMN note TO remark"], (*OLD[:3], "remark", "generation")),
    (
        ["ALTER TABLE ledger ADD COLUMN pad INT FIRST, DROP PRIMARY KEY, ADD PRIMARY KEY (id, balance)"],
        ("pad", *OLD[:3], "remark", "generation"),
    ),
    (
        ["ALTER TABLE ledger DROP PRIMARY KEY, ADD PRIMARY KEY (id)", "ALTER TABLE ledger DROP COLUMN pad"],
        (*OLD[:3], "remark", "generation"),
    ),
    (
        ["ALTER TABLE ledger CONVERT TO CHARACTER SET utf16, ADD note TEXT FIRST"],
        ("note", *OLD[:3], "remark", "generation"),
    ),
    (
        [
            "CREATE TABLE shadow LIKE ledger",
            "ALTER TABLE shadow DROP COLUMN remark",
            "LOCK TABLES ledger WRITE, shadow WRITE",
            "INSERT INTO shadow SELECT note, id, owner, balance, 9 FROM ledger",
            "UNLOCK TABLES",
            "RENAME TABLE ledger TO gone, shadow TO ledger",
            "DROP TABLE gone",
        ],
        ("note", *OLD[:3], "generation"),
    ),
    (
        ["OPTIMIZE TABLE ledger", "ALTER TABLE ledger ENGINE = InnoDB, ADD INDEX (balance)"],
        ("note", *OLD[:3], "generation"),
    ),
    (
        ["ALTER TABLE ledger MODIFY owner TEXT, ADD COLUMN (a INT DEFAULT 3, b INT)"],
        ("note", *OLD[:3], "generation", "a", "b"),
    ),
]
"""Statements, and the columns of the ledger behind them."""


def test_a_reader_sees_only_states_of_the_source_in_their_order(database: Database, replica: Replica) -> None:
    ledger.create(database)
    replica.start()
    with Readers(replica).at_work() as readers:
        for number, (statements, columns) in enumerate(CHANGES):
            with Clerk(database, 1 + number, inserts=False).at_work() as clerk:
                clerk.wait_for_more(5)
                database.execute(*statements)
                readers.wait_for_columns(columns)
    history: list[tuple[str, ...]] = [OLD]
    for _, columns in CHANGES:
        if columns != history[-1]:
            history.append(columns)
    readers.assert_history(history)
    replica.settle()
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)


def test_a_table_that_is_emptied_and_filled_is_empty_or_full_and_never_missing(
    database: Database, replica: Replica
) -> None:
    database.execute("CREATE TABLE tally (id INT PRIMARY KEY, n INT)")
    fill = "INSERT INTO tally VALUES " + ", ".join(f"({number}, 1)" for number in range(100))
    database.execute(fill)
    replica.start()
    ended = threading.Event()
    seen: list[tuple[int, int | None]] = []
    failed: list[Exception] = []

    def read() -> None:
        try:
            while not ended.is_set():
                with closing(replica.pipeline.reader()) as cursor:
                    seen.extend(cursor.execute("SELECT count(*), sum(n) FROM tally").fetchall())
        except Exception as error:  # noqa: BLE001 - raised below
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(5):
            database.execute("TRUNCATE TABLE tally", fill)
            database.execute(
                f"ALTER TABLE tally ADD COLUMN c{number} INT DEFAULT {number} FIRST, ALTER n SET DEFAULT 1"
            )
            database.execute("DELETE FROM tally")
            database.execute(fill.replace("tally", "tally (id, n)"))
            database.execute(f"ALTER TABLE tally DROP COLUMN c{number}")
            replica.settle()
    finally:
        ended.set()
        thread.join()
    assert not failed
    assert set(seen) <= {(0, None), (100, 100)}
    assert (100, 100) in seen
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)
