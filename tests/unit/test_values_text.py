"""The text protocol's cells."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from cdc.errors import ValueDecodeError
from cdc.schema import Column
from cdc.types import arrow_type
from cdc.values.text import text_column


def column(kind: str, **fields: Any) -> Column:
    return Column("c", kind, **{"column_type": kind, **fields})


def read(target: Column, *cells: bytes | None) -> list[Any]:
    array = text_column(target, pa.array(cells, pa.binary()))
    array.validate(full=True)
    assert array.type == arrow_type(target)
    found: list[Any] = array.to_pylist()
    return found


def test_integers_are_read_at_their_limits() -> None:
    assert read(column("bigint"), b"-9223372036854775808", None) == [-(2**63), None]
    assert read(column("bigint", column_type="bigint unsigned"), b"18446744073709551615") == [2**64 - 1]
    assert read(column("tinyint"), b"-128", b"127") == [-128, 127]


def test_zerofill_does_not_change_a_number() -> None:
    assert read(column("int", column_type="int(6) unsigned zerofill"), b"000042") == [42]
    assert read(column("bigint", column_type="bigint(60) unsigned zerofill"), b"7".rjust(60, b"0")) == [7]
    narrow = column("decimal", column_type="decimal(5,2) unsigned zerofill", precision=5, scale=2)
    assert read(narrow, b"099.00") == [Decimal("99.00")]
    wide = column("decimal", column_type="decimal(45,3) unsigned zerofill", precision=45, scale=3)
    assert read(wide, b"0000.500", b"0120.000", None) == ["0.500", "120.000", None]


def test_floats_keep_their_bits() -> None:
    assert read(column("float"), b"16777215", b"9.99994610111476e-41", None) == [
        16777215.0,
        9.99994610111476e-41,
        None,
    ]
    assert str(read(column("float"), b"-0")[0]) == "-0.0"
    assert read(column("double"), b"1.7976931348623157e308", b"5e-324") == [1.7976931348623157e308, 5e-324]


def test_decimals_are_exact() -> None:
    target = column("decimal", precision=38, scale=10)
    assert read(target, b"-1234567890123456789012345678.0123456789", None) == [
        Decimal("-1234567890123456789012345678.0123456789"),
        None,
    ]
    assert read(column("decimal", precision=65, scale=30), b"-1.5", None) == ["-1.5", None]


def test_dates_that_no_calendar_has_are_null() -> None:
    assert read(
        column("date"),
        b"2024-02-29",
        b"0000-00-00",
        b"2024-00-00",
        b"0000-05-01",
        None,
        b"2023-02-29",
        b"9999-12-31",
    ) == [datetime.date(2024, 2, 29), None, None, None, None, None, datetime.date(9999, 12, 31)]


def test_datetimes_keep_every_microsecond() -> None:
    assert read(
        column("datetime", fraction=6), b"0001-01-01 23:59:59.987654", None, b"0000-00-00 00:00:00.000000"
    ) == [
        datetime.datetime(1, 1, 1, 23, 59, 59, 987654),
        None,
        None,
    ]
    assert read(column("timestamp", fraction=1), b"2038-01-19 03:14:07.9") == [
        datetime.datetime(2038, 1, 19, 3, 14, 7, 900000)
    ]


def test_times_keep_their_sign_and_fraction() -> None:
    assert read(column("time"), b"-838:59:59", b"00:00:01", None) == [
        datetime.timedelta(seconds=-3020399),
        datetime.timedelta(seconds=1),
        None,
    ]
    assert read(column("time", fraction=2), b"-00:00:00.50", b"838:00:00.25") == [
        datetime.timedelta(microseconds=-500000),
        datetime.timedelta(hours=838, microseconds=250000),
    ]


def test_bits_are_an_unsigned_number() -> None:
    assert read(column("bit", precision=10), b"\x02\x01", None, b"\0\0") == [513, None, 0]


def test_bytes_stay_bytes() -> None:
    assert read(column("binary", length=3), b"\x01\0\0", None) == [b"\x01\0\0", None]
    assert read(column("blob"), b"\xff\0", b"") == [b"\xff\0", b""]
    assert read(column("geometry"), b"\xe6\x10\0\0wkb", None) == [b"wkb", None]
    assert read(column("vector"), b"\0\0\x80?", None) == [[1.0], None]


def test_text_that_is_no_utf8_is_marked() -> None:
    assert read(column("varchar"), b"\xed\xa0\x80", b"\xc3\xa9", None) == ["\ufffd" * 3, "é", None]


def test_json_null_is_not_sql_null() -> None:
    assert read(column("json"), b"null", None) == ["null", None]


def test_the_year_zero_stays_zero() -> None:
    assert read(column("year"), b"0000", b"2155") == [0, 2155]


@pytest.mark.parametrize(
    "kind", ["int", "decimal", "double", "date", "datetime", "time", "year", "bit", "varchar"]
)
def test_a_column_of_nulls_alone_has_its_type(kind: str) -> None:
    target = column(kind, precision=9, scale=2)
    assert read(target, None, None) == [None, None]


@pytest.mark.parametrize(
    ("target", "cell"),
    [
        (column("int"), b"x"),
        (column("tinyint"), b"128"),
        (column("decimal", precision=3, scale=1), b"x"),
        (column("date"), b"2024-02-2"),
        (column("date"), b"2024/02/20"),
        (column("datetime"), b"2024-02-20 1a:00:00"),
        (column("time"), b"1:00:00:00"),
        (column("bit", precision=9), b"\x01"),
    ],
)
def test_a_cell_that_is_no_value_of_its_type_is_an_error_without_the_value(
    target: Column, cell: bytes
) -> None:
    with pytest.raises(ValueDecodeError) as caught:
        text_column(target, pa.array([cell], pa.binary()))
    assert cell.decode("latin-1") not in str(caught.value) or len(cell) == 1
    assert isinstance(text_column(target, pa.array([None], pa.binary())), pa.Array)


def test_a_type_without_a_counterpart_is_an_error() -> None:
    with pytest.raises(ValueDecodeError, match="no counterpart"):
        text_column(column("xmltype"), pa.array([b"<a/>"], pa.binary()))
