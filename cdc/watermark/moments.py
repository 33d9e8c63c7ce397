"""Moments of the source's clock, as text of fixed width that sorts by time: 'YYYY-MM-DD HH:MM:SS.ffffff'."""

from __future__ import annotations

from datetime import datetime, timedelta

from cdc.schema import Column

_FORM = "%Y-%m-%d %H:%M:%S.%f"
_FIRST = "0001-01-01 00:00:00.000000"
_DAY = 86_400.0
_ZONES = 14 * 3600.0
"""Seconds that a DATETIME may be behind UTC, a DST hour included; a TIMESTAMP is always in UTC here."""


def moment(cell: bytes | str | None) -> str | None:
    """A date or time as the server prints it, as such a text; None for NULL and for no date of the calendar."""
    if cell is None:
        return None
    text = cell.decode() if isinstance(cell, bytes) else cell
    try:
        value = datetime.fromisoformat(text if len(text) < 20 else text.ljust(26, "0"))
    except ValueError:
        return None
    return value.isoformat(" ", "microseconds")


def before(text: str, seconds: float) -> str:
    """The moment so many seconds earlier."""
    try:
        earlier = datetime.strptime(text, _FORM) - timedelta(seconds=seconds)
    except OverflowError:
        return _FIRST
    return earlier.isoformat(" ", "microseconds")


def seconds_between(earlier: str, later: str) -> float:
    """Seconds from one moment to another; negative where they stand the other way round."""
    return (datetime.strptime(later, _FORM) - datetime.strptime(earlier, _FORM)).total_seconds()


def grain(column: Column) -> float:
    """Seconds within which the column's clock shows one value: a day for DATE, else a fraction of a second."""
    return _DAY if column.data_type == "date" else 10.0**-column.fraction


def zone_doubt(column: Column) -> float:
    """Seconds by which the clock that fills the column may be behind the server's in UTC, for all we know."""
    return 0.0 if column.data_type == "timestamp" else _ZONES


def reached(column: Column, stamp: str, clock: str) -> str:
    """`stamp`, unless that is in the future: then the moment that the clock which fills the column has reached at
    least, when the server's says `clock`."""
    return stamp if stamp <= clock else before(clock, zone_doubt(column))
