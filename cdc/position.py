"""Places in a binary log: GTID sets (MySQL), GTID positions (MariaDB), and file with offset."""

from __future__ import annotations

import struct
import uuid
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from cdc.errors import BinlogError
from cdc.status import PositionStatus

Flavor = Literal["mysql", "mariadb"]


class GtidState(Protocol):
    """What a replica has executed, in the source's own notation; `str()` gives that text."""

    def copy(self) -> GtidState:
        """An independent copy."""
        ...


class GtidSet:
    """MySQL's GTID set: per source UUID (and tag) the executed transaction numbers, gaps included.

    Text form: `uuid:1-5:7,uuid2:tag:1-3` (MySQL 9.x manual, 19.1.3.1 "GTID Format and Storage").
    Intervals are kept half-open, sorted and merged.
    """

    __slots__ = ("_sets",)

    def __init__(self) -> None:
        self._sets: dict[tuple[str, str], list[list[int]]] = {}

    @classmethod
    def parse(cls, text: str) -> GtidSet:
        """The set that `text` spells; white space is allowed. Raises BinlogError for anything else."""
        result = cls()
        for member in "".join(text.split()).split(","):
            if not member:
                continue
            sid, *parts = member.split(":")
            intervals = 0
            try:
                sid = str(uuid.UUID(sid))
                tag = ""
                for part in parts:
                    if part[:1].isalpha() or part[:1] == "_":
                        tag = part.lower()
                        continue
                    first, _, last = part.partition("-")
                    if not 0 < int(first) <= int(last or first):
                        raise ValueError(part)
                    result.add(sid, int(first), int(last or first), tag=tag)
                    intervals += 1
                if not intervals:
                    raise ValueError(member)
            except ValueError:
                raise BinlogError(
                    f"{text[:80]!r} is not a GTID set", hint="expected uuid:1-5,uuid:1-3"
                ) from None
        return result

    def add(self, sid: str, first: int, last: int | None = None, *, tag: str = "") -> None:
        """Take in transactions `first` to `last` (inclusive) of `sid`; known ones stay."""
        start, stop = first, (last if last is not None else first) + 1
        intervals = self._sets.get((sid, tag))
        if intervals is None:
            self._sets[sid, tag] = [[start, stop]]
            return
        tail = intervals[-1]
        if start == tail[1]:  # the common case: the next transaction
            tail[1] = stop
            return
        low = bisect_right(intervals, start, key=lambda interval: interval[0])
        if low and intervals[low - 1][1] >= start:
            low -= 1
            start = intervals[low][0]
        high = low
        while high < len(intervals) and intervals[high][0] <= stop:
            stop = max(stop, intervals[high][1])
            high += 1
        intervals[low:high] = [[start, stop]]

    def contains(self, sid: str, number: int, tag: str = "") -> bool:
        """Whether transaction `number` of `sid` is in the set."""
        intervals = self._sets.get((sid, tag), [])
        at = bisect_right(intervals, number, key=lambda interval: interval[0]) - 1
        return at >= 0 and intervals[at][0] <= number < intervals[at][1]

    def covers(self, other: GtidSet) -> bool:
        """Whether every transaction of `other` is in this set."""
        for (sid, tag), theirs in other._sets.items():
            ours = self._sets.get((sid, tag), [])
            for start, stop in theirs:
                at = bisect_right(ours, start, key=lambda interval: interval[0]) - 1
                if at < 0 or ours[at][1] < stop:
                    return False
        return True

    def encode(self) -> bytes:
        """As COM_BINLOG_DUMP_GTID takes it: little-endian counts, 16-byte SIDs, half-open intervals.

        Where a GTID has a tag (MySQL 8.3 and later), the count of SIDs stands between two format bytes, and a
        tag stands behind each SID (MySQL source documentation, Gtid_set::encode).
        """
        tagged = any(tag for _, tag in self._sets)
        count = len(self._sets)
        parts = [struct.pack("<Q", 1 << 56 | count << 8 | 1 if tagged else count)]
        for (sid, tag), intervals in sorted(self._sets.items()):
            parts.append(uuid.UUID(sid).bytes)
            if tagged:
                parts.append(bytes([len(tag) << 1]) + tag.encode())
            parts.append(struct.pack("<Q", len(intervals)))
            parts.extend(struct.pack("<QQ", start, stop) for start, stop in intervals)
        return b"".join(parts)

    def copy(self) -> GtidSet:
        """An independent copy."""
        result = GtidSet()
        result._sets = {key: [list(i) for i in intervals] for key, intervals in self._sets.items()}
        return result

    def __str__(self) -> str:
        members: dict[str, list[str]] = {}
        for (sid, tag), intervals in sorted(self._sets.items()):
            spans = [f"{a}" if b - a == 1 else f"{a}-{b - 1}" for a, b in intervals]
            members.setdefault(sid, []).extend(([tag] if tag else []) + spans)
        return ",".join(":".join([sid, *parts]) for sid, parts in members.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GtidSet) and str(self) == str(other)

    __hash__ = None  # type: ignore[assignment]  # mutable


class GtidPosition:
    """MariaDB's GTID position: the last transaction of each replication domain, `domain-server-sequence`.

    See MariaDB's knowledge base, "Global Transaction ID".
    """

    __slots__ = ("domains",)

    def __init__(self) -> None:
        self.domains: dict[int, tuple[int, int]] = {}

    @classmethod
    def parse(cls, text: str) -> GtidPosition:
        """The position that `text` spells. Raises BinlogError for anything else."""
        result = cls()
        for member in "".join(text.split()).split(","):
            if not member:
                continue
            try:
                domain, server, sequence = (int(part) for part in member.split("-"))
            except ValueError:
                raise BinlogError(
                    f"{text[:80]!r} is not a MariaDB GTID position", hint="expected 0-1-100"
                ) from None
            result.domains[domain] = (server, sequence)
        return result

    def advance(self, domain: int, server: int, sequence: int) -> None:
        """Transaction `sequence` of `server` is the last one of `domain` now."""
        self.domains[domain] = (server, sequence)

    def copy(self) -> GtidPosition:
        """An independent copy."""
        result = GtidPosition()
        result.domains = dict(self.domains)
        return result

    def __str__(self) -> str:
        return ",".join(f"{d}-{s}-{n}" for d, (s, n) in sorted(self.domains.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GtidPosition) and self.domains == other.domains

    __hash__ = None  # type: ignore[assignment]  # mutable


def file_number(file: str) -> int:
    """The running number in a binlog file's name: 1000000 for "binlog.1000000".

    Names don't sort as text (".999999" is followed by ".1000000"). Raises BinlogError without a number.
    """
    _, _, digits = file.rpartition(".")
    if not digits.isdigit():
        raise BinlogError(f"binlog file name {file!r} has no number", hint="expected binlog.000042")
    return int(digits)


@dataclass(frozen=True, slots=True)
class Position:
    """A transaction boundary in the binary log of `server` (its identity: server_uuid, or MariaDB's own).

    `offset` counts all bytes of the file, also beyond the 4 GiB that event headers can say. `gtid` is the
    text of all that is executed up to here, empty where the source has no GTIDs. `timestamp` is the
    source's clock at the last transaction, in seconds since 1970.
    """

    flavor: Flavor
    server: str
    file: str
    offset: int
    gtid: str = ""
    timestamp: float | None = None

    def reached(self, other: Position) -> bool:
        """Whether this position is `other` or a later one, in the same server's binary log.

        Raises BinlogError when the two are of different servers: their files can't be compared.
        """
        if self.server != other.server:
            raise BinlogError(
                "positions of two different servers were compared", hint="copy again: POST /sync/full"
            )
        return (file_number(self.file), self.offset) >= (file_number(other.file), other.offset)

    def gtid_state(self) -> GtidSet | GtidPosition:
        """`gtid` in its parsed form."""
        return GtidSet.parse(self.gtid) if self.flavor == "mysql" else GtidPosition.parse(self.gtid)

    def status(self) -> PositionStatus:
        """For people."""
        when = datetime.fromtimestamp(self.timestamp, UTC) if self.timestamp else None
        return PositionStatus(self.gtid or None, self.file, self.offset, when)

    def __str__(self) -> str:
        return f"{self.file}:{self.offset}" + (f" gtid {self.gtid}" if self.gtid else "")
