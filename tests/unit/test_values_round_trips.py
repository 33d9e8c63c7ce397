"""Random values, written by a reference encoder and read from the binary log."""

from __future__ import annotations

import datetime
from decimal import Decimal, localcontext

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.binlog_cells import column, read, source

WIDTHS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def encode_decimal(number: Decimal, precision: int, scale: int) -> bytes:
    """decimal2bin of MySQL's manual, one digit group after the other."""
    with localcontext() as context:
        context.prec = 80
        digits = str(int(abs(number).scaleb(scale))).rjust(precision, "0")
    whole, fraction = digits[: precision - scale], digits[precision - scale :]
    first = len(whole) % 9
    parts = [whole[:first]] + [whole[i : i + 9] for i in range(first, len(whole), 9)]
    parts += [fraction[i : i + 9] for i in range(0, len(fraction), 9)]
    data = bytearray(b"".join(int(p).to_bytes(WIDTHS[len(p)], "big") for p in parts if p))
    data[0] ^= 0x80
    return bytes(byte ^ 0xFF for byte in data) if number < 0 else bytes(data)


@st.composite
def decimals(draw: st.DrawFn) -> tuple[int, int, list[Decimal | None]]:
    precision = draw(st.integers(1, 65))
    scale = draw(st.integers(0, min(30, precision)))
    whole = st.integers(-(10**precision) + 1, 10**precision - 1)
    with localcontext() as context:
        context.prec = 80
        numbers = draw(st.lists(st.none() | whole.map(lambda n: Decimal(n).scaleb(-scale)), min_size=1))
    return precision, scale, numbers


@given(decimals(), st.sampled_from([1, 20]))
def test_every_decimal_round_trips(case: tuple[int, int, list[Decimal | None]], copies: int) -> None:
    precision, scale, numbers = case
    numbers = numbers * copies  # few rows and many take different paths
    target = column("decimal", precision=precision, scale=scale)
    cells = [None if n is None else encode_decimal(n, precision, scale) for n in numbers]
    found = read(target, source(246, f"{precision:02x}{scale:02x}"), cells).to_pylist()
    if precision > 38:
        assert found == [None if n is None else f"{n or abs(n):f}" for n in numbers]
    else:
        assert found == numbers


@given(st.lists(st.none() | st.dates(), min_size=1))
def test_every_date_round_trips(dates: list[datetime.date | None]) -> None:
    cells = [None if d is None else (d.year << 9 | d.month << 5 | d.day).to_bytes(3, "little") for d in dates]
    assert read(column("date"), source(10), cells).to_pylist() == dates


@given(st.lists(st.none() | st.datetimes(), min_size=1))
def test_every_datetime_round_trips(moments: list[datetime.datetime | None]) -> None:
    def encode(m: datetime.datetime) -> bytes:
        date = (m.year * 13 + m.month) << 5 | m.day
        packed = 1 << 39 | date << 17 | m.hour << 12 | m.minute << 6 | m.second
        return packed.to_bytes(5, "big") + m.microsecond.to_bytes(3, "big")

    cells = [None if m is None else encode(m) for m in moments]
    assert read(column("datetime", fraction=6), source(18, "06"), cells).to_pylist() == moments


@given(st.lists(st.none() | st.integers(-3020399_999999, 3020399_999999), min_size=1))
def test_every_time_round_trips(times: list[int | None]) -> None:
    def encode(time: int) -> bytes:
        seconds, microseconds = divmod(abs(time), 1_000_000)
        whole = seconds // 3600 << 12 | seconds // 60 % 60 << 6 | seconds % 60
        size = whole << 24 | microseconds
        return ((0x80_0000 << 24) + (size if time >= 0 else -size)).to_bytes(6, "big")

    cells = [None if t is None else encode(t) for t in times]
    array = read(column("time", fraction=6), source(19, "06"), cells)
    assert array.cast(pa.int64()).to_pylist() == times
