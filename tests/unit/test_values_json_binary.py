"""Binary JSON of real MySQL rows, and random documents against a small reference encoder."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import ValueDecodeError
from cdc.values.json_binary import double_text, json_text


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (
            "00020033001200010013000100021400050100616205001f000501000b13000400000401000c1b00000000000000044003780179",
            '{"a": [1, 2.5, null, true, "x\\u0001y"], "b": 1}',
        ),
        ("0400", "null"),
        ("", "null"),
        ("0401", "true"),
        ("0402", "false"),
        ("0000000400", "{}"),
        ("0200000400", "[]"),
        ("050100", "1"),
        ("0b000000000000f8bf", "-1.5"),
        ("0c00", '""'),
        ("0001000b000b000000050100", '{"": 1}'),
        ("02010009000f07000f00", '["base64:type15:"]'),
        ("02010011000f07000a080000000000000000", '["0000-00-00"]'),
        ("02010011000f07000c080000000000820300", '["0001-01-01 00:00:00.000000"]'),
        ("020100070006e807", "[2024]"),
        ("0202001a000b0a000b1200000000000000f03f000000a09999f13f", "[1.0, 1.100000023841858]"),
    ],
)
def test_a_document_of_the_server_is_the_text_that_it_prints(document: str, expected: str) -> None:
    assert json_text(bytes.fromhex(document)) == expected


def opaque(field: int, data: bytes) -> bytes:
    return bytes([0x0F, field, len(data)]) + data


def packed_time(hours: int, minutes: int, seconds: int, microseconds: int) -> int:
    return (hours << 12 | minutes << 6 | seconds) << 24 | microseconds


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (opaque(246, bytes.fromhex("0a048000011388")), "1.5000"),
        (opaque(11, struct.pack("<q", packed_time(0, 0, 0, 500000))), '"00:00:00.500000"'),
        (opaque(11, struct.pack("<q", -packed_time(838, 59, 59, 0))), '"-838:59:59.000000"'),
        (opaque(16, b"\x05"), '"base64:type16:BQ=="'),
        (opaque(15, b"\xff\x00\xfe"), '"base64:type15:/wD+"'),
        (
            opaque(15, b"x" * 58),
            '"base64:type15:' + "eHh4" * 19 + '\\neA=="',
        ),
    ],
)
def test_a_value_of_an_sql_type_is_printed_as_the_server_does(document: bytes, expected: str) -> None:
    assert json_text(document) == expected


def test_only_what_mysql_escapes_is_escaped() -> None:
    data = b'\x00\x1f\x7f\xc2\x80//"\\ \x08\x0c\n\r\t \xc3\xa9 \xf0\x9f\x98\x80 \xe2\x80\xa8'
    assert json_text(b"\x0c" + bytes([len(data)]) + data) == (
        '"\\u0000\\u001f\x7f\x80//\\"\\\\ \\b\\f\\n\\r\\t é 😀 \u2028"'
    )


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (1e14, "100000000000000.0"),
        (1e15, "1e15"),
        (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"),
        (1.5e-7, "0.00000015"),
        (1017554834493971.5, "1017554834493971.5"),
        (2194106895843136.8, "2194106895843136.8"),
        (-1.996150245444706e-194, "-1.996150245444706e-194"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
        (5e-324, "5e-324"),
    ],
)
def test_a_double_is_printed_as_mysql_does(number: float, expected: str) -> None:
    assert double_text(number) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_text_of_a_double_is_that_double(number: float) -> None:
    assert struct.pack("<d", float(double_text(number))) == struct.pack("<d", number)


@pytest.mark.parametrize(
    "document", [b"\x00", b"\x0c\x05ab", b"\x04\x09", b"\x0e", b"\x02\x01\x00\x07\x00\x0b\xff\x00"]
)
def test_a_damaged_document_is_an_error(document: bytes) -> None:
    with pytest.raises(ValueDecodeError, match="can't be read"):
        json_text(document)


# --- a reference encoder ----------------------------------------------------------------------------------


def size_of(length: int) -> bytes:
    out = bytearray()
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*out, length])


def encode(value: Any, large: bool) -> tuple[int, bytes]:
    """Type byte and value, as json_binary.h describes them."""
    if value is None or isinstance(value, bool):
        return 4, bytes([0 if value is None else 1 if value else 2])
    if isinstance(value, int):
        for kind, form in ((5, "<h"), (6, "<H"), (7, "<i"), (8, "<I"), (9, "<q"), (10, "<Q")):
            try:
                return kind, struct.pack(form, value)
            except struct.error:
                continue
    if isinstance(value, float):
        return 11, struct.pack("<d", value)
    if isinstance(value, str):
        data = value.encode()
        return 12, size_of(len(data)) + data
    return encode_container(value, large)


def encode_container(value: Any, large: bool) -> tuple[int, bytes]:
    form, width = ("<I", 4) if large else ("<H", 2)
    keys = [key.encode() for key in value] if isinstance(value, dict) else []
    members = list(value.values()) if isinstance(value, dict) else value
    at = 2 * width + len(keys) * (width + 2) + len(members) * (width + 1)
    key_entries = b""
    body = b""
    for key in keys:
        key_entries += struct.pack(form, at + len(body)) + struct.pack("<H", len(key))
        body += key
    entries = b""
    for member in members:
        kind, data = encode(member, large)
        if kind in (4, 5, 6) or (large and kind in (7, 8)):
            entries += bytes([kind]) + data.ljust(width, b"\0")
        else:
            entries += bytes([kind]) + struct.pack(form, at + len(body))
            body += data
    total = struct.pack(form, len(members)) + struct.pack(form, at + len(body))
    kind = (0 if isinstance(value, dict) else 2) + large
    return kind, total + key_entries + entries + body


texts = st.text(st.characters(exclude_categories=["Cs"]))
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)


@given(documents, st.booleans())
def test_every_document_reads_back_as_it_was(value: Any, large: bool) -> None:
    kind, data = encode(value, large)
    assert json.loads(json_text(bytes([kind]) + data)) == value
