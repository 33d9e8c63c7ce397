"""The lag as a real source shows it: idle, away, with a wrong clock, behind a slow writer."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cdc.sandbox.databases import Database, create_database, session
from cdc.sandbox.servers import Server
from cdc.status import PipelineState
from tests.replica import Replica
from tests.waiting import wait_until

pytestmark = pytest.mark.crossed

TABLE = "CREATE TABLE t (id INT PRIMARY KEY, a INT)"
HEARTBEAT = 0.2
"""Seconds; a source is away after two, and its connection is given up after three."""
NEVER = 3600.0
"""Seconds between two looks at the source: in the tests that move our clock, the first look counts."""


class Clock:
    """Our wall clock, moved by hand."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def __call__(self) -> float:
        return time.time() + self.ahead


class Observed:
    """A replica by a clock of the test, and its lag."""

    def __init__(self, replica: Replica, clock: Clock) -> None:
        self.replica = replica
        self.clock = clock
        self.engine = replica.pipeline._engine

    @property
    def lag(self) -> float | None:
        return self.replica.pipeline.status().lag_seconds

    @property
    def bytes(self) -> int | None:
        return self.replica.pipeline.status().lag_bytes

    def wait_complete(self) -> None:
        wait_until(lambda: self.lag == 0, "the lag is 0")

    def wait_heartbeats(self, number: int) -> None:
        """Returns when the source was heard `number` times more; the lag is 0 at each."""
        for _ in range(number):
            before = self.replica.pipeline.status().last_event_at
            wait_until(lambda: self.replica.pipeline.status().last_event_at != before, "a heartbeat")  # noqa: B023
            assert self.lag == 0

    @contextmanager
    def writer_held(self) -> Iterator[None]:
        """The writer is busy with something that takes as long as the block."""
        held, go_on = threading.Event(), threading.Event()

        def hold(_: object) -> None:
            held.set()
            go_on.wait()

        done = self.engine.writer.submit(hold)
        try:
            assert held.wait(60)
            yield
        finally:
            go_on.set()
            done.result()


@pytest.fixture
def observe(replica_factory: Callable[..., Replica]) -> Callable[..., Observed]:
    """`observe(url, ahead=0.0, live=True, **settings)`: a running replica."""

    def make(url: str, *, ahead: float = 0.0, live: bool = True, **settings: Any) -> Observed:
        replica = replica_factory(url, **{"heartbeat_seconds": HEARTBEAT, **settings})
        clock = Clock(ahead)
        replica.start(live=live, prepare=lambda pipeline: setattr(pipeline._engine.lag, "clock", clock))
        return Observed(replica, clock)

    return make


def test_a_quiet_source_has_no_lag_and_the_first_change_after_a_day_has_only_its_own(
    database: Database, observe: Callable[..., Observed]
) -> None:
    database.execute(TABLE, "INSERT INTO t VALUES (1, 1)")
    observed = observe(database.url, position_interval=NEVER)
    observed.wait_complete()
    assert observed.bytes == 0
    observed.wait_heartbeats(5)
    observed.clock.ahead += 86_400
    observed.wait_heartbeats(2)
    with observed.writer_held():
        database.execute("INSERT INTO t VALUES (2, 2)")
        lag = wait_until(lambda: observed.lag, "the change is seen, and waits")
        assert lag < 60
    observed.wait_complete()


def test_changes_of_other_databases_are_no_lag(database: Database, observe: Callable[..., Observed]) -> None:
    database.execute(TABLE)
    other = create_database(database.server)
    try:
        observed = observe(database.url, position_interval=NEVER)
        observed.wait_complete()
        other.execute(TABLE, *[f"INSERT INTO t VALUES ({i}, 1)" for i in range(20)])
        observed.wait_complete()
        observed.wait_heartbeats(2)
    finally:
        other.drop()


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
def test_a_clock_that_differs_from_the_sources_does_not_change_the_lag(
    database: Database, observe: Callable[..., Observed], ahead: float
) -> None:
    database.execute(TABLE)
    observed = observe(database.url, ahead=ahead, position_interval=NEVER)
    observed.wait_complete()
    offset = observed.engine.lag.clock_offset
    assert offset is not None
    assert abs(offset + ahead) < 60
    with observed.writer_held():
        database.execute("INSERT INTO t VALUES (1, 1)")
        lag = wait_until(lambda: observed.lag, "the change is seen, and waits")
        assert lag < 60
    observed.wait_complete()


def test_a_writer_that_is_slow_lets_the_lag_grow_and_what_is_applied_lets_it_fall(
    database: Database, observe: Callable[..., Observed]
) -> None:
    database.execute(TABLE)
    observed = observe(database.url, position_interval=NEVER)
    observed.wait_complete()
    with observed.writer_held():
        database.execute("INSERT INTO t VALUES (1, 1)")
        wait_until(lambda: observed.lag, "the change waits")
        observed.clock.ahead += 500
        assert 500 <= (observed.lag or 0) < 560
        observed.clock.ahead += 500
        assert 1000 <= (observed.lag or 0) < 1060
    observed.wait_complete()


def test_a_long_transaction_is_no_lag_before_its_commit_and_lag_until_all_of_it_is_applied(
    database: Database, observe: Callable[..., Observed]
) -> None:
    database.execute(TABLE)
    observed = observe(database.url, position_interval=NEVER, batch_size=10)
    observed.wait_complete()
    connection = database.connect(autocommit=False)
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%s, 1)", [(i,) for i in range(500)])
    observed.wait_heartbeats(3)
    with observed.writer_held():
        connection.commit()
        wait_until(lambda: observed.lag, "the transaction waits")
        observed.clock.ahead += 300
        assert 300 <= (observed.lag or 0) < 360
    observed.wait_complete()
    assert observed.replica.value("SELECT count(*) FROM t") == 500


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_a_source_that_hangs_or_is_gone_lets_the_lag_grow_until_it_is_back(
    flavor: str, server_factory: Callable[..., Server], observe: Callable[..., Observed]
) -> None:
    server = server_factory(flavor)
    database = create_database(server)
    database.execute(TABLE)
    observed = observe(database.url, position_interval=0.2, connect_timeout=0.5)
    observed.wait_complete()
    status = observed.replica.pipeline.status
    os.kill(server.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: status().state is PipelineState.RETRYING, "the silence is noticed")
        wait_until(lambda: observed.bytes is None, "that the source can't be asked is noticed")
        observed.clock.ahead += 1000
        assert (observed.lag or 0) >= 1000
        observed.clock.ahead += 1000
        assert (observed.lag or 0) >= 2000
    finally:
        os.kill(server.pid, signal.SIGCONT)
    observed.wait_complete()
    database.execute("INSERT INTO t VALUES (1, 1)")
    observed.replica.settle()
    observed.wait_complete()
    server.kill()
    wait_until(lambda: status().state is PipelineState.RETRYING, "the loss is noticed")
    observed.clock.ahead += 1000
    assert (observed.lag or 0) >= 1000
    server.start()
    observed.wait_complete()


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_the_lag_is_unknown_until_the_source_is_met(
    flavor: str, server_factory: Callable[..., Server], observe: Callable[..., Observed]
) -> None:
    server = server_factory(flavor)
    database = create_database(server)
    database.execute(TABLE, "INSERT INTO t VALUES (1, 1)")
    first = observe(database.url)
    first.wait_complete()
    first.replica.stop()
    database.execute("INSERT INTO t VALUES (2, 2)")
    server.stop()
    second = observe(database.url, live=False)
    wait_until(lambda: second.replica.pipeline.status().state is PipelineState.RETRYING, "it tries")
    assert (second.lag, second.bytes) == (None, None)
    server.start()
    second.wait_complete()
    assert second.replica.rows("SELECT * FROM t ORDER BY id") == [(1, 1), (2, 2)]


def test_a_stopped_stream_has_no_lag_while_nothing_is_written_and_lag_once_something_is(
    database: Database, observe: Callable[..., Observed]
) -> None:
    database.execute(TABLE)
    observed = observe(database.url, position_interval=0.2)
    observed.wait_complete()
    observed.replica.pipeline.stop_stream()
    with session(database.url) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (1, 1)")
    wait_until(lambda: observed.lag, "the change is missing")
    assert (wait_until(lambda: observed.bytes, "so are its bytes")) > 0
    observed.replica.pipeline.start_stream()
    observed.wait_complete()
    wait_until(lambda: observed.bytes == 0, "no byte is missing")


def test_a_copy_that_was_cleared_has_no_lag_to_tell_of(
    database: Database, observe: Callable[..., Observed]
) -> None:
    database.execute(TABLE)
    observed = observe(database.url)
    observed.wait_complete()
    observed.replica.pipeline.clear()
    assert (observed.lag, observed.bytes) == (None, None)
    observed.replica.pipeline.start_full_sync().wait(60)
    observed.wait_complete()
