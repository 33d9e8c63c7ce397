"""The source restarts, crashes or cuts connections: the replica goes on by itself, without a gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cdc.sandbox import shop
from cdc.sandbox.databases import Database, create_database, session
from cdc.sandbox.installation import Flavor
from cdc.sandbox.load import Load
from cdc.sandbox.servers import Server
from cdc.status import PipelineState
from tests.replica import Replica
from tests.sessions import dump_threads
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=list(Flavor), ids=str)
def own_server(request: pytest.FixtureRequest, server_factory: Callable[..., Server]) -> Server:
    """A server of the test's own, of each kind."""
    return server_factory(request.param)


@pytest.fixture
def small_shop(own_server: Server) -> Iterator[Database]:
    database = create_database(own_server)
    connection = database.connect()
    shop.create_tables(connection)
    shop.fill_tables(connection, rows=2_000)
    yield database
    own_server.start()
    database.drop()


@pytest.fixture
def live(small_shop: Database, replica_factory: Callable[..., Replica]) -> Replica:
    """A replica of the shop, streaming."""
    return replica_factory(small_shop.url, heartbeat_seconds=1).start()


def assert_followed_without_a_copy(replica: Replica) -> None:
    """Asserts that it is equal, and that no table was copied but for the first time."""
    replica.settle()
    replica.assert_equal()
    assert len(replica.copies()) == len(shop.TABLES)


def test_a_restart_of_the_source_under_load_loses_nothing(
    own_server: Server, small_shop: Database, live: Replica
) -> None:
    with Load(small_shop.url, rate=100, seed=31, survive=True) as load:
        load.wait_for(load.figures.transactions + 40)
        own_server.restart()
        wait_until(lambda: live.pipeline.status().reconnects > 0, "it connects again")
        load.wait_for(load.figures.transactions + 40)
    assert_followed_without_a_copy(live)


def test_a_crash_of_the_source_under_load_loses_nothing(
    own_server: Server, small_shop: Database, live: Replica
) -> None:
    with Load(small_shop.url, rate=100, seed=32, survive=True) as load:
        for _ in range(2):
            load.wait_for(load.figures.transactions + 40)
            own_server.kill()
            own_server.start()
        load.wait_for(load.figures.transactions + 40)
    assert_followed_without_a_copy(live)


def test_a_dump_connection_that_is_killed_ten_times_is_made_anew(
    own_server: Server, small_shop: Database, live: Replica
) -> None:
    killed: set[int] = set()
    with Load(small_shop.url, rate=100, seed=33) as load:
        for _ in range(10):
            # The next one counts only when it has shown that it works.
            events = live.pipeline.status().transactions
            wait_until(lambda: live.pipeline.status().transactions > events, "transactions arrive")  # noqa: B023
            [thread] = wait_until(
                lambda: [t for t in dump_threads(own_server.url()) if t not in killed], "a dump connection"
            )
            with session(own_server.url()) as connection, connection.cursor() as cursor:
                cursor.execute(f"KILL {thread}")
            killed.add(thread)
        load.wait_for(load.figures.transactions + 10)
    assert_followed_without_a_copy(live)
    assert live.pipeline.status().reconnects >= 10


def test_a_source_that_is_down_is_waited_for_and_readers_keep_the_copy(
    own_server: Server, small_shop: Database, live: Replica
) -> None:
    live.catch_up()
    products = live.value("SELECT count(*) FROM products")
    own_server.stop()
    status = wait_until(
        lambda: (now := live.pipeline.status()).state is PipelineState.RETRYING and now,
        "the stream notices",
    )
    assert status.last_error
    assert status.hint
    assert live.value("SELECT count(*) FROM products") == products
    own_server.start()
    small_shop.execute("DELETE FROM products LIMIT 1")
    assert_followed_without_a_copy(live)
    assert live.value("SELECT count(*) FROM products") == products - 1


def test_a_connection_that_is_lost_during_the_first_copy_begins_it_again(
    own_server: Server, small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(small_shop.url, copy_batch_rows=20).start(live=False)
    run = wait_until(replica.pipeline.current_run, "the copy begins")
    wait_until(lambda: sum(table.rows for table in run.progress()) > 200, "200 rows are copied")
    own_server.restart()
    replica.settle()
    assert replica.assert_equal() == 2_000


def test_a_service_whose_source_lost_the_binary_log_says_so_and_a_full_copy_mends_it(
    own_server: Server, small_shop: Database, replica_factory: Callable[..., Replica]
) -> None:
    first = replica_factory(small_shop.url).start()
    first.stop()
    small_shop.execute(
        "DELETE FROM products LIMIT 5", "FLUSH BINARY LOGS", "INSERT INTO events SELECT * FROM events"
    )
    wait_until(lambda: not dump_threads(own_server.url()), "nobody reads the old log file")
    with session(own_server.url()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW BINARY LOGS")
        newest = cursor.fetchall()[-1][0]

        def purged() -> bool:
            # MariaDB keeps a file for as long as its own recovery may need it.
            cursor.execute(f"PURGE BINARY LOGS TO '{newest}'")
            cursor.execute("SHOW BINARY LOGS")
            return len(cursor.fetchall()) == 1

        wait_until(purged, "the old log file is purged")
    second = replica_factory(small_shop.url).start(live=False)
    status = wait_until(
        lambda: (now := second.pipeline.status()).state is PipelineState.NEEDS_RESYNC and now,
        "the stream stops",
    )
    assert "/sync/full" in (status.hint or "")
    assert second.pipeline.start_full_sync().wait(60).errors == ()
    second.settle()
    second.assert_equal()
