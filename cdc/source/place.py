"""Where a reader stands in the binary log: file, offset, GTIDs, and the last transaction boundary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cdc.position import GtidPosition, GtidSet, Position
from cdc.source import events
from cdc.values.arrays import Ints

_HALF_WRAP = 1 << 31
"""A position that falls by more than this went past 4 GiB."""


class Place:
    """A place that moves with the events of one dump; `position` is good at transaction boundaries only.

    `offset` counts all bytes of the file, `server` is the identity of the server whose log it is. `boundary` is file
    and offset of the last transaction boundary. Behind a failover the place is not `known` until the new server
    has said in which of its files it begins.
    `begin` notes the GTID of the transaction that begins; it counts from `commit` on.
    """

    __slots__ = (
        "_add_gtid",
        "_flavor",
        "_gtids",
        "_time",
        "_timestamp",
        "boundary",
        "file",
        "known",
        "offset",
        "server",
    )

    def __init__(self, start: Position, *, known: bool = True) -> None:
        self.known = known
        self.file, self.offset = start.file, start.offset
        self.boundary = (start.file, start.offset)
        self._flavor = start.flavor
        self.server = start.server
        self._gtids = start.gtid_state()
        self._timestamp = start.timestamp
        self._add_gtid: Callable[[], None] | None = None
        self._time: float | None = None

    @property
    def position(self) -> Position:
        """This place. The GTID of a transaction that has not ended is not in its set."""
        return Position(self._flavor, self.server, self.file, self.offset, str(self._gtids), self._timestamp)

    @property
    def without_gtids(self) -> Position:
        """This place, for other threads: never further than it is, since `rotate` sets the file first."""
        file = self.file
        return Position(self._flavor, self.server, file, self.offset, timestamp=self._timestamp)

    @property
    def last_boundary(self) -> Position:
        """The boundary before the transaction that is being read."""
        file, offset = self.boundary
        return Position(self._flavor, self.server, file, offset, str(self._gtids), self._timestamp)

    @property
    def gtid_is_open(self) -> bool:
        """Whether a GTID was announced whose transaction has not ended."""
        return self._add_gtid is not None

    def advance(self, log_pos: int, kind: int) -> None:
        """Takes over an event's end position; headers say its low 32 bits only.

        A dump that starts inside a file sends that file's head first: that does not lead back.
        """
        low = self.offset & 0xFFFFFFFF
        if log_pos >= low:
            self.offset += log_pos - low
        elif low - log_pos > _HALF_WRAP and kind not in events.FILE_HEAD:
            self.offset += (1 << 32) + log_pos - low

    def heard(self, file: str, log_pos: int) -> None:
        """A heartbeat: nothing of ours stands before `log_pos`."""
        low = self.offset & 0xFFFFFFFF
        if file == self.file and log_pos > low:
            self.offset += log_pos - low

    def rotate(self, file: str, offset: int) -> None:
        """The log goes on in `file`. A rotation made up by the sender, to where we are, changes nothing."""
        self.known = True
        if file != self.file:
            self.file, self.offset = file, offset

    def begin(self, source: str, number: int, when: float | None, tag: str = "") -> None:
        """A MySQL GTID: the transaction that follows."""
        gtids = self._gtids
        assert isinstance(gtids, GtidSet)
        self._add_gtid = lambda: gtids.add(source, number, tag=tag)
        self._time = when

    def begin_mariadb(self, domain: int, server_id: int, sequence: int) -> None:
        """A MariaDB GTID: the transaction that follows."""
        gtids = self._gtids
        assert isinstance(gtids, GtidPosition)
        self._add_gtid = lambda: gtids.advance(domain, server_id, sequence)
        self._time = None

    def add_gtids(self, source: str, first: int, last: int, when: float | None) -> None:
        """MySQL GTIDs of transactions that end before `pass_to`; `when` is the last one's time."""
        gtids = self._gtids
        assert isinstance(gtids, GtidSet)
        gtids.add(source, first, last)
        self._time = when

    def add_mariadb_gtid(self, domain: int, server_id: int, sequence: int) -> None:
        """The last MariaDB GTID of a domain among transactions that end before `pass_to`; it tells no time."""
        gtids = self._gtids
        assert isinstance(gtids, GtidPosition)
        gtids.advance(domain, server_id, sequence)
        self._time = None

    def leads_to(self, log_positions: Ints) -> bool:
        """Whether events with these end positions follow here, without a file's end or 4 GiB between them."""
        before = np.concatenate(([self.offset & 0xFFFFFFFF], log_positions[:-1]))
        return self.known and bool((before < log_positions).all())

    def offset_of(self, log_pos: int) -> int:
        """The offset of an event's end position, before 4 GiB more have passed."""
        return self.offset + log_pos - (self.offset & 0xFFFFFFFF)

    def pass_to(self, log_pos: int, timestamp: int) -> None:
        """Transactions end here, the last one with an event of that position and time, as `commit` says of one."""
        self.offset = self.offset_of(log_pos)
        self._timestamp = self._time or float(timestamp)
        self.boundary = (self.file, self.offset)

    def forget_gtid(self) -> None:
        """The transaction that was announced never ended: its GTID was not used."""
        self._add_gtid = None

    def commit(self, timestamp: int) -> None:
        """A transaction ends here; `timestamp` is its last event's, in seconds since 1970."""
        if self._add_gtid is not None:
            self._add_gtid()
            self._add_gtid = None
        self._timestamp = self._time or float(timestamp)
        self.boundary = (self.file, self.offset)
