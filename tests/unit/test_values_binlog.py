"""Row-image bytes of real servers, and random ones against small reference encoders."""

from __future__ import annotations

import datetime
import struct
import zlib
from decimal import Decimal

import numpy as np
import pytest

from cdc.errors import BinlogError, SchemaMismatchError, ValueDecodeError
from cdc.schema import Column
from cdc.values.binlog import (
    BinlogColumn,
    Fixed,
    Prefixed,
    fixed_column,
    meta_length,
    prefixed_column,
    storage,
)
from tests.unit.binlog_cells import column, moment, read, source, span, values


def test_integers_have_their_sign_and_width() -> None:
    assert values(column("tinyint"), source(1), "80", None, "7f") == [-128, None, 127]
    unsigned = column("tinyint", column_type="tinyint unsigned")
    assert values(unsigned, source(1, unsigned=True), "ff") == [255]
    assert values(column("mediumint"), source(9), "000080", "ffffff", "010000") == [-8388608, -1, 1]
    medium = column("mediumint", column_type="mediumint unsigned")
    assert values(medium, source(9, unsigned=True), "ffffff") == [16777215]
    big = column("bigint", column_type="bigint unsigned")
    assert values(big, source(8, unsigned=True), "ff" * 8) == [2**64 - 1]


def test_floats_are_their_bits() -> None:
    assert values(column("float"), source(4, "04"), "ffff7f4b", "c2160100") == [
        16777215.0,
        9.99994610111476e-41,
    ]
    assert values(column("double"), source(5, "08"), "9a9999999999f13f") == [1.1]
    assert str(values(column("double"), source(5, "08"), "0000000000000080")[0]) == "-0.0"


def test_bits_are_an_unsigned_number() -> None:
    assert values(column("bit", precision=1), source(16, "0100"), "01", "00") == [1, 0]
    assert values(column("bit", precision=10), source(16, "0201"), "0201", None) == [0b1000000001, None]
    assert values(column("bit", precision=64), source(16, "0008"), "ff" * 8) == [2**64 - 1]


def test_decimals_are_exact() -> None:
    small = column("decimal", precision=12, scale=3)
    assert values(small, source(246, "0c03"), "7ffffffefe0b", "875bcd15007d", None) == [
        Decimal("-1.500"),
        Decimal("123456789.125"),
        None,
    ]


def test_a_decimal_beyond_38_digits_is_the_text_that_mysql_prints() -> None:
    wide = column("decimal", precision=65, scale=30)
    assert values(
        wide,
        source(246, "411e"),
        "7ffffffffffffffffffffffffffffffee2329affffffffffffffffffffff",
        "800000000000000000000000000000000000000000000000000000000000",
        "80bc614e35b7bf87350e34c02f075f79075bcd1500bc614e35b7bf87037b",
        "7ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe",
        None,
    ) == [
        "-1.500000000000000000000000000000",
        "0.000000000000000000000000000000",
        "12345678901234567890123456789012345.123456789012345678901234567891",
        "-0.000000000000000000000000000001",
        None,
    ]


@pytest.mark.parametrize("rows", [1, 20])
@pytest.mark.parametrize(("precision", "width"), [(9, 4), (38, 17)])
def test_a_decimal_with_impossible_digits_is_an_error(precision: int, width: int, rows: int) -> None:
    target = column("decimal", precision=precision, scale=0)
    with pytest.raises(ValueDecodeError, match="no server writes"):
        read(target, source(246, f"{precision:02x}00"), [b"\xff" * width] * rows)


def test_dates_that_no_calendar_has_are_null() -> None:
    assert values(
        column("date"),
        source(10),
        "5dd00f",
        "000000",
        "00d00f",
        "a10000",
        "9f1f4e",
        "20d00f",
        "5fd00f",
        "210200",
    ) == [
        datetime.date(2024, 2, 29),
        None,
        None,
        None,
        datetime.date(9999, 12, 31),
        None,
        None,
        datetime.date(1, 1, 1),
    ]


def test_datetimes_keep_every_microsecond() -> None:
    target = column("datetime", fraction=6)
    assert values(
        target,
        source(18, "06"),
        "99b2bac8b80f1206",
        "8000000000000000",
        "8003820000000000",
        "fef3ff7efb000000",
        "8001421083000000",
        "99b2000000000000",
        None,
    ) == [
        moment("2024-02-29 12:34:56.987654"),
        None,
        moment("0001-01-01 00:00:00"),
        moment("9999-12-31 23:59:59"),
        None,
        None,
        None,
    ]
    assert values(column("datetime", fraction=3), source(18, "03"), "99b2bac8b82698") == [
        moment("2024-02-29 12:34:56.988")
    ]
    assert values(column("datetime", fraction=1), source(18, "01"), "99b2bac8b85a") == [
        moment("2024-02-29 12:34:56.9")
    ]


def test_timestamps_are_utc_and_zero_is_null() -> None:
    target = column("timestamp", fraction=6)
    assert values(target, source(17, "06"), "65e079f00f1206", "00000000000000", "7fffffff000000", None) == [
        moment("2024-02-29 12:34:56.987654"),
        None,
        moment("2038-01-19 03:14:07"),
        None,
    ]
    assert values(column("timestamp"), source(17, "00"), "65e079f1") == [moment("2024-02-29 12:34:57")]


@pytest.mark.parametrize(
    ("fraction", "cells", "expected"),
    [
        (0, ["4b9105", "7fffff", "b46efb", "800000"], [(-3020399,), (-1,), (3020399,), (0,)]),
        (1, ["7fffffce", "7f3ffeec"], [(0, -500000), (-43201, -200000)]),
        (3, ["7fffffec78", "7f3ffef6d2"], [(0, -500000), (-43201, -235000)]),
        (4, ["80c8b82695", "7f3ffef6d6"], [(45296, 987700), (-43201, -234600)]),
        (
            6,
            ["7ffffff85ee0", "80c8b80f1206", "7f3ffefc6bb9"],
            [(0, -500000), (45296, 987654), (-43201, -234567)],
        ),
    ],
)
def test_times_keep_their_sign_and_fraction(
    fraction: int, cells: list[str], expected: list[tuple[int, ...]]
) -> None:
    found = values(column("time", fraction=fraction), source(19, f"0{fraction}"), *cells, None)
    assert found == [*(span(*parts) for parts in expected), None]


def test_the_year_zero_stays_zero() -> None:
    assert values(column("year"), source(13), "00", "01", "ff", None) == [0, 1901, 2155, None]


def test_binary_gets_its_trailing_zeros_back() -> None:
    target = column("binary", length=4)
    assert values(target, source(254, "fe04"), "0100", "", "01020304", None) == [
        b"\x01\0\0\0",
        b"\0\0\0\0",
        b"\x01\x02\x03\x04",
        None,
    ]
    assert values(column("varbinary"), source(15, "0a00"), "0100") == [b"\x01\0"]


def test_an_enum_index_zero_is_the_empty_text() -> None:
    target = column("enum")
    origin = source(254, "f701", members=("a", "b,c", "it's", ""))
    assert values(target, origin, "01", "02", "00", "04", None) == ["a", "b,c", "", "", None]
    many = source(254, "f702", members=tuple(f"m{i}" for i in range(300)))
    assert values(target, many, "2c01") == ["m299"]


def test_an_enum_index_without_a_member_is_an_error() -> None:
    with pytest.raises(ValueDecodeError, match="beyond its 1 members"):
        values(column("enum"), source(254, "f701", members=("a",)), "02")
    with pytest.raises(ValueDecodeError, match="beyond its 1 members"):
        values(column("set"), source(254, "f801", members=("a",)), "02")


def test_a_set_is_joined_in_the_order_of_definition() -> None:
    origin = source(254, "f801", members=("a", "b", "c d"))
    assert values(column("set"), origin, "01", "03", "00", "05", None) == ["a", "a,b", "", "a,c d", None]
    wide = source(254, "f808", members=tuple(f"m{i}" for i in range(64)))
    assert values(column("set"), wide, "0100000000000080") == ["m0,m63"]


def test_geometry_is_wkb_without_the_srid() -> None:
    cell = "e610000001010000000000000000000040000000000000f03f"
    assert values(column("point"), source(255, "04"), cell, None) == [bytes.fromhex(cell)[4:], None]


def test_a_vector_is_a_list_of_floats() -> None:
    origin = source(242, "04", dimension=3)
    assert values(column("vector"), origin, "0000803f00002040000040c0", None, "0000803f") == [
        [1.0, 2.5, -3.0],
        None,
        [1.0],
    ]


def test_network_types_are_the_text_that_the_server_prints() -> None:
    assert values(column("uuid"), source(254, "fe10"), "123e4567e89b12d3a45642665544", "", None) == [
        "123e4567-e89b-12d3-a456-426655440000",
        "00000000-0000-0000-0000-000000000000",
        None,
    ]
    assert values(column("uuid"), source(254, "fe10"), "ff" * 15) == ["ffffffff-ffff-ffff-ffff-ffffffffff00"]
    assert values(column("inet4"), source(254, "fe04"), "0a000001", "0a01", "") == [
        "10.0.0.1",
        "10.1.0.0",
        "0.0.0.0",
    ]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("00000000000000000000000000000001", "::1"),
        ("20010db80000000000000000ff", "2001:db8::ff00:0"),
        ("", "::"),
        ("00000000000000000000ffff01020304", "::ffff:1.2.3.4"),
        ("00010000000000020000000000000003", "1:0:0:2::3"),
        ("0000000000000000000000000005", "::0.5.0.0"),
        ("0001000200030004000500060007", "1:2:3:4:5:6:7::"),
        ("00000000000000000000ffff", "::ffff:0.0.0.0"),
        ("0001000000020000000300000004", "1::2:0:3:0:4:0"),
        ("00010002000300040005000600070008", "1:2:3:4:5:6:7:8"),
    ],
)
def test_inet6_is_shortened_as_the_server_does(cell: str, expected: str) -> None:
    assert values(column("inet6"), source(254, "fe10"), cell) == [expected]


def test_compressed_columns_are_inflated() -> None:
    varchar = column("varchar", character_set="latin1")
    origin = source(141, "d107", character_set="latin1")
    assert values(varchar, origin, "8a01f47bf972148c340000", "0078", "", None) == ["é" * 500, "x", "", None]
    assert values(column("longblob"), source(140, "04"), "8a03e84b4c4a1c85a370140e730800") == [b"ab" * 500]
    wrapped = b"\x82" + struct.pack(">H", 400) + zlib.compress(b"ab" * 200)
    assert read(column("blob"), source(140, "02"), [wrapped]).to_pylist() == [b"ab" * 200]


@pytest.mark.parametrize("cell", ["90017878", "8901ff", "8902" + zlib.compress(b"x", wbits=-15).hex()])
def test_a_damaged_compressed_value_is_an_error(cell: str) -> None:
    with pytest.raises(ValueDecodeError, match="compressed value"):
        values(column("blob"), source(140, "02"), cell)


def test_long_char_columns_have_two_bytes_of_length() -> None:
    assert storage(source(254, "fe14")) == Prefixed(1)
    assert storage(source(254, "ce20")) == Prefixed(2)
    assert source(254, "ce20").max_length == 800
    assert storage(source(15, "ff00")) == Prefixed(1)
    assert storage(source(15, "0001")) == Prefixed(2)
    assert storage(source(252, "03")) == Prefixed(3)


@pytest.mark.parametrize(
    ("code", "meta", "width"),
    [
        (1, "", 1),
        (9, "", 3),
        (8, "", 8),
        (4, "04", 4),
        (5, "08", 8),
        (10, "", 3),
        (13, "", 1),
        (16, "0201", 2),
        (246, "0c03", 6),
        (246, "411e", 30),
        (18, "00", 5),
        (18, "03", 7),
        (17, "06", 7),
        (19, "01", 4),
        (254, "f702", 2),
        (254, "f808", 8),
    ],
)
def test_a_fixed_type_has_its_width_and_metadata(code: int, meta: str, width: int) -> None:
    assert meta_length(code) == len(meta) // 2
    assert storage(source(code, meta)) == Fixed(width)


@pytest.mark.parametrize("code", [0, 7, 11, 12])
def test_types_of_before_mysql_5_6_are_refused(code: int) -> None:
    assert meta_length(code) == 0
    with pytest.raises(ValueDecodeError, match=r"before 5\.6"):
        source(code)


def test_an_unknown_type_code_is_an_error() -> None:
    with pytest.raises(BinlogError, match="unknown column type 200"):
        meta_length(200)


@pytest.mark.parametrize(
    ("target", "origin", "width"),
    [
        (column("bigint"), source(3), 4),
        (column("int", column_type="int unsigned"), source(3), 4),
        (column("decimal", precision=10, scale=2), source(246, "0a03"), 5),
        (column("bit", precision=9), source(16, "0201"), 2),
        (column("int"), source(3), 3),
    ],
)
def test_another_type_than_the_copy_has_is_a_mismatch(
    target: Column, origin: BinlogColumn, width: int
) -> None:
    with pytest.raises(SchemaMismatchError, match="in the binary log"):
        fixed_column(target, origin, np.zeros((1, width), np.uint8), None)
    with pytest.raises(SchemaMismatchError, match="in the binary log"):
        prefixed_column(column("json"), source(15, "0a00"), [b""])
