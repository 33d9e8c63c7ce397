"""One thread interrupts whatever takes too long, again and again until it ends, and nothing else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb
import pytest

from cdc.deadlines import Deadlines

LONG = 1e12
"""Seconds; more than a lock can wait for."""
PATIENCE = 20.0


class Cursor:
    """What is interrupted; `enough` is set at the interrupt of number `many`."""

    def __init__(self, many: int = 1, error: Exception | None = None) -> None:
        self.interrupts = 0
        self.enough = threading.Event()
        self._many = many
        self._error = error

    def interrupt(self) -> None:
        self.interrupts += 1
        if self.interrupts >= self._many:
            self.enough.set()
        if self._error is not None:
            raise self._error


def within(deadlines: Deadlines, seconds: float, cursor: Cursor) -> Any:
    return deadlines.within(seconds, cursor)  # type: ignore[arg-type]


def test_a_block_that_takes_too_long_is_interrupted_until_it_ends() -> None:
    """DuckDB forgets an interrupt that comes between two statements."""
    cursor = Cursor(many=3)
    with within(Deadlines(), 0.01, cursor) as fired:
        assert cursor.enough.wait(PATIENCE)
        assert fired.is_set()


def test_one_that_begins_later_may_be_due_first() -> None:
    deadlines, late, soon = Deadlines(), Cursor(), Cursor()
    with within(deadlines, LONG, late) as never, within(deadlines, 0.01, soon):
        assert soon.enough.wait(PATIENCE)
    assert not never.is_set()
    assert not late.interrupts


def test_nothing_is_interrupted_behind_its_block() -> None:
    """The cursor is another's by then. The clock stands still until the block is over, and then all is due."""
    now = 0.0
    deadlines = Deadlines(lambda: now)
    wrong, right = Cursor(), Cursor()
    with within(deadlines, 1.0, wrong):
        pass
    now = 10.0
    with within(deadlines, 0.0, right):
        assert right.enough.wait(PATIENCE)
    assert not wrong.interrupts


def test_a_cursor_that_is_gone_ends_nobody_elses_deadline() -> None:
    deadlines, gone, cursor = Deadlines(), Cursor(error=duckdb.ConnectionException("closed")), Cursor()
    with within(deadlines, 0.0, gone) as fired:
        assert gone.enough.wait(PATIENCE)
        with within(deadlines, 0.0, cursor):
            assert cursor.enough.wait(PATIENCE)
        assert fired.is_set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_made_anew() -> None:
    deadlines, broken, cursor = Deadlines(), Cursor(error=MemoryError()), Cursor()
    with within(deadlines, 0.0, broken):
        assert broken.enough.wait(PATIENCE)
    thread = deadlines._thread
    assert thread is not None
    thread.join(PATIENCE)
    with within(deadlines, 0.0, cursor):
        assert cursor.enough.wait(PATIENCE)


def test_a_thread_that_can_not_be_started_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines, cursor = Deadlines(), Cursor()

    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"), within(deadlines, 0.0, cursor):
            raise AssertionError("a query without a deadline")
    assert not deadlines._due
    with within(deadlines, 0.0, cursor):
        assert cursor.enough.wait(PATIENCE)


def test_each_of_many_is_interrupted() -> None:
    deadlines = Deadlines()

    def wait(number: int) -> bool:
        cursor = Cursor(many=1 + number % 2)
        with within(deadlines, 0.001 * (number * 7 % 13), cursor) as fired:
            return cursor.enough.wait(PATIENCE) and bool(fired.is_set())

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(wait, range(200)))
    assert not deadlines._due
