"""A ledger under load: the number of its rows and the sum of its balances never change.

Whatever is done to its table, every state that the source ever had has both, and so must every state that a
reader of the copy sees.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import duckdb
import pymysql

from cdc.sandbox.databases import Database, session
from tests.replica import Replica
from tests.waiting import wait_until

ROWS = 300
BALANCE = 1000
TOTAL = ROWS * BALANCE

_RETRIED = {1205, 1213}
"""ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK: the transaction is rolled back, another one is tried."""


def create(database: Database) -> None:
    """Makes the table `ledger` and fills it."""
    rows = ", ".join(f"({number}, 'owner {number}', {BALANCE}, 'né')" for number in range(1, ROWS + 1))
    database.execute(
        "CREATE TABLE ledger (id INT PRIMARY KEY, owner VARCHAR(30), balance BIGINT NOT NULL, note VARCHAR(60))",
        f"INSERT INTO ledger VALUES {rows}",
    )


class Clerk:
    """Moves balances, and rows to new numbers, by transactions of several statements.

    A row gets its new number by delete and insert, which gives columns that the clerk does not know their
    default, or without `inserts` by an update of its key, which leaves them alone.
    """

    def __init__(self, database: Database, seed: int, *, pause: float = 0.004, inserts: bool = True) -> None:
        self._database = database
        self._random = random.Random(seed)
        self._pause = pause
        self._inserts = inserts
        self._next = 10_000 * seed
        self._ended = threading.Event()
        self._error: Exception | None = None
        self.transactions = 0

    @contextmanager
    def at_work(self) -> Iterator[Clerk]:
        """Works in a thread of its own. Raises what ended it before its time."""
        thread = threading.Thread(target=self._run, name="clerk")
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()
        if self._error is not None:
            raise self._error

    def wait_for_more(self, transactions: int) -> None:
        """Returns when so many more are committed."""
        enough = self.transactions + transactions
        wait_until(lambda: self.transactions >= enough or self._error, f"{transactions} transactions")

    def _run(self) -> None:
        try:
            with session(self._database.url, autocommit=False) as connection:
                while not self._ended.wait(self._pause):
                    self._transaction(connection)
        except Exception as error:  # noqa: BLE001 - raised at the end of the block
            self._error = error

    def _transaction(self, connection: pymysql.Connection) -> None:
        try:
            with connection.cursor() as cursor:
                self._work(cursor)
            connection.commit()
            self.transactions += 1
        except pymysql.OperationalError as error:
            if error.args[0] not in _RETRIED:
                raise
            connection.rollback()

    def _work(self, cursor: pymysql.cursors.Cursor) -> None:
        one, other = self._random.randrange(1, ROWS + 1), self._random.randrange(1, ROWS + 1)
        cursor.execute("SELECT COUNT(*) FROM ledger WHERE id IN (%s, %s)", (one, other))
        if one != other and cursor.fetchone()[0] == 2:
            cursor.execute("UPDATE ledger SET balance = balance - 7 WHERE id = %s", (one,))
            cursor.execute("UPDATE ledger SET balance = balance + 7 WHERE id = %s", (other,))
            if self._random.random() < 0.3:
                cursor.execute("UPDATE ledger SET owner = CONCAT(LEFT(owner, 20), '*') WHERE id = %s", (one,))
            return
        # One row goes, another one takes over what it had.
        cursor.execute("SELECT id, balance FROM ledger ORDER BY id DESC LIMIT 1 FOR UPDATE")
        number, balance = cursor.fetchone()
        self._next += 1
        if not self._inserts:
            cursor.execute("UPDATE ledger SET id = %s, owner = 'né 🛒' WHERE id = %s", (self._next, number))
            return
        cursor.execute("DELETE FROM ledger WHERE id = %s", (number,))
        cursor.execute(
            "INSERT INTO ledger (id, owner, balance) VALUES (%s, 'né 🛒', %s)", (self._next, balance)
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What one read-only transaction saw of the ledger."""

    columns: tuple[str, ...]
    rows: int
    total: int
    generations: tuple[object, ...]
    """The different values of the column `generation`, which one statement gives to all rows."""


class Readers:
    """Threads that read the ledger all the time, each reading in one transaction; `readings` are all, in order
    of each thread."""

    def __init__(self, replica: Replica, table: str = "ledger") -> None:
        self._replica = replica
        self._table = table
        self._ended = threading.Event()
        self._errors: list[Exception] = []
        self.readings: list[list[Reading]] = [[], []]

    @contextmanager
    def at_work(self) -> Iterator[Readers]:
        """Reads until the end of the block. Raises the first error of a reading: a missing table is one."""
        threads = [threading.Thread(target=self._run, args=(found,)) for found in self.readings]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]

    def wait_for_more(self, readings: int = 3) -> None:
        """Returns when every thread has read so many times more."""
        before = [len(found) for found in self.readings]
        wait_until(
            lambda: (
                self._errors
                or all(len(found) >= b + readings for found, b in zip(self.readings, before, strict=True))
            ),
            "the ledger is read",
        )

    def wait_for_columns(self, columns: tuple[str, ...]) -> None:
        """Returns when every thread sees these columns."""
        wait_until(
            lambda: self._errors or all(found and found[-1].columns == columns for found in self.readings),
            f"the columns {columns} are read",
        )

    def _run(self, readings: list[Reading]) -> None:
        try:
            while not self._ended.is_set():
                with closing(self._replica.pipeline.reader()) as cursor:
                    readings.append(self._read(cursor))
        except Exception as error:  # noqa: BLE001 - raised at the end of the block
            self._errors.append(error)

    def _read(self, cursor: duckdb.DuckDBPyConnection) -> Reading:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        described = cursor.execute(f"DESCRIBE {self._table}").fetchall()
        columns = tuple(str(name) for name, *_ in described)
        generation = "generation" if "generation" in columns else "NULL"
        [(rows, total, generations)] = cursor.execute(
            f"SELECT count(*), coalesce(sum(balance), 0), list_sort(list(DISTINCT {generation})) FROM {self._table}"
        ).fetchall()
        again = tuple(str(name) for name, *_ in cursor.execute(f"DESCRIBE {self._table}").fetchall())
        assert again == columns, "the shape changed within one transaction"
        cursor.execute("COMMIT")
        return Reading(columns, int(rows), int(total), tuple(generations or ()))

    def assert_history(self, history: list[tuple[str, ...]]) -> None:
        """Asserts that every reading had all rows and the right sum, in one shape of `history`, in its order."""
        for readings in self.readings:
            assert readings
            at = 0
            for reading in readings:
                assert (reading.rows, reading.total) == (ROWS, TOTAL), reading
                assert len(reading.generations) <= 1, reading
                assert reading.columns in history[at:], (reading, history[at:])
                at = history.index(reading.columns, at)
