"""Dates and times as columns: from MySQL's packed fields to Arrow, at microsecond precision.

Zero, partial and impossible dates ('0000-00-00', '2024-00-00', '2024-02-31') and year 0 become NULL: DuckDB
has no such dates. Years 1 to 9999 are exact. Layouts: MySQL's my_time.cc, functions my_*_packed_from_binary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cdc.values.arrays import Bools, Bytes, Ints, both, primitive

SECOND = 1_000_000
DAY = 86_400 * SECOND
_MONTH_DAYS = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0, 0, 0], np.int64)
_BEFORE_1970 = 719_468


class Days(NamedTuple):
    """Days since 1970-01-01, and which of them are dates of the calendar."""

    values: Ints
    exist: Bools | None


def days(year: Ints, month: Ints, day: Ints) -> Days:
    """The day number of each date (months up to 15 may occur in damaged fields, and don't exist)."""
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    last = _MONTH_DAYS[month] - ((month == 2) & ~leap)
    exist = (year >= 1) & (day >= 1) & (day <= last)
    march_year = year - (month <= 2)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    values = (
        365 * march_year
        + march_year // 4
        - march_year // 100
        + march_year // 400
        + day_of_year
        - _BEFORE_1970
    )
    return Days(values, None if exist.all() else exist)


def big_endian(cells: Bytes) -> Ints:
    """Each row of up to 8 bytes as one unsigned big-endian number (below 2**63)."""
    total = cells[:, 0].astype(np.int64)
    for at in range(1, cells.shape[1]):
        total <<= 8
        total |= cells[:, at]
    return total


def _microseconds(cells: Bytes) -> Ints | int:
    """The 0 to 3 fraction bytes: hundredths, ten-thousandths or millionths of a second."""
    width = cells.shape[1]
    return big_endian(cells) * (10 ** (6 - 2 * width)) if width else 0


def date_array(found: Days, valid: Bools | None) -> pa.Array:
    """A DATE column."""
    return primitive(pa.date32(), found.values.astype(np.int32), both(valid, found.exist))


def datetime_array(found: Days, microseconds: Ints, valid: Bools | None) -> pa.Array:
    """A TIMESTAMP column of days and microseconds of the day."""
    return primitive(pa.timestamp("us"), found.values * DAY + microseconds, both(valid, found.exist))


def date_from_binary(cells: Bytes, valid: Bools | None) -> pa.Array:
    """DATE: three bytes, little endian: day 5 bits, month 4, year 15."""
    packed = big_endian(cells[:, ::-1])
    return date_array(days(packed >> 9, packed >> 5 & 15, packed & 31), valid)


def datetime_from_binary(cells: Bytes, valid: Bools | None) -> pa.Array:
    """DATETIME2: bits 1 sign, 17 year * 13 + month, 5 day, 5 hour, 6 minute, 6 second; then the fraction."""
    packed = big_endian(cells[:, :5]) & 0x7F_FFFF_FFFF
    months = packed >> 22
    time = ((packed >> 12 & 31) * 3600 + (packed >> 6 & 63) * 60 + (packed & 63)) * SECOND
    time += _microseconds(cells[:, 5:])
    return datetime_array(days(months // 13, months % 13, packed >> 17 & 31), time, valid)


def timestamp_from_binary(cells: Bytes, valid: Bools | None) -> pa.Array:
    """TIMESTAMP2: 4 bytes big endian, seconds since 1970 in UTC, then the fraction; zero is '0000-00-00'."""
    values = big_endian(cells[:, :4]) * SECOND + _microseconds(cells[:, 4:])
    exist = values != 0
    return primitive(pa.timestamp("us"), values, valid if exist.all() else both(valid, exist))


def time_from_binary(cells: Bytes, valid: Bools | None) -> pa.Array:
    """TIME2: 3 bytes big endian (1 sign, 1 unused, 10 hour, 6 minute, 6 second) and fraction, as one number.

    A negative time is the complement of the whole number, its fraction included.
    """
    width = cells.shape[1] - 3
    number = big_endian(cells) - (0x80_0000 << 8 * width)
    size = np.abs(number)
    whole = size >> 8 * width
    value = ((whole >> 12 & 0x3FF) * 3600 + (whole >> 6 & 63) * 60 + (whole & 63)) * SECOND
    if width:
        value += (size & ((1 << 8 * width) - 1)) * 10 ** (6 - 2 * width)
    return primitive(pa.duration("us"), np.where(number < 0, -value, value), valid)


def year_from_binary(cells: Bytes, valid: Bools | None) -> pa.Array:
    """YEAR: one byte, 1901 to 2155, or 0 for the year 0000."""
    short = cells[:, 0].astype(np.int16)
    return primitive(pa.int16(), np.where(short == 0, short, short + np.int16(1900)), valid)
