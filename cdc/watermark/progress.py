"""Where the next pass over a table starts: what may still turn up late, and what can't any more.

A row becomes visible some time after it was stamped: its transaction was open meanwhile. The overlap is the most
of that time. So a value is settled once a pass, begun an overlap after the value was met first, has read again
what the overlap covers: whatever was stamped up to that value has been read.
"""

from __future__ import annotations

from dataclasses import replace

from cdc.replica.watermarks import Cursor, Progress
from cdc.watermark.choice import Followed
from cdc.watermark.moments import grain, reached, seconds_between, zone_doubt


def started(
    followed: Followed, greatest: str | None, clock: str, overlap: float, progress: Progress
) -> Progress:
    """After a copy whose snapshot, opened at `clock`, held `greatest`; `progress` has what else is known."""
    if followed.kind == "checksum":
        return progress
    if followed.kind == "key":
        return replace(progress, value=greatest, met=greatest, seen=clock)
    assert followed.column is not None
    if greatest is not None:
        greatest = reached(followed.column, greatest, clock)
    return _with_timestamp(followed, progress, greatest, clock, overlap)


def advanced(
    followed: Followed, progress: Progress, greatest: str | None, clock: str, overlap: float
) -> Progress:
    """After a pass, begun at `clock`, that has read everything up to `greatest` (None where it read nothing)."""
    progress = replace(progress, cursor=None)
    if followed.kind == "key":
        return _with_key(progress, greatest, clock, overlap)
    return _with_timestamp(followed, progress, greatest, clock, overlap)


def halfway(progress: Progress, greatest: str | None, cursor: Cursor) -> Progress:
    """Within a pass, begun at the cursor's clock, of which the rows up to `cursor` are read."""
    value = _later(progress.value, _capped(greatest, cursor.clock))
    if value == progress.value:
        return replace(progress, cursor=cursor, settled=False)
    return replace(progress, value=value, seen=cursor.clock, cursor=cursor, settled=False)


def _with_timestamp(
    followed: Followed, progress: Progress, greatest: str | None, clock: str, overlap: float
) -> Progress:
    assert followed.column is not None
    value = _later(progress.value, _capped(greatest, clock))
    if value is None:
        return replace(progress, seen=clock, settled=False)
    seen = progress.seen if value == progress.value and progress.seen else clock
    patience = overlap + grain(followed.column)
    long_seen = seconds_between(seen, clock) >= patience
    long_past = seconds_between(value, clock) >= patience + zone_doubt(followed.column)
    return replace(progress, value=value, seen=seen, settled=long_seen or long_past)


def _with_key(progress: Progress, greatest: str | None, clock: str, overlap: float) -> Progress:
    """A key has no clock: what was the greatest an overlap ago is the floor from now on."""
    values = [int(value) for value in (progress.value, greatest) if value is not None]
    value = str(max(values)) if values else None
    if seconds_between(progress.seen, clock) < overlap:
        return replace(progress, value=value, settled=False)
    # All keys up to the greatest of that earlier pass are read by now.
    settled = value is not None and progress.met == value
    return replace(progress, floor=progress.met, met=value, value=value, seen=clock, settled=settled)


def _capped(greatest: str | None, clock: str) -> str | None:
    """A timestamp in the future says nothing of the rows that will be stamped until then."""
    return greatest if greatest is None else min(greatest, clock)


def _later(one: str | None, other: str | None) -> str | None:
    return max((value for value in (one, other) if value is not None), default=None)
