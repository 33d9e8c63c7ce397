"""One thread interrupts whatever takes too long, and nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest

from cdc.deadlines import Deadlines

LONG = 3600.0
PATIENCE = 20.0


def test_a_block_that_takes_too_long_is_interrupted() -> None:
    interrupted = threading.Event()
    with Deadlines().within(0.01, interrupted.set) as fired:
        assert interrupted.wait(PATIENCE)
        assert fired.is_set()


def test_the_earliest_comes_first_whoever_began_first() -> None:
    deadlines, order = Deadlines(), []
    late, soon = threading.Event(), threading.Event()

    def note(name: str, event: threading.Event) -> None:
        order.append(name)
        event.set()

    with (
        deadlines.within(LONG, lambda: note("never", threading.Event())) as never,
        deadlines.within(0.05, lambda: note("late", late)),
        deadlines.within(0.01, lambda: note("soon", soon)),
    ):
        assert soon.wait(PATIENCE)
        assert late.wait(PATIENCE)
    assert order == ["soon", "late"]
    assert not never.is_set()


def test_nothing_is_interrupted_behind_its_block() -> None:
    """The cursor is another's by then. The clock stands still until the block is over, and then all is due."""
    now = 0.0
    deadlines = Deadlines(lambda: now)
    wrong, right = threading.Event(), threading.Event()
    with deadlines.within(1.0, wrong.set):
        pass
    now = 10.0
    with deadlines.within(0.0, right.set):
        assert right.wait(PATIENCE)
    assert not wrong.is_set()


def test_a_connection_that_is_gone_ends_nobody_elses_deadline() -> None:
    def fail() -> None:
        raise duckdb.ConnectionException("Connection already closed")

    deadlines, interrupted = Deadlines(), threading.Event()
    with deadlines.within(0.0, fail) as failed:
        assert failed.wait(PATIENCE)
    with deadlines.within(0.0, interrupted.set):
        assert interrupted.wait(PATIENCE)


@pytest.mark.parametrize("turn", range(5))
def test_each_of_many_is_interrupted_once(turn: int) -> None:
    deadlines = Deadlines()

    def wait(number: int) -> list[int]:
        called: list[int] = []
        over = threading.Event()

        def interrupt() -> None:
            called.append(number)
            over.set()

        with deadlines.within(0.001 * ((number * 7 + turn) % 13), interrupt) as fired:
            assert over.wait(PATIENCE)
            assert fired.is_set()
        return called

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(wait, range(100))) == [[number] for number in range(100)]
