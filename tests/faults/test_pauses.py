"""A service, a writer or a reader that stands still for long, while the source goes on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from cdc.sandbox import shop
from cdc.sandbox.databases import Database
from cdc.sandbox.load import Load
from cdc.sandbox.service import Service
from tests.faults.conftest import assert_equal_after_stop, sample, wait_live
from tests.faults.memory import resident
from tests.replica import Replica
from tests.waiting import wait_until

TRANSACTIONS = sample(15_000, 400)
"""What the source commits meanwhile: a minute's worth, or a few seconds'."""
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def small_shop(database: Database) -> Database:
    connection = database.connect()
    shop.create_tables(connection)
    shop.fill_tables(connection, rows=2_000)
    return database


def test_a_stopped_process_goes_on_where_it_was(
    small_shop: Database, service_factory: Callable[..., Service]
) -> None:
    """SIGSTOP, and SIGCONT long after: the source may have given the connection up by then."""
    service = service_factory(small_shop.url, heartbeat_seconds=1).start()
    wait_live(service)
    with Load(small_shop.url, rate=250, seed=51) as load:
        load.wait_for(20)
        os.kill(service.pid, signal.SIGSTOP)
        load.wait_for(load.figures.transactions + TRANSACTIONS, timeout=300)
        os.kill(service.pid, signal.SIGCONT)
    wait_live(service)
    logged = service.query("SELECT count(*) AS n FROM _duckling.sync_log WHERE sync_type = 'snapshot'")
    assert int(logged[0]["n"]) == len(shop.TABLES)
    assert_equal_after_stop(service, small_shop.url)


def test_a_writer_that_stands_still_holds_the_reader_and_no_memory(
    small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, batch_size=200, batch_bytes=1 << 20).start()
    writer = replica.pipeline._engine.writer
    go_on = threading.Event()
    held = writer.submit(lambda _: go_on.wait(300))
    small_shop.execute("CREATE TABLE big (id INT PRIMARY KEY, body LONGTEXT)")
    with Load(small_shop.url, rate=0, seed=52) as load:
        load.wait_for(50)
        before = resident(os.getpid())
        load.wait_for(load.figures.transactions + TRANSACTIONS, timeout=300)
        assert writer.queued <= 2
        grown = resident(os.getpid()) - before
        go_on.set()
    assert held.result(10)
    assert grown < 96 << 20
    replica.settle()
    replica.assert_equal()


def test_a_reader_with_an_old_snapshot_keeps_it_and_holds_nobody_up(
    small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, checkpoint_wal_bytes=1 << 20, checkpoint_idle=0.1).start()
    count = "SELECT (SELECT count(*) FROM orders), (SELECT sum(stock) FROM products), (SELECT count(*) FROM events)"
    old = replica.pipeline.reader()
    old.execute("BEGIN TRANSACTION READ ONLY")
    before = old.execute(count).fetchall()
    with Load(small_shop.url, rate=0, seed=53) as load:
        for _ in range(4):
            load.wait_for(load.figures.transactions + TRANSACTIONS // 4, timeout=300)
            applied = replica.pipeline.status().transactions
            wait_until(lambda: replica.pipeline.status().transactions > applied, "rows are applied")  # noqa: B023
            assert old.execute(count).fetchall() == before
        replica.pipeline.start_table_sync("orders", "full").wait(60)
    assert old.execute(count).fetchall() == before
    old.close()
    replica.settle()
    replica.assert_equal()
    file = replica.pipeline._engine.replica
    wait_until(lambda: file.wal_bytes < 1 << 20, "the log is written into the file once the reader has gone")
