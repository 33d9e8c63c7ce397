"""Copy and stream meet at one place: what is written during a copy is neither lost nor doubled."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable

import pytest

from cdc.catch_up import CatchUp
from cdc.errors import DucklingError, ReplicaError
from cdc.position import Position
from cdc.replica.batch_transactions import BatchTransactions
from cdc.replica.target import BatchTarget
from cdc.sandbox import shop
from cdc.sandbox.databases import Database
from cdc.sandbox.load import Load
from cdc.schema import Table
from cdc.source.batcher import Batch
from cdc.source.meetings import Meeting
from cdc.stream_loop import StreamLoop
from tests.replica import Replica
from tests.waiting import SECONDS, wait_until

pytestmark = [pytest.mark.timeout(90), pytest.mark.crossed]


@pytest.fixture
def small_shop(database: Database) -> Database:
    connection = database.connect()
    shop.create_tables(connection)
    shop.fill_tables(connection, rows=2_500)
    return database


def test_what_is_written_during_the_first_copy_is_in_it_once(
    small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, copy_batch_rows=300)
    with Load(small_shop.url, rate=60, seed=11) as one, Load(small_shop.url, rate=60, seed=12):
        one.wait_for(50)
        replica.start()
        one.wait_for(one.figures.transactions + 50)
    replica.catch_up()
    replica.assert_equal()


def test_full_copies_one_after_another_under_load_lose_and_double_nothing(
    small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, copy_batch_rows=300).start()
    with Load(small_shop.url, rate=60, seed=13) as one, Load(small_shop.url, rate=60, seed=14):
        for _ in range(3):
            one.wait_for(one.figures.transactions + 10)
            result = replica.pipeline.start_full_sync().wait(60)
            assert result.errors == ()
            assert result.snapshots == len(shop.TABLES)
    replica.catch_up()
    replica.assert_equal()
    assert replica.pipeline.status().errors == 0


def test_copies_of_single_tables_under_load_lose_and_double_nothing(
    small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, copy_batch_rows=300).start()
    with Load(small_shop.url, rate=60, seed=15) as load:
        for table in ("events", "order_lines", "products", "orders", "events"):
            load.wait_for(load.figures.transactions + 5)
            result = replica.pipeline.start_table_sync(table, "full").wait(60)
            assert [(each.table, each.status) for each in result.tables] == [(table, "success")]
    replica.catch_up()
    replica.assert_equal()
    assert replica.pipeline.status().errors == 0


def test_a_copy_joins_the_stream_across_the_end_of_a_log_file(
    small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, copy_batch_rows=300).start()
    ended = threading.Event()

    def flush() -> None:
        while not ended.is_set():
            small_shop.execute("FLUSH BINARY LOGS")
            ended.wait(0.1)

    flushing = threading.Thread(target=flush)
    with Load(small_shop.url, rate=60, seed=16) as load:
        flushing.start()
        try:
            for table in ("events", "order_lines", "orders"):
                load.wait_for(load.figures.transactions + 5)
                assert replica.pipeline.start_table_sync(table).wait(60).errors == ()
            assert replica.pipeline.start_full_sync().wait(60).errors == ()
        finally:
            ended.set()
            flushing.join()
    replica.catch_up()
    replica.assert_equal()


def test_a_copy_joins_a_stream_that_stands_still(small_shop: Database, replica: Replica) -> None:
    replica.start()
    small_shop.execute("FLUSH BINARY LOGS")
    for table in ("events", "products"):
        assert replica.pipeline.start_table_sync(table).wait(60).errors == ()
    small_shop.execute("DELETE FROM events LIMIT 3", "UPDATE products SET stock = stock + 1")
    replica.catch_up()
    replica.assert_equal()


def test_a_transaction_that_began_before_the_copy_and_ends_behind_it_is_there_once(
    small_shop: Database, replica: Replica
) -> None:
    small_shop.execute("DROP TABLE events")  # a table without a key is copied between transactions
    with small_shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("UPDATE products SET stock = stock + 1000")
        cursor.execute("INSERT INTO orders (customer_id) SELECT customer_id FROM orders LIMIT 50")
        cursor.execute("DELETE FROM order_lines LIMIT 100")
        replica.start()
        assert replica.value("SELECT max(stock) FROM products") < 1000
        cursor.execute("COMMIT")
    replica.catch_up()
    replica.assert_equal()
    assert replica.value("SELECT min(stock) FROM products") > 400


def test_a_copy_of_a_table_without_a_key_waits_for_the_transaction_that_writes_to_it(
    small_shop: Database, replica: Replica
) -> None:
    with small_shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("DELETE FROM events LIMIT 10")
        cursor.execute("INSERT INTO events SELECT * FROM events LIMIT 10")
        replica.start(live=False)
        wait_until(replica.pipeline.current_run, "the copy begins")
        cursor.execute("COMMIT")
    replica.wait_live()
    replica.catch_up()
    replica.assert_equal()


def test_a_table_that_is_being_copied_can_be_written_to_in_one_large_transaction(
    small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, copy_batch_rows=50, batch_size=500).start()
    run = replica.pipeline.start_full_sync()
    wait_until(lambda: sum(table.rows for table in run.progress()) > 100 or run.done, "rows are copied")
    small_shop.execute(
        "BEGIN",
        "UPDATE order_lines SET quantity = quantity + 1",
        "INSERT INTO events SELECT * FROM events",
        "UPDATE orders SET id = id + 5000000 ORDER BY id DESC",
        "COMMIT",
    )
    assert run.wait(60).errors == ()
    replica.catch_up()
    replica.assert_equal()


@pytest.mark.parametrize("staging", [True, False], ids=["copy", "stream"])
def test_a_copy_does_not_go_live_behind_a_batch_that_was_refused(
    small_shop: Database,
    replica_factory: Callable[..., Replica],
    monkeypatch: pytest.MonkeyPatch,
    staging: bool,
) -> None:
    """The batch, of the copy's own reader or of the stream, is on its way when both meet, and fails then."""
    armed, met, refused = threading.Event(), threading.Event(), threading.Event()
    apply, join, meet = BatchTransactions._apply, CatchUp.join, StreamLoop.meet

    def refuse_one(batches: BatchTransactions, target: BatchTarget, batch: Batch, replace: bool) -> None:
        ours = (target.save_position is None) is staging
        if armed.is_set() and ours and batch.rows and not refused.is_set():
            met.wait(SECONDS)
            refused.set()
            raise ReplicaError("the disk is full", hint="make room")
        apply(batches, target, batch, replace)

    def watched(stream: StreamLoop, target: Position | None, *, hold: bool = False) -> Meeting:
        meeting = meet(stream, target, hold=hold)
        meeting.reached.add_done_callback(lambda _: met.set())
        return meeting

    def write_and_join(self: CatchUp, high: Position, go_live: Callable[..., dict[str, Table]]) -> None:
        def go(start: Position | None) -> dict[str, Table]:
            refused.wait(SECONDS)
            return go_live(start)

        armed.set()
        small_shop.execute("UPDATE events SET kind = CONCAT(kind, '!') LIMIT 100")
        join(self, high, go)

    replica = replica_factory(small_shop.url).start()
    with monkeypatch.context() as patched:
        patched.setattr(BatchTransactions, "_apply", refuse_one)
        patched.setattr(StreamLoop, "meet", watched)
        patched.setattr(CatchUp, "join", write_and_join)
        with pytest.raises(DucklingError, match="disk is full" if staging else "stream failed"):
            replica.pipeline.start_table_sync("events").wait(60)
    replica.settle()
    replica.assert_equal()
    assert replica.pipeline.start_table_sync("events").wait(60).errors == ()
    replica.catch_up()
    replica.assert_equal()


def test_a_stream_that_is_stopped_while_a_copy_joins_it_ends_at_the_place_where_they_met(
    database: Database, replica_factory: Callable[..., Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held at a heartbeat. One more transaction, read with tables that lack the new one, would be lost."""
    database.execute(
        "CREATE TABLE old (id INT PRIMARY KEY)",
        "CREATE TABLE fresh (id INT PRIMARY KEY)",
        "INSERT INTO fresh VALUES (1)",
    )
    first = replica_factory(database.url, excluded_tables=["fresh"]).start()
    first.catch_up()
    first.stop()
    join, meet = CatchUp.join, StreamLoop.meet

    def at_a_heartbeat(stream: StreamLoop, target: Position | None, *, hold: bool = False) -> Meeting:
        if hold and stream.reader is not None:
            monkeypatch.setattr(stream.reader._dump, "wake", lambda: None)
        return meet(stream, target, hold=hold)

    def stop_while_held(self: CatchUp, high: Position, go_live: Callable[..., dict[str, Table]]) -> None:
        def go(start: Position | None) -> dict[str, Table]:
            live = go_live(start)
            reader = self._stream.reader
            assert reader is not None
            database.execute("INSERT INTO fresh VALUES (2)")
            readable, _, _ = select.select([reader._dump._socket], [], [], SECONDS)
            assert readable
            replica.pipeline.stop_stream()
            return live

        join(self, high, go)

    replica = replica_factory(database.url, heartbeat_seconds=0.6).start()
    with monkeypatch.context() as patched:
        patched.setattr(StreamLoop, "meet", at_a_heartbeat)
        patched.setattr(CatchUp, "join", stop_while_held)
        assert replica.pipeline.start_table_sync("fresh").wait(SECONDS).errors == ()
    replica.stop()
    again = replica_factory(database.url).start()
    again.catch_up()
    again.assert_equal()
    assert again.copies().count("fresh") == 1
