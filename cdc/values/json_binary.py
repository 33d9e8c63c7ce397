"""MySQL's binary JSON (json_binary.h) to the very text that SELECT prints."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable

from cdc.errors import ValueDecodeError
from cdc.values.decimals import decimal_text

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL = range(5)
_STRING, _OPAQUE = 0x0C, 0x0F
_LITERALS = {0: "null", 1: "true", 2: "false"}
_NUMBERS: dict[int, struct.Struct] = {
    0x05: struct.Struct("<h"),
    0x06: struct.Struct("<H"),
    0x07: struct.Struct("<i"),
    0x08: struct.Struct("<I"),
    0x09: struct.Struct("<q"),
    0x0A: struct.Struct("<Q"),
}
_DOUBLE = 0x0B
_INLINED_SMALL = frozenset({_LITERAL, 0x05, 0x06})
_INLINED_LARGE = frozenset({_LITERAL, 0x05, 0x06, 0x07, 0x08})
_FIELD_TIMESTAMP, _FIELD_DATE, _FIELD_TIME, _FIELD_DATETIME, _FIELD_DECIMAL = 7, 10, 11, 12, 246
quoted: Callable[[str], str] = json.JSONEncoder(ensure_ascii=False).encode
"""Escapes as MySQL does: quote, backslash, \\b \\f \\n \\r \\t, other controls as \\u00xx, nothing else."""


def json_text(document: bytes) -> str:
    """The text of one JSON document; an empty one is JSON null. Raises ValueDecodeError if damaged."""
    if not document:
        return "null"
    parts: list[str] = []
    try:
        _value(document[0], memoryview(document)[1:], parts)
    except (IndexError, KeyError, struct.error, UnicodeDecodeError):
        raise ValueDecodeError(
            "A JSON document can't be read.", hint="repair the row at the source, or copy the table again"
        ) from None
    return "".join(parts)


def _value(kind: int, data: memoryview, parts: list[str]) -> None:
    if kind == _STRING:
        parts.append(quoted(str(_sized(data), "utf-8")))
    elif (number := _NUMBERS.get(kind)) is not None:
        parts.append(str(number.unpack_from(data)[0]))
    elif kind == _DOUBLE:
        parts.append(double_text(struct.unpack_from("<d", data)[0]))
    elif kind == _LITERAL:
        parts.append(_LITERALS[data[0]])
    elif kind in (_SMALL_OBJECT, _LARGE_OBJECT):
        _object(data, kind == _LARGE_OBJECT, parts)
    elif kind in (_SMALL_ARRAY, _LARGE_ARRAY):
        _array(data, kind == _LARGE_ARRAY, parts)
    elif kind == _OPAQUE:
        parts.append(_opaque(data[0], bytes(_sized(data[1:]))))
    else:
        raise KeyError(kind)


def _sized(data: memoryview) -> memoryview:
    """A length of 7 bits a byte, low first, and as many bytes."""
    size = shift = at = 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if at + size > len(data):
        raise IndexError(size)
    return data[at : at + size]


def _entry(data: memoryview, at: int, large: bool, parts: list[str]) -> None:
    """One value entry: a type byte, then the value itself or where it is."""
    kind = data[at]
    if kind in (_INLINED_LARGE if large else _INLINED_SMALL):
        _value(kind, data[at + 1 :], parts)
        return
    _value(kind, data[struct.unpack_from("<I" if large else "<H", data, at + 1)[0] :], parts)


def _object(data: memoryview, large: bool, parts: list[str]) -> None:
    count, _ = struct.unpack_from("<II" if large else "<HH", data)
    width = 4 if large else 2
    keys = struct.Struct("<IH" if large else "<HH")
    values = 2 * width + count * keys.size
    parts.append("{")
    for i in range(count):
        if i:
            parts.append(", ")
        start, size = keys.unpack_from(data, 2 * width + i * keys.size)
        parts.append(quoted(str(data[start : start + size], "utf-8")))
        parts.append(": ")
        _entry(data, values + i * (width + 1), large, parts)
    parts.append("}")


def _array(data: memoryview, large: bool, parts: list[str]) -> None:
    count, _ = struct.unpack_from("<II" if large else "<HH", data)
    width = 4 if large else 2
    parts.append("[")
    for i in range(count):
        if i:
            parts.append(", ")
        _entry(data, 2 * width + i * (width + 1), large, parts)
    parts.append("]")


def _opaque(field: int, data: bytes) -> str:
    """A value of an SQL type that JSON lacks: decimals as numbers, temporals quoted, the rest in base64."""
    if field == _FIELD_DECIMAL:
        return decimal_text(data[0], data[1], data[2:])
    if field in (_FIELD_DATE, _FIELD_DATETIME, _FIELD_TIMESTAMP, _FIELD_TIME):
        return f'"{_temporal(field, struct.unpack("<q", data)[0])}"'
    encoded = base64.b64encode(data).decode()
    lines = "\\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76))
    return f'"base64:type{field}:{lines}"'


def _temporal(field: int, packed: int) -> str:
    size = abs(packed)
    microseconds, whole = size & 0xFF_FFFF, size >> 24
    minute_second = f"{whole >> 6 & 63:02d}:{whole & 63:02d}.{microseconds:06d}"
    if field == _FIELD_TIME:
        return f"{'-' if packed < 0 else ''}{whole >> 12 & 0x3FF:02d}:{minute_second}"
    year, month = divmod(whole >> 22, 13)
    date = f"{year:04d}-{month:02d}-{whole >> 17 & 31:02d}"
    return date if field == _FIELD_DATE else f"{date} {whole >> 12 & 31:02d}:{minute_second}"


def double_text(number: float) -> str:
    """A DOUBLE inside JSON: shortest exact digits, ".0" where whole.

    As MySQL's my_gcvt (strings/dtoa.cc): plain from 1e-15 below 1e15, and above where a fraction is left
    (2194106895843136.8); else with an exponent, without "+" or leading zeros.
    """
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    sign = "-" if struct.pack(">d", number)[0] & 0x80 else ""
    if not digits:
        return f"{sign}0.0"
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if point <= -15 or (point > 15 and len(digits) <= point):
        rest = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{rest}e{point - 1}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[:point].ljust(point, '0')}.{digits[point:] or '0'}"
