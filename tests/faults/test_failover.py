"""Another server under the same address, and histories that are not one line of numbers."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import suppress

import pymysql
import pytest

from cdc.sandbox.databases import Database, create_database, session
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import Server
from cdc.source.binlog import BinlogDump
from cdc.status import PipelineState
from tests.faults.proxy import proxied
from tests.replica import Replica
from tests.sessions import dump_threads
from tests.waiting import SECONDS, wait_until

pytestmark = pytest.mark.timeout(180)


def run(server: Server, *statements: str) -> list[tuple[object, ...]]:
    """Statements of root; the rows of the last one."""
    with session(server.url()) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


class Pair:
    """A source and a replica of it by the server's own replication: the same GTIDs, another binary log."""

    def __init__(self, flavor: Flavor, start: Callable[..., Server]) -> None:
        options = ("--log-slave-updates=ON",) if flavor is Flavor.MARIADB else ()
        self.flavor = flavor
        self.old = start(flavor, *options)
        self.new = start(flavor, "--server-id=2", *options)
        self.database = create_database(self.old, "shop")
        self.database.execute(
            "CREATE TABLE t (id INT PRIMARY KEY, n INT)", "INSERT INTO t VALUES (1, 1), (2, 2)"
        )
        # So that files and offsets have nothing in common.
        for _ in range(3):
            run(self.new, "FLUSH BINARY LOGS")
        if flavor is Flavor.MYSQL:
            change = "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, "
            change += "SOURCE_USER = 'root', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1"
        else:
            change = "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, "
            change += "MASTER_USER = 'root', MASTER_USE_GTID = slave_pos"
        run(self.new, change.format(self.old.port))
        self.follow()
        self.promoted = Database(self.new, "shop")

    def follow(self, *, only_on: bool = False) -> None:
        run(self.new, "START REPLICA" if self.flavor is Flavor.MYSQL else "START SLAVE")
        if not only_on:
            self.wait()

    def halt(self) -> None:
        run(self.new, "STOP REPLICA" if self.flavor is Flavor.MYSQL else "STOP SLAVE")

    def wait(self) -> None:
        """Until the new server has all that the old one has."""
        variable = "gtid_executed" if self.flavor is Flavor.MYSQL else "gtid_current_pos"
        [(there,)] = run(self.old, f"SELECT @@global.{variable}")
        wait_until(lambda: run(self.new, f"SELECT @@global.{variable}") == [(there,)], "the server follows")


@pytest.fixture(params=list(Flavor), ids=str)
def pair(request: pytest.FixtureRequest, server_factory: Callable[..., Server]) -> Pair:
    return Pair(request.param, server_factory)


def test_a_failover_to_a_server_with_the_same_gtids_goes_on_without_a_copy(
    pair: Pair, replica_factory: Callable[..., Replica]
) -> None:
    first = replica_factory(pair.database.url).start()
    pair.database.execute("UPDATE t SET n = 10 WHERE id = 1", "DELETE FROM t WHERE id = 2")
    first.catch_up()
    first.stop()
    pair.database.execute("INSERT INTO t VALUES (3, 3)")
    pair.wait()
    pair.halt()
    pair.old.kill()
    pair.promoted.execute("INSERT INTO t VALUES (4, 4)", "UPDATE t SET n = 30 WHERE id = 3")
    moved = replica_factory(pair.promoted.url).start(live=False)
    moved.settle()
    moved.assert_equal()
    assert moved.rows("SELECT id, n FROM t ORDER BY id") == [(1, 10), (3, 30), (4, 4)]
    assert moved.copies() == ["t"]
    # The promoted server adds transactions of its own identity; a restart goes on with both.
    moved.stop()
    pair.promoted.execute("INSERT INTO t VALUES (5, 5)")
    again = replica_factory(pair.promoted.url).start()
    again.catch_up()
    again.assert_equal()
    assert again.copies() == ["t"]


def test_an_incremental_sync_behind_a_failover_asks_the_new_server(
    pair: Pair, replica_factory: Callable[..., Replica]
) -> None:
    """The session that it keeps may still answer, on the old server, which lives on."""
    with proxied(pair.database.url) as proxy:
        replica = replica_factory(proxy.url).start()
        pair.database.execute("INSERT INTO t VALUES (3, 3)")
        replica.catch_up()
        pair.wait()
        pair.halt()
        proxy.target = ("127.0.0.1", pair.new.port)
        for dump in dump_threads(pair.old.url()):
            with suppress(pymysql.err.OperationalError):  # the other replica's has ended by itself
                run(pair.old, f"KILL {dump}")
        wait_until(lambda: dump_threads(pair.new.url()), "the stream is on the new server")
        replica.wait_live()
        replica.catch_up()  # with nothing new there, whose place is to be committed
        assert replica.pipeline.validate("checksum").equal
        pair.promoted.execute("INSERT INTO t VALUES (4, 4)")
        replica.catch_up()
        assert replica.rows("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,), (4,)]
        assert replica.copies() == ["t"]
        replica.stop()


def test_a_failover_to_a_server_that_lags_is_refused_until_it_has_caught_up(
    pair: Pair, replica_factory: Callable[..., Replica]
) -> None:
    first = replica_factory(pair.database.url).start()
    pair.halt()
    pair.database.execute("INSERT INTO t VALUES (3, 3)", "INSERT INTO t VALUES (4, 4)")
    first.catch_up()
    first.stop()
    moved = replica_factory(pair.promoted.url).start(live=False)
    status = wait_until(
        lambda: (now := moved.pipeline.status()).state is PipelineState.FAILED and now, "it is refused"
    )
    assert status.last_error_code == "SOURCE_MISMATCH"
    assert status.hint
    assert moved.value("SELECT count(*) FROM t") == 4  # readers keep what there is
    pair.follow()
    pair.promoted.execute("INSERT INTO t VALUES (5, 5)")
    moved.pipeline.start_stream()
    wait_until(lambda: moved.pipeline.status().state is PipelineState.STREAMING, "a start after a failure")
    moved.settle()
    moved.assert_equal()
    assert moved.copies() == ["t"]


def test_a_failover_to_a_server_that_purged_our_place_needs_a_copy_and_says_so(
    pair: Pair, replica_factory: Callable[..., Replica]
) -> None:
    first = replica_factory(pair.database.url).start()
    first.stop()
    pair.database.execute("INSERT INTO t VALUES (3, 3)")
    pair.wait()
    pair.halt()
    run(pair.new, "FLUSH BINARY LOGS")
    pair.promoted.execute("INSERT INTO t VALUES (4, 4)")

    def purged() -> bool:
        newest = run(pair.new, "FLUSH BINARY LOGS", "SHOW BINARY LOGS")[-1][0]
        return len(run(pair.new, f"PURGE BINARY LOGS TO '{newest}'", "SHOW BINARY LOGS")) == 1

    wait_until(purged, "the old files are purged")
    moved = replica_factory(pair.promoted.url).start(live=False)
    status = wait_until(
        lambda: (now := moved.pipeline.status()).state is PipelineState.NEEDS_RESYNC and now, "it stops"
    )
    assert "/sync/full" in (status.hint or "")
    assert moved.pipeline.start_full_sync().wait(60).errors == ()
    moved.settle()
    moved.assert_equal()


def test_a_log_that_was_reset_is_not_taken_for_the_old_one(
    pair: Pair, replica_factory: Callable[..., Replica]
) -> None:
    """The numbers and the file names begin anew; what is there means something else."""
    pair.halt()
    first = replica_factory(pair.database.url).start()
    pair.database.execute("INSERT INTO t VALUES (3, 3)")
    first.catch_up()
    first.stop()
    reset = "RESET BINARY LOGS AND GTIDS" if pair.flavor is Flavor.MYSQL else "RESET MASTER"
    run(pair.old, reset)
    pair.database.execute("DELETE FROM t WHERE id = 1")
    after = replica_factory(pair.database.url).start(live=False)
    status = wait_until(
        lambda: (
            (now := after.pipeline.status()).state in (PipelineState.FAILED, PipelineState.NEEDS_RESYNC)
            and now
        ),
        "it is refused",
    )
    assert status.last_error_code in ("SOURCE_MISMATCH", "POSITION_LOST")
    assert after.value("SELECT count(*) FROM t") == 3
    assert after.pipeline.start_full_sync().wait(60).errors == ()
    after.settle()
    after.assert_equal()


def test_gtids_of_several_servers_with_gaps_are_one_set(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    """Numbers out of order and with holes, of servers that are gone: each transaction once, after a restart too."""
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, n INT)", "CREATE TABLE k (n INT)")
    replica = replica_factory(database.url).start()
    gone = [str(uuid.uuid4()) for _ in range(2)]
    with database.connect().cursor() as cursor:
        for number, place in enumerate([(0, 5), (0, 3), (1, 7), (0, 9), (1, 2), (0, 4)]):
            server, sequence = place
            if database.flavor is Flavor.MYSQL:
                cursor.execute(f"SET gtid_next = '{gone[server]}:{sequence}'")
            else:
                domain = int(gone[server][:7], 16)
                cursor.execute(f"SET SESSION gtid_domain_id = {domain}, SESSION server_id = {server + 7}")
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO t VALUES (%s, 1)", (number,))
            cursor.execute("INSERT INTO k VALUES (1)")
            cursor.execute("COMMIT")
            if number % 2:
                replica.catch_up()
                replica.stop()
                replica.start()
    replica.catch_up()
    replica.assert_equal()
    assert replica.value("SELECT count(*) FROM k") == 6
    position = replica.pipeline.status().current.gtid or ""
    if database.flavor is Flavor.MYSQL:
        assert f"{gone[0]}:3-5:9" in position
        assert f"{gone[1]}:2:7" in position
    else:
        assert all(f"{int(each[:7], 16)}-" in position for each in gone)


def test_gtids_that_are_switched_on_while_streaming_change_nothing_but_the_position(
    server_factory: Callable[..., Server], replica_factory: Callable[..., Replica]
) -> None:
    server = server_factory(Flavor.MYSQL, "--gtid-mode=OFF", "--enforce-gtid-consistency=ON")
    database = create_database(server, "shop")
    database.execute(
        "CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE k (n INT)", "INSERT INTO t VALUES (1)"
    )
    replica = replica_factory(database.url).start()
    for number, mode in enumerate(("OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"), start=2):
        database.execute(f"INSERT INTO t VALUES ({number})", f"INSERT INTO k VALUES ({number})")
        run(server, f"SET GLOBAL gtid_mode = {mode}")
        database.execute(f"INSERT INTO t VALUES ({number * 10})", f"INSERT INTO k VALUES ({number})")
        replica.catch_up()
    replica.assert_equal()
    for number in (100, 101):
        replica.stop()
        database.execute(f"INSERT INTO t VALUES ({number})", "INSERT INTO k VALUES (0)")
        replica.start().catch_up()
        replica.assert_equal()
    assert sorted(filter(None, replica.copies())) == ["k", "t"]


def test_nothing_is_taken_for_applied_before_the_new_server_has_said_where_it_begins(
    pair: Pair, replica_factory: Callable[..., Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then its place is in the old server's file, whose number may be the higher one."""
    for _ in range(9):
        run(pair.old, "FLUSH BINARY LOGS")
    replica = replica_factory(pair.database.url).start()
    replica.catch_up()
    replica.stop()
    pair.wait()
    pair.halt()
    pair.promoted.execute("INSERT INTO t VALUES (3, 3)")
    receive = BinlogDump._receive
    speaks = threading.Event()
    silent: list[BinlogDump] = []

    def slow(dump: BinlogDump) -> bytes:
        if speaks.is_set():
            return receive(dump)
        silent.append(dump)
        return b""

    monkeypatch.setattr(BinlogDump, "_receive", slow)
    moved = replica_factory(pair.promoted.url).start(live=False)
    wait_until(lambda: moved.pipeline._stream.reader, "a reader is at work")
    sync = moved.pipeline.start_incremental_sync()
    asked = len(silent)
    wait_until(lambda: len(silent) > asked + 5, "the reader has looked for meetings again and again")
    assert not sync.done
    speaks.set()
    sync.wait(SECONDS)
    assert moved.rows("SELECT id FROM t ORDER BY id") == [(1,), (2,), (3,)]
