"""The value that ADD COLUMN gives to the rows which are there, where the statement alone tells it."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal, InvalidOperation

from cdc.schema import Column
from cdc.source.ddl.columns import ColumnDefinition
from cdc.source.ddl.cursor import UnclearStatementError

_RANGES = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_WHOLE = re.compile(r"-?\d+", re.ASCII)
_DECIMAL = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


def fill(definition: ColumnDefinition, column: Column) -> bytes | None:
    """What existing rows get in the new `column`, as the text protocol would send it; None is NULL.

    Raises UnclearStatementError where the server, the session or the clock has a say in it.
    """
    if definition.generated or definition.auto_increment:
        raise UnclearStatementError(f"column {column.name} gets another value in each row")
    default = definition.default
    if default is None:
        return None if column.nullable else _implicit(column)
    if default.kind == "null" and column.nullable:
        return None
    text = default.text
    if default.kind == "string" and column.data_type in _TEXTS:
        return _text(column, text)
    if default.kind in ("string", "number") and column.data_type in (*_RANGES, "decimal"):
        return _number(column, text)
    if default.kind == "boolean" and column.data_type in _RANGES:
        return text.encode()
    if default.kind == "string" and column.data_type == "enum" and text in column.members:
        return _text(column, text)
    if default.kind == "string" and column.data_type == "set" and text in ("", *column.members):
        return _text(column, text)
    if default.kind == "string" and column.data_type in ("date", "datetime"):
        return _moment(column, text)
    if default.kind in ("bits", "number") and column.data_type == "bit":
        return _bits(column, int(text, 2) if default.kind == "bits" else _whole(column, text))
    if default.kind in ("number", "string") and column.data_type == "year":
        return _year(column, text)
    raise _unclear(column)


def _unclear(column: Column) -> UnclearStatementError:
    return UnclearStatementError(f"the default of column {column.name} is one that the source computes")


def _implicit(column: Column) -> bytes:
    """MySQL manual, "Data Type Default Values": that of a NOT NULL column without a default."""
    kind = column.data_type
    if kind in _RANGES or kind in ("float", "double"):
        return b"0"
    if kind == "decimal":
        return _number(column, "0")
    if kind in _TEXTS or kind in ("varbinary", "tinyblob", "blob", "mediumblob", "longblob", "set"):
        return b""
    if kind == "enum":
        return column.members[0].encode()
    if kind == "bit":
        return _bits(column, 0)
    raise _unclear(column)


def _text(column: Column, text: str) -> bytes:
    """A text that no character set, no padding and no length changes."""
    fits = column.length is None or len(text) <= column.length
    padded = column.data_type == "char" and text.endswith(" ")
    if not (text.isascii() and text.isprintable() and fits) or padded:
        raise _unclear(column)
    return text.encode()


def _whole(column: Column, text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise _unclear(column)
    return int(text)


def _number(column: Column, text: str) -> bytes:
    """A number that needs no rounding."""
    if column.data_type in _RANGES:
        number = _whole(column, text)
        bits = _RANGES[column.data_type]
        low, high = (0, 2**bits) if column.unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        if not low <= number < high:
            raise _unclear(column)
        return str(number).encode()
    if not _DECIMAL.fullmatch(text):
        raise _unclear(column)
    try:
        number_ = Decimal(text)
    except InvalidOperation:
        raise _unclear(column) from None
    scale, precision = column.scale or 0, column.precision or 0
    places = len(text.partition(".")[2])
    digits = len(text.lstrip("-").partition(".")[0].lstrip("0"))
    if places > scale or digits > precision - scale or (column.unsigned and number_ < 0):
        raise _unclear(column)
    sign = "-" if number_ < 0 else ""
    whole = text.lstrip("-").partition(".")[0].lstrip("0") or "0"
    fraction = text.partition(".")[2].ljust(scale, "0")
    return (sign + whole + (f".{fraction}" if scale else "")).encode()


def _moment(column: Column, text: str) -> bytes:
    """A day or a moment that the calendar has, written as the server prints it."""
    pattern = _DAY if column.data_type == "date" else _MOMENT
    found = pattern.fullmatch(text)
    if found is None or text.startswith("0000"):
        raise _unclear(column)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise _unclear(column) from None
    if column.data_type == "date":
        return text.encode()
    seconds, _, fraction = text.partition(".")
    if len(fraction) > column.fraction:
        raise _unclear(column)
    return (f"{seconds}.{fraction.ljust(column.fraction, '0')}" if column.fraction else seconds).encode()


def _bits(column: Column, number: int) -> bytes:
    length = column.precision or 1
    if not 0 <= number < 2**length:
        raise _unclear(column)
    return number.to_bytes((length + 7) // 8, "big")


def _year(column: Column, text: str) -> bytes:
    if not re.fullmatch(r"\d{4}", text, re.ASCII) or not 1901 <= int(text) <= 2155:
        raise _unclear(column)
    return text.encode()
