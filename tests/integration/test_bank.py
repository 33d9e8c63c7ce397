"""The bank: money moves between accounts of two tables, and no reader ever sees a sum that never was."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial

import pytest

from cdc.errors import DucklingError
from cdc.runs import Run
from cdc.sandbox.databases import Database, session
from cdc.sandbox.service import Service
from tests.replica import Replica
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

ACCOUNTS = 50
TOTAL = 2 * ACCOUNTS * 1000
SUM = "SELECT (SELECT sum(balance) FROM giro) + (SELECT sum(balance) FROM savings) AS total"
SETTINGS = {"whole": ({}, 0.005), "in_parts": ({"batch_size": 4}, 0.1)}
"""Settings of the replica, and the pause between two transfers in seconds: small parts take their time."""


@pytest.fixture
def bank(database: Database) -> Database:
    rows = ",".join(f"({number}, 1000)" for number in range(ACCOUNTS))
    database.execute(
        "CREATE TABLE giro (id INT PRIMARY KEY, balance BIGINT NOT NULL)",
        "CREATE TABLE savings (account INT, balance BIGINT NOT NULL)",  # without a key
        f"INSERT INTO giro VALUES {rows}",
        f"INSERT INTO savings VALUES {rows}",
    )
    return database


class Clerk:
    """Moves money in transactions of several statements until the end of the block."""

    def __init__(self, bank: Database, seed: int, *, pause: float = 0.005) -> None:
        self._bank = bank
        self._pause = pause
        self._random = random.Random(seed)
        self._ended = threading.Event()
        self.transfers = 0

    def _work(self) -> None:
        with session(self._bank.url, autocommit=False) as connection, connection.cursor() as cursor:
            while not self._ended.is_set():
                amount = self._random.randrange(1, 500)
                for table, key, change in (("giro", "id", -amount), ("savings", "account", amount)):
                    cursor.execute(
                        f"UPDATE {table} SET balance = balance + %s WHERE {key} = %s",
                        (change, self._random.randrange(ACCOUNTS)),
                    )
                cursor.execute("UPDATE giro SET balance = balance + 3 WHERE id IN (1, 2, 3)")
                cursor.execute("UPDATE giro SET balance = balance - 9 WHERE id = 4")
                if self._random.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()
                    self.transfers += 1
                self._ended.wait(self._pause)

    @contextmanager
    def at_work(self) -> Iterator[Clerk]:
        """Works in a thread of its own."""
        thread = threading.Thread(target=self._work, name="clerk")
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()


class Auditors:
    """Threads that ask for the total all the time; `sums` are all answers, `reads` their number."""

    def __init__(self, count: int, reader: Callable[[], AbstractContextManager[Callable[[], int]]]) -> None:
        self._reader = reader
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._work, name=f"auditor-{n}") for n in range(count)]
        self.sums: set[int] = set()
        self.reads = 0

    def _work(self) -> None:
        with self._reader() as ask:
            while not self._ended.is_set():
                self.sums.add(ask())
                self.reads += 1

    @contextmanager
    def at_work(self) -> Iterator[Auditors]:
        """Ask until the end of the block."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            for thread in self._threads:
                thread.join()


@pytest.mark.parametrize(("settings", "pause"), SETTINGS.values(), ids=SETTINGS)
def test_every_read_sees_the_same_total_also_while_tables_are_copied_again(
    bank: Database, replica_factory: Callable[..., Replica], settings: dict[str, int], pause: float
) -> None:
    replica = replica_factory(bank.url, copy_batch_rows=10, **settings).start()

    @contextmanager
    def reader() -> Iterator[Callable[[], int]]:
        with closing(replica.pipeline.reader()) as cursor:
            yield lambda: int(cursor.execute(SUM).fetchall()[0][0])

    auditors = Auditors(2, reader)
    with auditors.at_work(), Clerk(bank, 1, pause=pause).at_work() as clerk:
        copies: tuple[Callable[[], Run], ...] = (
            replica.pipeline.start_full_sync,
            partial(replica.pipeline.start_table_sync, "savings"),
            partial(replica.pipeline.start_table_sync, "giro"),
        )
        for copy in copies:
            before = clerk.transfers
            wait_until(lambda: clerk.transfers > before + 10, "10 transfers")  # noqa: B023
            assert copy().wait(180).errors == ()
        reads = auditors.reads
        wait_until(lambda: auditors.reads > reads + 50, "50 reads")
    assert auditors.sums == {TOTAL}
    replica.catch_up()
    replica.assert_equal()
    assert clerk.transfers > 30


def test_every_answer_over_http_has_the_same_total(
    bank: Database, service_factory: Callable[..., Service]
) -> None:
    service = service_factory(bank.url, copy_batch_rows=10).start()

    def total() -> int:
        [row] = service.query(SUM)
        return int(row["total"])

    def copied() -> bool:
        try:
            return total() == TOTAL
        except DucklingError:  # there is no such table yet
            return False

    wait_until(copied, "the first copy")

    @contextmanager
    def reader() -> Iterator[Callable[[], int]]:
        with closing(service.client()) as client:
            yield lambda: int(service.query(SUM, client=client)[0]["total"])

    auditors = Auditors(2, reader)
    with auditors.at_work(), Clerk(bank, 2).at_work() as clerk:
        wait_until(lambda: clerk.transfers > 50, "50 transfers")
        wait_until(lambda: service.get("/cdc/status")["status"]["isRunning"], "the stream is connected")
        answer = service.post("/sync/full")
        assert answer["failedTables"] == 0
        wait_until(lambda: clerk.transfers > 150 and auditors.reads > 100, "150 transfers and 100 reads")
    assert auditors.sums == {TOTAL}
    service.post("/sync/incremental")
    with bank.connect() as connection, closing(connection.cursor()) as cursor:
        cursor.execute("SELECT id, balance FROM giro ORDER BY id")
        at_source = list(cursor.fetchall())
    rows = service.query("SELECT id, balance FROM giro ORDER BY id")
    assert [(row["id"], int(row["balance"])) for row in rows] == at_source
