"""How far a copy is behind its source: in seconds, right also when nothing happens, and in bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cdc.position import Position, file_number


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a stream stands at one moment. Times are seconds since 1970 by our clock."""

    place: Position | None = None
    """Everything before it is in the copy. None before the first copy."""
    committed: float | None = None
    """The source's clock at the last transaction that is in the copy."""
    heard: float | None = None
    """When the source was heard last, where all it had sent by then is in the copy."""
    connected: float | None = None
    """Since when it is connected, where it is."""
    pending: bool = False
    """Something that was read is not in the copy, or more waits to be read."""


class Lag:
    """What is known of one copy's lag; safe from any thread.

    The copy is complete where its place is the end of the source's log. That it was so at some moment is
    proven in two ways: the source told where its log ends (`source_seen`), or it sent something, a heartbeat
    at least, and nothing of it waits. From the last proof on the lag counts, unless a later transaction is in
    the copy already; so it does not start at the last transaction of a source that was idle for long.
    Commit times are the source's, so they are moved to our clock by the difference of both.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        """Our wall clock, in seconds since 1970."""
        self.clock_offset: float | None = None
        """Seconds by which the source's clock is ahead of ours; None before both were compared."""
        self.look_now = threading.Event()
        """Set when a stream has connected: where the source's log ends is worth asking at once."""
        self._lock = threading.Lock()
        self._progress: Callable[[], Progress] = Progress
        self._silence = 0.0
        self._end: Position | None = None
        self._end_known = False
        self._asked_at = 0.0
        self._sizes: Mapping[str, int] = {}
        self._rewound = False
        """The source's log ends before what we have read of it: it was reset."""
        self._complete_at: float | None = None
        self._committed: float | None = None
        self._told: float | None = None
        """The commit time that was told last, as it was told."""

    def follow(self, progress: Callable[[], Progress], silence: float) -> None:
        """From now on `progress()` tells of the stream; a source that is silent for `silence` seconds is away."""
        self._progress, self._silence = progress, silence

    # What is learnt ----------------------------------------------------------------------------------

    def clocks_compared(self, source: float, sent: float, received: float) -> None:
        """The source's clock said `source` between the moments `sent` and `received` of ours."""
        self.clock_offset = source - (sent + received) / 2

    def place(self) -> Position | None:
        """Everything before it is in the copy."""
        return self._progress().place

    def source_seen(
        self, end: Position, asked_at: float, *, covered: Position | None, sizes: Mapping[str, int]
    ) -> None:
        """The source's log ended at `end` when it was asked; `covered` is `place()` just before that.

        `sizes` are the sizes of log files in bytes, by name; needed where `end` is in another file.
        """
        with self._lock:
            self._end, self._asked_at, self._sizes, self._end_known = end, asked_at, sizes, True
            self._rewound = covered is not None and covered.server == end.server and not end.reached(covered)
        self.observe()

    def forget(self) -> None:
        """There is no copy any more, and what was known of it means nothing."""
        with self._lock:
            self._complete_at = self._committed = self._told = None

    def source_lost(self) -> None:
        """Where the source's log ends can't be asked."""
        self._end_known = False
        self.observe()

    def observe(self) -> None:
        """Takes note of what is proven now: to be called now and then, and before a stream is torn down."""
        progress = self._progress()
        with self._lock:
            self._note(progress)

    def _note(self, progress: Progress) -> bool:
        """Whether the copy is complete as far as is known."""
        if progress.committed is not None and progress.committed != self._told:
            self._told = progress.committed
            # A session may have set its own time: none is in the future, and none leads back.
            committed = min(progress.committed, self.clock() + (self.clock_offset or 0.0))
            self._committed = max(self._committed or committed, committed)
        complete = self._complete(progress.place)
        if complete:
            proof = self._asked_at
            # While a source looks for the place where it has to begin, it sends nothing either.
            found = progress.connected is not None and self._asked_at >= progress.connected
            if found and progress.heard is not None:
                proof = max(proof, progress.heard)
            self._complete_at = max(self._complete_at or proof, proof)
        return complete

    def _complete(self, place: Position | None) -> bool:
        end = self._end
        if place is None or end is None or place.server != end.server or self._rewound:
            return False
        return place.reached(end)

    # What is told ------------------------------------------------------------------------------------

    @property
    def end(self) -> Position | None:
        """Where the source's log ended when last asked; None while it can't be asked."""
        return self._end if self._end_known else None

    def seconds(self) -> float | None:
        """Age of the copy in seconds; 0 where it has all that the source has. None while that is unknown.

        Nothing is known before the first contact: the copy of yesterday may be complete.
        """
        progress = self._progress()
        with self._lock:
            complete = self._note(progress)
            now = self.clock()
            if progress.place is None or (self._end is None and self._complete_at is None):
                return None
            recent = self._complete_at is not None and now - self._complete_at <= self._silence
            if complete and recent and not progress.pending:
                return 0.0
            moments = [self._complete_at]
            if self._committed is not None:
                moments.append(self._committed - (self.clock_offset or 0.0))
            known = [moment for moment in moments if moment is not None]
            return max(0.0, now - max(known)) if known else None

    def bytes(self) -> int | None:
        """Bytes of binary log that are not in the copy; None while that is unknown."""
        place, end = self.place(), self.end
        with self._lock:
            sizes = self._sizes
            if place is None or end is None or place.server != end.server or self._rewound:
                return None
        if place.reached(end):
            return 0
        if place.file == end.file:
            return end.offset - place.offset
        if place.file not in sizes:
            return None
        first, last = file_number(place.file), file_number(end.file)
        between = sum(size for name, size in sizes.items() if first <= file_number(name) < last)
        return max(0, between - place.offset + end.offset)
