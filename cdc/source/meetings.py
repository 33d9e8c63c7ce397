"""Appointments of other threads with a reader, at transaction boundaries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from cdc.errors import BinlogError, DucklingError
from cdc.position import Position, file_number
from cdc.source.place import Place


@dataclass(slots=True)
class Meeting:
    """A wish of another thread: flush at the first transaction boundary at or behind `target`.

    `reached` gets that boundary; the reader then waits for `release`, if `hold` is set.
    """

    target: Position | None
    hold: bool
    reached: Future[Position] = field(default_factory=Future)
    release: threading.Event = field(default_factory=threading.Event)


class Meetings:
    """The meetings that one reader still has to keep. False when there are none: the cheap test."""

    def __init__(self) -> None:
        self._waiting: list[Meeting] = []
        self._lock = threading.Lock()
        self._ended: DucklingError | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    # For other threads -------------------------------------------------------------------------------

    def ask(self, meeting: Meeting) -> bool:
        """Takes in a wish; False, and its error, where the reader has ended."""
        with self._lock:
            if self._ended is not None:
                meeting.reached.set_exception(self._ended)
                return False
            self._waiting.append(meeting)
        return True

    def release(self) -> None:
        """Ends the wait of a reader that is held."""
        with self._lock:
            meetings = list(self._waiting)
        for meeting in meetings:
            meeting.release.set()

    # For the reader ----------------------------------------------------------------------------------

    def none_until(self, place: Place, offset: int) -> bool:
        """Whether nobody is to be met in the file of `place` up to `offset`; told without taking a position."""
        for meeting in self._waiting:
            target = meeting.target
            if target is None or target.server != place.server:
                return False
            if target.file == place.file:
                if target.offset <= offset:
                    return False
            elif _is_behind(target.file, place.file):
                return False
        return True

    def end(self, error: DucklingError) -> None:
        """The reader has ended: whoever waits, and whoever comes, gets `error`."""
        with self._lock:
            self._ended = error
            meetings, self._waiting = self._waiting, []
        for meeting in meetings:
            if not meeting.reached.done():
                meeting.reached.set_exception(error)

    def keep(self, place: Place, flush: Callable[[], None]) -> bool:
        """Keeps all that are due at this boundary, those asked for while the reader was held among them.

        `flush` is called once, before the first is told. True if the reader was held: tables may be others.
        """
        if self.none_until(place, place.offset):  # a catch-up has one, and comes by with each transaction
            return False
        here = place.position
        flushed = held = False
        while True:
            with self._lock:
                due = [m for m in self._waiting if _is_due(m, here)]
                self._waiting = [m for m in self._waiting if m in due or not m.reached.done()]
            if not due:
                return held
            if not flushed:
                flush()
                flushed = True
            # It stays in the list until it is over, so that stop() releases it and an error reaches it.
            meeting = due[0]
            meeting.reached.set_result(here)
            if meeting.hold:
                meeting.release.wait()
                held = True
            with self._lock:
                self._waiting.remove(meeting)


def _is_behind(file: str, here: str) -> bool:
    """Whether a file of the log is over; also where its name can't be told from others: `_is_due` says so."""
    try:
        return file_number(file) < file_number(here)
    except BinlogError:
        return True


def _is_due(meeting: Meeting, here: Position) -> bool:
    """Whether `here` is where the meeting was wanted, or behind; an impossible wish is told so."""
    try:
        return meeting.target is None or here.reached(meeting.target)
    except BinlogError as error:
        meeting.reached.set_exception(error)
        return False
