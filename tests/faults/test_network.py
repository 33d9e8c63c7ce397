"""The way to the source breaks, falls silent, or is not what it was: nothing is lost, and nothing hangs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from cdc.sandbox.databases import Database, create_database, session
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import Server
from cdc.status import PipelineState
from tests.faults.conftest import EVERYTHING
from tests.faults.proxy import Proxy, proxied
from tests.replica import Replica
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180 if not EVERYTHING else 1800)

FAST: dict[str, Any] = {"retry_max_seconds": 0.1, "heartbeat_seconds": 1}


@pytest.fixture
def proxy(database: Database) -> Iterator[Proxy]:
    with proxied(database.url) as made:
        yield made


@pytest.fixture
def live(database: Database, proxy: Proxy, replica_factory: Callable[..., Replica]) -> Replica:
    database.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, n INT)",
        "CREATE TABLE b (n INT, name VARCHAR(20))",
        "INSERT INTO a VALUES (1, 0)",
        "INSERT INTO b VALUES (0, 'x'), (0, 'x')",
    )
    return replica_factory(proxy.url, **FAST).start()


def transaction(database: Database, number: int) -> None:
    """Rows of three kinds in two tables, one of them without a key, in several events."""
    with closing(database.connect(autocommit=False)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO a VALUES (%s, %s)", (number + 10, number))
        cursor.execute("INSERT INTO b VALUES (%s, 'new'), (%s, 'new')", (number, number))
        cursor.execute("UPDATE a SET n = n + 1 WHERE id IN (1, %s)", (number + 10,))
        cursor.execute("DELETE FROM b WHERE name = 'new' LIMIT 1")
        cursor.execute("UPDATE b SET n = n + 1 LIMIT 1")
        connection.commit()


def assert_equal(live: Replica, database: Database) -> None:
    live.settle()
    live.url = database.url
    live.assert_equal()
    assert sorted(filter(None, live.copies())) == ["a", "b"]


def written_while_away(database: Database, proxy: Proxy, live: Replica, number: int) -> None:
    """A transaction that the next dump will bring."""
    proxy.silence()
    transaction(database, number)
    transaction(database, number + 100_000)
    dumps = proxy.dumps
    proxy.resume()
    wait_until(lambda: proxy.dumps > dumps + 1, "a dump is cut and another one made")
    live.catch_up()


def test_a_dump_that_is_cut_behind_any_packet_goes_on_from_a_boundary(
    database: Database, proxy: Proxy, live: Replica
) -> None:
    """Behind the rotation, the format, the GTID, BEGIN, each TABLE_MAP, each rows event, the commit."""
    packets_sent = range(1, 24) if EVERYTHING else range(1, 24, 3)
    for packets in packets_sent:
        proxy.cut_next_dump(packets=packets)
        written_while_away(database, proxy, live, packets)
    assert proxy.cuts == len(packets_sent)
    assert_equal(live, database)


def test_a_dump_that_is_cut_within_a_packet_goes_on_from_a_boundary(
    database: Database, proxy: Proxy, live: Replica
) -> None:
    """At every byte of a small transaction with FAULTS=all, at a few of them otherwise."""
    sizes = range(1, 1200) if EVERYTHING else range(7, 1200, 260)
    for size in sizes:
        proxy.cut_next_dump(size=size)
        written_while_away(database, proxy, live, size)
    assert proxy.cuts == len(sizes)
    assert_equal(live, database)


def test_a_connection_that_falls_silent_is_taken_as_lost(
    database: Database, proxy: Proxy, live: Replica
) -> None:
    """No packet and no FIN: only the missing heartbeats tell."""
    proxy.silence()
    transaction(database, 1)
    wait_until(lambda: live.pipeline.status().state is PipelineState.RETRYING, "the silence is noticed")
    assert "heartbeat" in (live.pipeline.status().last_error or "")
    proxy.resume()
    assert_equal(live, database)


def test_a_copy_whose_connection_falls_silent_can_be_ended(
    database: Database, proxy: Proxy, live: Replica
) -> None:
    proxy.silence()
    run = live.pipeline.start_full_sync()
    run.cancel()
    proxy.resume()
    wait_until(lambda: run.done, "the copy ends")
    transaction(database, 1)
    live.settle()


def test_another_replica_with_our_server_id_is_named(
    database: Database,
    proxy: Proxy,
    replica_factory: Callable[..., Replica],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Both go on in turns or one waits; the reason is told, and nothing is lost."""
    database.execute("CREATE TABLE a (id INT PRIMARY KEY, n INT)", "INSERT INTO a VALUES (1, 0)")
    first = replica_factory(proxy.url, server_id=4711, **FAST).start()
    second = Replica(proxy.url, tmp_path_factory.mktemp("twin") / "twin.db", server_id=4711, **FAST)
    second.start(live=False)
    codes = wait_until(
        lambda: {r.pipeline.status().last_error_code for r in (first, second)} - {None}, "one is told"
    )
    assert codes <= {"SERVER_ID_CLASH", "SOURCE_UNAVAILABLE"}
    second.stop()
    database.execute("UPDATE a SET n = 5", "INSERT INTO a VALUES (2, 2)")
    first.settle()
    first.url = database.url
    first.assert_equal()


def test_a_password_that_changes_while_streaming_is_read_anew(
    database: Database,
    proxy: Proxy,
    replica_factory: Callable[..., Replica],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    name = f"u{database.name[-14:]}"
    secret = tmp_path_factory.mktemp("secret") / "password"
    secret.write_text("first-password")
    database.execute("CREATE TABLE a (id INT PRIMARY KEY, n INT)", "INSERT INTO a VALUES (1, 0)")
    with session(database.server.url()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE USER {name}@'localhost' IDENTIFIED BY 'first-password'")
        try:
            cursor.execute(f"GRANT ALL ON *.* TO {name}@'localhost'")
            url = proxy.url.replace("//root@", f"//{name}:unused@")
            replica = replica_factory(url, mysql_password_file=secret, **FAST).start()
            cursor.execute(f"ALTER USER {name}@'localhost' IDENTIFIED BY 'second-password'")
            proxy.cut()
            database.execute("UPDATE a SET n = 1")
            status = wait_until(
                lambda: (now := replica.pipeline.status()).last_error_code == "SOURCE_ACCESS_DENIED" and now,
                "the old password is refused",
            )
            assert status.state is PipelineState.RETRYING
            secret.write_text("second-password")
            replica.settle()
            replica.url = database.url
            replica.assert_equal()
            replica.stop()
        finally:
            cursor.execute(f"DROP USER {name}@'localhost'")


@pytest.mark.parametrize("flavor", list(Flavor), ids=str)
def test_an_event_larger_than_the_sources_packets_arrives_all_the_same(
    flavor: Flavor, server_factory: Callable[..., Server], replica_factory: Callable[..., Replica]
) -> None:
    """max_allowed_packet was lowered behind it; a dump is not bound by it (MariaDB's position lookup is)."""
    database = create_database(server_factory(flavor, "--max-allowed-packet=32M"))
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, body LONGTEXT)", "INSERT INTO t VALUES (1, 'x')")
    replica = replica_factory(database.url, **FAST).start()
    replica.stop()
    database.execute("INSERT INTO t VALUES (2, REPEAT('y', 8000000))", "INSERT INTO t VALUES (3, 'z')")
    database.execute("SET GLOBAL max_allowed_packet = 1048576")
    replica.start(live=False).settle()
    assert replica.rows("SELECT id, length(body) FROM t ORDER BY id") == [(1, 1), (2, 8000000), (3, 1)]
    assert replica.copies() == ["t"]


def test_an_incremental_sync_outlives_connections_that_are_lost_while_it_waits(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    with proxied(database.url) as proxy:
        replica = replica_factory(proxy.url, retry_max_seconds=0.1).start()
        for number in range(1, 13):
            proxy.cut_next_dump(packets=number)
            proxy.cut()
            database.execute(f"INSERT INTO t VALUES ({number})", f"INSERT INTO t VALUES ({number + 100})")
            replica.catch_up()
            assert replica.value("SELECT count(*) FROM t") == 2 * number
        assert proxy.cuts >= 6
        replica.stop()
