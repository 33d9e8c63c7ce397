"""Cells of the text protocol, a column at a time, to Arrow: the copy's side of the type map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cdc.errors import ValueDecodeError
from cdc.schema import Column
from cdc.types import DECIMAL_DIGITS, GEOMETRIES, TEXTS, arrow_type
from cdc.values.arrays import (
    Bools,
    Bytes,
    Ints,
    RawCells,
    binary,
    offsets_and_data,
    primitive,
    relabel,
    scatter,
    strings,
    validity,
)
from cdc.values.numbers import bits_from_binary, flags
from cdc.values.shapes import blob_array, vector_array, wkb_array
from cdc.values.temporal import SECOND, Days, date_array, datetime_array, days
from cdc.values.zero_dates import check_dates

Reader = Callable[[Column, pa.Array], pa.Array]

_ZERO = np.uint8(ord("0"))


def text_column(column: Column, raw: RawCells) -> pa.Array:
    """The values of `select_expression(column)`, NULL as None, in exactly `arrow_type(column)`.

    The session must have time_zone '+00:00', utf8mb4 results and no PAD_CHAR_TO_FULL_LENGTH. Raises
    ValueDecodeError for what is no value of the column's type.
    """
    reader = _READERS.get(column.data_type)
    if reader is None:
        arrow_type(column)  # raises what there is to say
        raise ValueDecodeError(f"Column {column.name} of type {column.data_type} can't be read as text.")
    cells = binary(raw)
    try:
        array = reader(column, cells)
    except pa.ArrowInvalid:
        raise _unreadable(column) from None
    if column.choice == "no_zero_dates":
        check_dates(column, array, cells.null_count)
    return array


def _unreadable(column: Column) -> ValueDecodeError:
    return ValueDecodeError(
        f"A value of column {column.name} is no {column.data_type} that the copy can read.",
        hint="repair the row at the source, then copy the table again",
    )


def _number(column: Column, cells: pa.Array) -> pa.Array:
    """Integers, DOUBLE and FLOAT (which goes by way of the double that it is exactly)."""
    kind = arrow_type(column)
    text = relabel(cells, pa.string())
    if kind == pa.bool_():
        return flags(text.cast(pa.int8()))
    return text.cast(pa.float64()).cast(kind) if kind == pa.float32() else text.cast(kind)


def _decimal(column: Column, cells: pa.Array) -> pa.Array:
    text = relabel(cells, pa.string())
    if (column.precision or 0) <= DECIMAL_DIGITS:
        return text.cast(arrow_type(column))
    if "zerofill" in column.column_type.lower():
        return pc.replace_substring_regex(text, r"^0+([0-9])", r"\1")
    return text


def _matrix(column: Column, cells: pa.Array, width: int) -> tuple[Bytes, Bools | None]:
    """The cells that are not NULL as (rows, width) bytes, and which rows they are."""
    offsets, data = offsets_and_data(cells)
    sizes = np.diff(offsets)
    valid = validity(cells)
    if ((sizes if valid is None else sizes[valid]) != width).any():
        raise _unreadable(column)
    return data.reshape(-1, width), valid


def _digits(matrix: Bytes, start: int, stop: int) -> Ints:
    total = np.zeros(len(matrix), np.int64)
    for at in range(start, stop):
        total *= 10
        total += matrix[:, at] - _ZERO
    return total


def _check(column: Column, matrix: Bytes, punctuation: dict[int, str]) -> None:
    """Raises unless the cells have these characters at these places and digits elsewhere."""
    expected = np.zeros(matrix.shape[1], np.uint8)
    for at, character in punctuation.items():
        expected[at] = ord(character)
    digit = expected == 0
    if ((matrix[:, digit] - _ZERO) > 9).any() or (matrix[:, ~digit] != expected[~digit]).any():
        raise _unreadable(column)


def _spread_days(matrix: Bytes, valid: Bools | None) -> Days:
    month = _digits(matrix, 5, 7)
    found = days(_digits(matrix, 0, 4), np.minimum(month, 13), _digits(matrix, 8, 10))
    exist = None if found.exist is None else scatter(found.exist, valid)
    return Days(scatter(found.values, valid), exist)


def _date(column: Column, cells: pa.Array) -> pa.Array:
    matrix, valid = _matrix(column, cells, 10)
    _check(column, matrix, {4: "-", 7: "-"})
    return date_array(_spread_days(matrix, valid), valid)


def _datetime(column: Column, cells: pa.Array) -> pa.Array:
    fraction = column.fraction
    matrix, valid = _matrix(column, cells, 20 + fraction if fraction else 19)
    _check(column, matrix, {4: "-", 7: "-", 10: " ", 13: ":", 16: ":"} | ({19: "."} if fraction else {}))
    time = _digits(matrix, 11, 13) * 3600 + _digits(matrix, 14, 16) * 60 + _digits(matrix, 17, 19)
    time = time * SECOND + _digits(matrix, 20, 20 + fraction) * 10 ** (6 - fraction)
    return datetime_array(_spread_days(matrix, valid), scatter(time, valid), valid)


def _time(column: Column, cells: pa.Array) -> pa.Array:
    """[-]h{2,3}:mm:ss[.f]: read from the end, with a "0" for a third digit of the hour that is not there."""
    tail = 7 + column.fraction if column.fraction else 6
    offsets, data = offsets_and_data(cells)
    valid = validity(cells)
    sizes = np.diff(offsets) if valid is None else np.diff(offsets)[valid]
    if (sizes < tail + 2).any():
        raise _unreadable(column)
    ends = np.cumsum(sizes)
    negative = data[ends - sizes] == ord("-")
    hours = sizes - negative - tail
    if ((hours != 2) & (hours != 3)).any():
        raise _unreadable(column)
    # before the first cell there is nothing: -1 takes any byte, which the "0" then replaces
    matrix = data[(ends - tail - 3)[:, None] + np.arange(tail + 3)]
    matrix[hours == 2, 0] = _ZERO
    _check(column, matrix, {3: ":", 6: ":"} | ({9: "."} if column.fraction else {}))
    value = (_digits(matrix, 0, 3) * 3600 + _digits(matrix, 4, 6) * 60 + _digits(matrix, 7, 9)) * SECOND
    value += _digits(matrix, 10, tail + 3) * 10 ** (6 - column.fraction)
    return primitive(arrow_type(column), scatter(np.where(negative, -value, value), valid), valid)


def _bit(column: Column, cells: pa.Array) -> pa.Array:
    kind = arrow_type(column)
    width = ((column.precision or 0) + 7) // 8
    matrix, valid = _matrix(column, cells, width)
    if valid is not None:
        spread = np.zeros((len(valid), width), np.uint8)
        spread[valid] = matrix
        matrix = spread
    return bits_from_binary(matrix, kind, valid)


def _text(_column: Column, cells: pa.Array) -> pa.Array:
    return strings(cells)


def _wkb(_column: Column, cells: pa.Array) -> pa.Array:
    return wkb_array(cells)


def _vector(column: Column, cells: pa.Array) -> pa.Array:
    return vector_array(column.name, cells)


_READERS: dict[str, Reader] = {
    **dict.fromkeys(
        ("tinyint", "smallint", "mediumint", "int", "bigint", "year", "float", "double"), _number
    ),
    "decimal": _decimal,
    "bit": _bit,
    "date": _date,
    "datetime": _datetime,
    "timestamp": _datetime,
    "time": _time,
    **dict.fromkeys((*TEXTS, "json", "uuid", "inet4", "inet6"), _text),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), blob_array),
    **dict.fromkeys(GEOMETRIES, _wkb),
    "vector": _vector,
}
