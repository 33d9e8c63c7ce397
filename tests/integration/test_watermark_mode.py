"""Polling where the log can't be followed, on a schedule; and the stream again as soon as it can."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdc.sandbox.databases import Database, create_database, session
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import Server
from cdc.status import PipelineState
from cdc.watermark.fallback import Fallback
from tests.replica import Replica
from tests.sessions import dump_threads
from tests.waiting import wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.crossed]

NO_LOG = {
    Flavor.MYSQL: ("--skip-log-bin", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"),
    Flavor.MARIADB: ("--skip-log-bin", "--gtid-strict-mode=OFF"),
}
ITEMS = (
    "CREATE TABLE items (id INT PRIMARY KEY, note VARCHAR(50), updated_at TIMESTAMP(3) NOT NULL"
    " DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), KEY (updated_at))"
)
INTERVAL = 60.0


class Clock:
    """A clock that runs, and that a test can put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Timed(Replica):
    """A replica whose clock the test puts forward; it polls every minute of that clock."""

    def __init__(self, url: str, path: Path, **settings: object) -> None:
        self.clock = Clock()
        super().__init__(url, path, clock=self.clock, sync_interval_minutes=1, **settings)

    @property
    def runs(self) -> int:
        """How many syncs have ended well."""
        return sum(record.status == "success" for record in self.pipeline.recent_runs())

    def pass_an_interval(self) -> None:
        """The next poll becomes due."""
        self.clock.ahead += INTERVAL + 1

    def wait_poll(self) -> None:
        """Puts the clock forward by an interval and returns when the poll is done."""
        before = self.runs
        self.pass_an_interval()
        wait_until(lambda: self.runs > before and self.pipeline.current_run() is None, "the poll is done")


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[Callable[..., Timed]]:
    """`timed(url, **settings)`: such a replica, stopped at the end."""
    made: list[Timed] = []

    def make(url: str, **settings: object) -> Timed:
        made.append(Timed(url, tmp_path / "replica.db", **settings))
        return made[-1]

    yield make
    for replica in made:
        replica.stop()


def mode(replica: Replica) -> tuple[str, PipelineState]:
    status = replica.pipeline.status()
    return status.mode, status.state


def test_polls_come_once_an_interval_by_themselves(database: Database, timed: Callable[..., Timed]) -> None:
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
    replica = timed(database.url, cdc_enabled=False).start(live=False)
    wait_until(lambda: replica.runs == 1, "the first copy")
    for number in range(2, 5):
        database.execute(f"INSERT INTO items (id, note) VALUES ({number}, 'new')")
        assert replica.runs == number - 1
        replica.wait_poll()
        assert replica.runs == number
        assert replica.assert_equal() == number
    replica.clock.ahead += 20 * INTERVAL
    wait_until(lambda: replica.runs == 5, "one poll, however late it is")
    assert mode(replica) == ("polling", PipelineState.POLLING)


def test_a_polled_copy_is_as_far_behind_as_its_last_poll_is_old(
    database: Database, timed: Callable[..., Timed]
) -> None:
    database.execute(ITEMS)
    replica = timed(database.url, cdc_enabled=False).start(live=False)
    wait_until(lambda: replica.runs == 1, "the first copy")
    replica.clock.ahead += 30
    lag = replica.pipeline.status().lag_seconds
    assert lag is not None
    assert lag >= 30


def test_nothing_is_polled_while_somebody_has_stopped_the_stream(
    mariadb_server: Server, timed: Callable[..., Timed]
) -> None:
    database = create_database(mariadb_server)
    try:
        database.execute(ITEMS)
        replica = timed(database.url).start()
        replica.pipeline.stop_stream()
        runs = replica.runs
        replica.clock.ahead += 10 * INTERVAL
        replica.pipeline.start_stream()
        replica.wait_live()
        assert replica.runs == runs
        assert mode(replica)[0] == "cdc"
    finally:
        database.drop()


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_server_without_a_log_is_polled_and_streamed_from_once_it_has_one(
    flavor: Flavor, server_factory: Callable[..., Server], timed: Callable[..., Timed]
) -> None:
    server = server_factory(flavor, *NO_LOG[flavor])
    database = create_database(server)
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
    replica = timed(database.url).start(live=False)
    wait_until(lambda: replica.runs == 1, "the first copy")
    status = replica.pipeline.status()
    assert (status.mode, status.state) == ("polling", PipelineState.POLLING)
    assert status.mode_reason == "the server writes no binary log"
    database.execute("INSERT INTO items (id, note) VALUES (2, 'polled')")
    replica.wait_poll()
    assert replica.assert_equal() == 2

    server.options = ()
    server.restart()
    database.execute("DELETE FROM items WHERE id = 1")
    replica.pass_an_interval()
    wait_until(lambda: mode(replica)[0] == "cdc", "the log is noticed")
    replica.settle()
    assert mode(replica) == ("cdc", PipelineState.STREAMING)
    assert replica.pipeline.watermarks() == []
    database.execute("INSERT INTO items (id, note) VALUES (3, 'streamed')", "DELETE FROM items WHERE id = 2")
    replica.catch_up()
    assert replica.assert_equal() == 1


def test_a_poll_that_becomes_due_at_any_moment_looks_at_the_log_first(
    server_factory: Callable[..., Server], timed: Callable[..., Timed], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_factory(Flavor.MARIADB, *NO_LOG[Flavor.MARIADB])
    database = create_database(server)
    database.execute(ITEMS)
    replica = timed(database.url).start(live=False)
    wait_until(lambda: replica.runs == 1, "the first copy")
    server.options = ()
    server.restart()
    note, passed = Fallback.note_mode, threading.Event()

    def note_as_an_interval_passes(fallback: Fallback, *, stream_wanted: bool) -> None:
        """The thread notes it after it has decided whether to look, before it decides whether to poll."""
        if not passed.is_set():
            passed.set()
            replica.pass_an_interval()
        note(fallback, stream_wanted=stream_wanted)

    monkeypatch.setattr(Fallback, "note_mode", note_as_an_interval_passes)
    wait_until(lambda: mode(replica)[0] == "cdc", "the log is noticed")
    assert passed.is_set()


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_server_that_loses_its_log_is_polled(
    flavor: Flavor, server_factory: Callable[..., Server], timed: Callable[..., Timed]
) -> None:
    server = server_factory(flavor)
    database = create_database(server)
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
    replica = timed(database.url).start()
    server.options = NO_LOG[flavor]
    server.restart()
    database.execute(
        "INSERT INTO items (id, note) VALUES (2, 'not in any log')", "DELETE FROM items WHERE id = 1"
    )
    wait_until(lambda: mode(replica)[0] == "polling", "the loss is noticed")
    replica.wait_poll()
    assert replica.assert_equal() == 1


@contextmanager
def account(database: Database) -> Iterator[tuple[str, Callable[[str], None]]]:
    """The URL of an account that may only read, and a function that runs a statement about it: {who}."""
    name = f"u{database.name[-14:]}"
    who = f"{name}@'localhost'"
    with session(database.server.url()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE USER {who} IDENTIFIED BY 'open'")
        try:
            cursor.execute(f"GRANT SELECT ON `{database.name}`.* TO {who}")
            at = database.url.rsplit("@", 1)[1]

            def run(statement: str) -> None:
                cursor.execute(statement.format(who=who))

            yield f"mysql://{name}:open@{at}", run
        finally:
            cursor.execute(f"DROP USER {who}")


REPLICATION = {
    Flavor.MYSQL: "REPLICATION SLAVE, REPLICATION CLIENT",
    Flavor.MARIADB: "REPLICATION SLAVE, BINLOG MONITOR",
}


@pytest.mark.parametrize("flavor", list(Flavor))
def test_an_account_that_may_only_read_polls_and_streams_once_it_is_granted_more(
    flavor: Flavor, server_factory: Callable[..., Server], timed: Callable[..., Timed]
) -> None:
    database = create_database(server_factory(flavor))
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
    with account(database) as (url, administer):
        replica = timed(url).start(live=False)
        wait_until(lambda: replica.runs == 1, "the first copy")
        assert replica.pipeline.status().mode_reason == "the account may not read the binary log"
        database.execute("INSERT INTO items (id, note) VALUES (2, 'polled')")
        replica.wait_poll()
        with_root = replica.url
        assert replica.assert_equal() == 2
        assert with_root == url
        administer(f"GRANT {REPLICATION[flavor]} ON *.* TO {{who}}")
        replica.pass_an_interval()
        wait_until(lambda: mode(replica)[0] == "cdc", "the grant is noticed")
        replica.settle()
        database.execute("DELETE FROM items WHERE id = 1")
        replica.catch_up()
        assert replica.assert_equal() == 1


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_privilege_that_comes_back_before_a_poll_costs_no_copy(
    flavor: Flavor, server_factory: Callable[..., Server], timed: Callable[..., Timed]
) -> None:
    database = create_database(server_factory(flavor))
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
    with account(database) as (url, administer):
        administer(f"GRANT {REPLICATION[flavor]} ON *.* TO {{who}}")
        replica = timed(url).start()
        copies = replica.runs
        administer(f"REVOKE {REPLICATION[flavor]} ON *.* FROM {{who}}")
        with session(database.server.url()) as connection, connection.cursor() as cursor:
            for dump in dump_threads(database.server.url()):
                cursor.execute(f"KILL {dump}")
        database.execute(
            "INSERT INTO items (id, note) VALUES (2, 'in the log')", "DELETE FROM items WHERE id = 1"
        )
        wait_until(lambda: mode(replica)[0] == "polling", "the loss is noticed")
        administer(f"GRANT {REPLICATION[flavor]} ON *.* TO {{who}}")
        replica.pass_an_interval()
        wait_until(lambda: mode(replica)[0] == "cdc", "the grant is noticed")
        replica.settle()
        assert replica.assert_equal() == 1
        assert sum(each.kind != "incremental" for each in replica.pipeline.recent_runs()) == copies


def test_no_poll_begins_in_the_turn_in_which_the_log_is_found_closed(
    server_factory: Callable[..., Server], timed: Callable[..., Timed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However soon the grant comes back and the interval passes: the log is looked at again first."""
    database = create_database(server_factory(Flavor.MARIADB))
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
    with account(database) as (url, administer):
        administer(f"GRANT {REPLICATION[Flavor.MARIADB]} ON *.* TO {{who}}")
        replica = timed(url).start()
        copies = replica.runs
        note, passed = Fallback.note_mode, threading.Event()

        def note_behind_the_look(fallback: Fallback, *, stream_wanted: bool) -> None:
            if mode_now(replica) == "polling" and not passed.is_set():
                passed.set()
                administer(f"GRANT {REPLICATION[Flavor.MARIADB]} ON *.* TO {{who}}")
                replica.pass_an_interval()
            note(fallback, stream_wanted=stream_wanted)

        monkeypatch.setattr(Fallback, "note_mode", note_behind_the_look)
        administer(f"REVOKE {REPLICATION[Flavor.MARIADB]} ON *.* FROM {{who}}")
        for dump in dump_threads(database.server.url()):
            with session(database.server.url()) as connection, connection.cursor() as cursor:
                cursor.execute(f"KILL {dump}")
        wait_until(lambda: passed.is_set() and mode(replica)[0] == "cdc", "the grant is noticed")
        replica.settle()
        assert sum(each.kind != "incremental" for each in replica.pipeline.recent_runs()) == copies


def mode_now(replica: Replica) -> str:
    """The mode, without a look at the file."""
    return replica.pipeline._syncs.mode


def test_a_stream_that_is_started_by_hand_goes_on_where_it_left_off(
    mariadb_server: Server, timed: Callable[..., Timed]
) -> None:
    database = create_database(mariadb_server)
    try:
        database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
        timed(database.url).start().stop()
        database.execute(
            "INSERT INTO items (id, note) VALUES (2, 'meanwhile')", "DELETE FROM items WHERE id = 1"
        )
        replica = timed(database.url, cdc_enabled=False).start(live=False)
        runs = replica.runs
        assert mode(replica)[0] == "polling"
        replica.pipeline.start_stream()
        replica.settle()
        assert replica.assert_equal() == 1
        assert {each.kind for each in replica.pipeline.recent_runs()[: replica.runs - runs]} == {
            "incremental"
        }
    finally:
        database.drop()


def test_a_sync_while_the_stream_stands_still_leaves_tables_that_the_stream_copies_again(
    mariadb_server: Server, timed: Callable[..., Timed]
) -> None:
    database = create_database(mariadb_server)
    try:
        database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
        replica = timed(database.url).start()
        replica.pipeline.stop_stream()
        assert mode(replica)[0] == "none"
        for number in (2, 3):
            database.execute(f"INSERT INTO items (id, note) VALUES ({number}, 'new')")
            replica.catch_up()
            assert replica.assert_equal() == number
        database.execute("DELETE FROM items WHERE id = 2")
        replica.pipeline.start_stream()
        replica.settle()
        assert mode(replica) == ("cdc", PipelineState.STREAMING)
        assert replica.assert_equal() == 2
    finally:
        database.drop()
