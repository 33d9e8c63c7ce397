"""The events of many ordinary transactions, told by arrays: one element an event, or a transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from zlib import crc32

import numpy as np

from cdc.source import events
from cdc.source.binlog import Stretch
from cdc.source.place import Place
from cdc.values.arrays import Bools, Bytes, Ints
from cdc.values.raw_bytes import RawBytes

_LEAST_BODY = {events.GTID: 25, events.MARIADB_GTID: 13, events.QUERY: 14}
"""The least bytes of some events behind their headers; all others have eight."""
_BEGI = int.from_bytes(b"BEGI", "little")
_PIECE = 256
_UNUSUAL = 1 | 64 | 128
"""Flags of MariaDB's GTID: a statement by itself, a prepared XA transaction, and one that is decided."""


class EventRun:
    """Whole transactions, one behind another: each has a GTID event, in MySQL's logs a QUERY, rows, and an XID.

    Its length is the number of events, `kinds`, `begins` and `ends` are theirs; a checksum lies behind its event's end.
    """

    def __init__(self, buffer: bytes, kinds: Bytes, begins: Ints, ends: Ints) -> None:
        self.buffer = buffer
        self.kinds, self.begins, self.ends = kinds, begins, ends
        self._raw = RawBytes(buffer)
        self._bodies = begins + events.HEADER_BYTES
        self._commits = np.flatnonzero(kinds == events.XID)

    @classmethod
    def of(cls, stretch: Stretch, first: int, last: int, *, checksum: bool) -> EventRun | None:
        """The run of the events from `first` up to `last`; None where a header or a checksum is not right.

        It ends before the first transaction that has an event which no ordinary one has.
        """
        buffer = stretch.buffer
        raw = RawBytes(buffer)
        begins = np.array(stretch.begins[first:last], np.int64)
        ends = np.array(stretch.ends[first:last], np.int64)
        if (ends - begins < events.HEADER_BYTES).any():
            return None
        kinds = raw.bytes[begins + 4]
        if (raw.fours[begins + 9] != ends - begins).any() or (
            raw.twos[begins + 17] & events.ARTIFICIAL
        ).any():
            return None
        if checksum:
            ends -= events.CHECKSUM_BYTES
        bodies = ends - begins - events.HEADER_BYTES
        if (bodies < 8).any() or any(
            (bodies[kinds == kind] < least).any() for kind, least in _LEAST_BODY.items()
        ):
            return None
        if checksum:
            spans = zip(begins.tolist(), ends.tolist(), strict=True)
            if [crc32(buffer[begin:end]) for begin, end in spans] != raw.fours[ends].tolist():
                return None
        run = cls(buffer, kinds, begins, ends)
        return run.before(run._first_unusual())

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def transactions(self) -> int:
        """How many there are."""
        return len(self._commits)

    @property
    def log_positions(self) -> Ints:
        """Where in the file each event ends, the low 32 bits of it."""
        return self._raw.fours[self.begins + 13].astype(np.int64)

    @property
    def end(self) -> int:
        """Where in the file the last event ends, the low 32 bits of it."""
        return int(self._raw.fours[self.begins[-1] + 13])

    def before(self, event: int) -> EventRun:
        """The transactions that end before `event`."""
        whole = int(np.searchsorted(self._commits, event))
        count = int(self._commits[whole - 1]) + 1 if whole else 0
        if count == len(self):
            return self
        return EventRun(self.buffer, self.kinds[:count], self.begins[:count], self.ends[:count])

    def after(self, count: int) -> EventRun:
        """What is left behind the first `count` events, which are whole transactions."""
        return EventRun(self.buffer, self.kinds[count:], self.begins[count:], self.ends[count:])

    def _first_unusual(self) -> int:
        """The first event that an ordinary transaction does not have there; the run's length if there is none."""
        unusual = np.zeros(len(self), np.bool_)
        queries = np.flatnonzero(self.kinds == events.QUERY)
        unusual[queries] = ~self._begin(queries)
        gtids = np.flatnonzero(self.kinds == events.MARIADB_GTID)
        unusual[gtids] = self._raw.bytes[self._bodies[gtids] + 12] & _UNUSUAL != 0
        return int(unusual.argmax()) if unusual.any() else len(self)

    def _begin(self, queries: Ints) -> Bools:
        """Which of these QUERY events are the statement BEGIN (as `events.is_begin` says of one)."""
        raw, bodies = self._raw, self._bodies[queries]
        at = bodies + 14 + raw.bytes[bodies + 8] + raw.twos[bodies + 11]
        fits = self.ends[queries] - at == 5
        at = np.where(fits, at, 0)
        begin: Bools = fits & (raw.fours[at] == _BEGI) & (raw.bytes[at + 4] == ord("N"))
        return begin

    def rows(self) -> Iterator[tuple[int, int, int, int]]:
        """Number, kind, and where the body begins and ends, of each event of rows and of each TABLE_MAP."""
        every = np.flatnonzero(_IS_ROWS[self.kinds])
        for at in range(0, len(every), _PIECE):  # whoever takes a few of them does not pay for all
            numbers = every[at : at + _PIECE]
            columns = (numbers, self.kinds[numbers], self._bodies[numbers], self.ends[numbers])
            yield from zip(*(column.tolist() for column in columns), strict=True)

    def transactions_with(self, numbers: Sequence[int]) -> int:
        """To how many transactions the events with these numbers belong."""
        return len(np.unique(np.searchsorted(self._commits, np.array(numbers, np.int64))))

    def pass_over(self, place: Place) -> None:
        """Moves `place`, which is at the boundary before the run, to the boundary behind it."""
        self._add_gtids(place, np.flatnonzero(self.kinds == events.GTID))
        self._add_mariadb_gtids(place, np.flatnonzero(self.kinds == events.MARIADB_GTID))
        place.pass_to(self.end, int(self._raw.fours[self.begins[-1]]))

    def _add_gtids(self, place: Place, gtids: Ints) -> None:
        """MySQL's: of one source, one transaction number behind the other."""
        if not len(gtids):
            return
        bodies = self._bodies[gtids]
        first, second = self._raw.eights[bodies + 1], self._raw.eights[bodies + 9]
        numbers = self._raw.eights[bodies + 17].astype(np.int64)
        follows = (first[1:] == first[:-1]) & (second[1:] == second[:-1]) & (numbers[1:] == numbers[:-1] + 1)
        breaks = (np.flatnonzero(~follows) + 1).tolist()
        for start, stop in pairwise([0, *breaks, len(gtids)]):
            last = gtids[stop - 1]
            source, number, when = events.read_gtid(self.buffer[self._bodies[last] : self.ends[last]])
            place.add_gtids(source, int(numbers[start]), number, when)

    def _add_mariadb_gtids(self, place: Place, gtids: Ints) -> None:
        """MariaDB's: the last one of each domain counts."""
        bodies = self._bodies[gtids]
        domains = self._raw.fours[bodies + 8]
        for domain in np.unique(domains).tolist():
            last = np.flatnonzero(domains == domain)[-1]
            server = int(self._raw.fours[self.begins[gtids[last]] + 5])
            place.add_mariadb_gtid(domain, server, int(self._raw.eights[bodies[last]]))


_IS_ROWS = np.zeros(256, np.bool_)
_IS_ROWS[[events.TABLE_MAP, *events.ROWS]] = True
