"""Values of row images, a column at a time, to Arrow.

`fixed_column` and `prefixed_column` return exactly `arrow_type(target)`; arrays may share the memory of the
cells, which must not change afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from cdc.errors import SchemaMismatchError
from cdc.schema import Column
from cdc.types import DECIMAL_DIGITS, GEOMETRIES, arrow_type
from cdc.values.arrays import Bools, Bytes, RawCells, by_distinct, listed
from cdc.values.binlog_column import (
    BinlogColumn,
    FieldType,
    Fixed,
    Prefixed,
    binlog_column,
    meta_length,
    storage,
)
from cdc.values.charsets import text_array
from cdc.values.compressed import inflate
from cdc.values.decimals import decimal_array, decimal_text_array
from cdc.values.json_binary import json_text
from cdc.values.members import enum_array, set_array
from cdc.values.network import inet4_array, inet6_array, uuid_array
from cdc.values.numbers import bits_from_binary, flags, float_from_binary, integer_from_binary
from cdc.values.shapes import blob_array, vector_array, wkb_array
from cdc.values.temporal import (
    date_from_binary,
    datetime_from_binary,
    time_from_binary,
    timestamp_from_binary,
    year_from_binary,
)
from cdc.values.zero_dates import check_dates

__all__ = [
    "BinlogColumn",
    "FieldType",
    "Fixed",
    "Prefixed",
    "binlog_column",
    "fixed_column",
    "meta_length",
    "prefixed_column",
    "storage",
]

FixedReader = Callable[[Column, BinlogColumn, Bytes, Bools | None], pa.Array]
PrefixedReader = Callable[[Column, BinlogColumn, RawCells], pa.Array]


def fixed_column(target: Column, source: BinlogColumn, cells: Bytes, valid: Bools | None) -> pa.Array:
    """A column of fixed-width values: `cells` is (rows, width); `valid` None means no NULLs.

    Bytes under a NULL are ignored. Raises SchemaMismatchError where the binary log's type is not the
    target's, ValueDecodeError for a value that the target can't hold.
    """
    reader = _FIXED.get((target.data_type, source.type_code))
    if reader is None or cells.shape[1] != source.width:
        raise _mismatch(target, source)
    array = reader(target, source, np.ascontiguousarray(cells), valid)
    if target.choice == "no_zero_dates":
        check_dates(target, array, 0 if valid is None else int(np.count_nonzero(~valid)))
    return array


def prefixed_column(target: Column, source: BinlogColumn, cells: RawCells) -> pa.Array:
    """A column of values with a length before them. Errors as in `fixed_column`."""
    reader = _PREFIXED.get((target.data_type, source.type_code))
    if reader is None:
        raise _mismatch(target, source)
    return reader(target, source, cells)


def _mismatch(target: Column, source: BinlogColumn) -> SchemaMismatchError:
    return SchemaMismatchError(
        f"Column {target.name} is {target.column_type} in the copy, but has type {source.type_code} "
        f"of {source.width or source.max_length} bytes in the binary log.",
        hint="copy the table again",
    )


def _integer(target: Column, source: BinlogColumn, cells: Bytes, valid: Bools | None) -> pa.Array:
    if target.unsigned != source.unsigned:
        raise _mismatch(target, source)
    if target.choice == "boolean":
        return flags(integer_from_binary(cells, pa.int8(), valid))
    return integer_from_binary(cells, arrow_type(target), valid)


def _floating(target: Column, _source: BinlogColumn, cells: Bytes, valid: Bools | None) -> pa.Array:
    return float_from_binary(cells, arrow_type(target), valid)


def _decimal(target: Column, source: BinlogColumn, cells: Bytes, valid: Bools | None) -> pa.Array:
    if (source.precision, source.scale) != (target.precision, target.scale or 0):
        raise _mismatch(target, source)
    if source.precision > DECIMAL_DIGITS:
        return decimal_text_array(source.precision, source.scale, cells, valid)
    return decimal_array(source.precision, source.scale, arrow_type(target), cells, valid)


def _bit(target: Column, source: BinlogColumn, cells: Bytes, valid: Bools | None) -> pa.Array:
    if source.bits != target.precision:
        raise _mismatch(target, source)
    return bits_from_binary(cells, arrow_type(target), valid)


def _enum(target: Column, source: BinlogColumn, cells: Bytes, valid: Bools | None) -> pa.Array:
    return enum_array(target.name, source.members or target.members, cells, valid)


def _set(target: Column, source: BinlogColumn, cells: Bytes, valid: Bools | None) -> pa.Array:
    return set_array(target.name, source.members or target.members, cells, valid)


def _bytes_alone(convert: Callable[[Bytes, Bools | None], pa.Array]) -> FixedReader:
    """A reader that needs nothing of the column but its bytes."""
    return lambda _target, _source, cells, valid: convert(cells, valid)


def _cells_alone(convert: Callable[[RawCells], pa.Array]) -> PrefixedReader:
    """A reader that needs nothing of the column but its cells."""
    return lambda _target, _source, cells: convert(cells)


def _inflated(source: BinlogColumn, cells: RawCells) -> RawCells:
    if source.type_code not in (FieldType.VARCHAR_COMPRESSED, FieldType.BLOB_COMPRESSED):
        return cells
    return [None if cell is None else inflate(cell) for cell in listed(cells)]


def _text(target: Column, source: BinlogColumn, cells: RawCells) -> pa.Array:
    return text_array(_inflated(source, cells), source.character_set or target.character_set)


def _blob(target: Column, source: BinlogColumn, cells: RawCells) -> pa.Array:
    return blob_array(target, _inflated(source, cells))


def _json(_target: Column, _source: BinlogColumn, cells: RawCells) -> pa.Array:
    return by_distinct(listed(cells), json_text, pa.string())


def _vector(target: Column, _source: BinlogColumn, cells: RawCells) -> pa.Array:
    return vector_array(target.name, cells)


_FIXED: dict[tuple[str, int], FixedReader] = {
    ("tinyint", FieldType.TINY): _integer,
    ("smallint", FieldType.SHORT): _integer,
    ("mediumint", FieldType.INT24): _integer,
    ("int", FieldType.LONG): _integer,
    ("bigint", FieldType.LONGLONG): _integer,
    ("float", FieldType.FLOAT): _floating,
    ("double", FieldType.DOUBLE): _floating,
    ("decimal", FieldType.NEWDECIMAL): _decimal,
    ("bit", FieldType.BIT): _bit,
    ("enum", FieldType.ENUM): _enum,
    ("set", FieldType.SET): _set,
    ("date", FieldType.DATE): _bytes_alone(date_from_binary),
    ("date", FieldType.NEWDATE): _bytes_alone(date_from_binary),
    ("datetime", FieldType.DATETIME2): _bytes_alone(datetime_from_binary),
    ("timestamp", FieldType.TIMESTAMP2): _bytes_alone(timestamp_from_binary),
    ("time", FieldType.TIME2): _bytes_alone(time_from_binary),
    ("year", FieldType.YEAR): _bytes_alone(year_from_binary),
}

_BLOBS = (
    FieldType.BLOB,
    FieldType.TINY_BLOB,
    FieldType.MEDIUM_BLOB,
    FieldType.LONG_BLOB,
    FieldType.BLOB_COMPRESSED,
)
_PREFIXED: dict[tuple[str, int], PrefixedReader] = {
    ("char", FieldType.STRING): _text,
    ("varchar", FieldType.VARCHAR): _text,
    ("varchar", FieldType.VAR_STRING): _text,
    ("varchar", FieldType.VARCHAR_COMPRESSED): _text,
    ("binary", FieldType.STRING): _blob,
    ("varbinary", FieldType.VARCHAR): _blob,
    ("varbinary", FieldType.VAR_STRING): _blob,
    ("varbinary", FieldType.VARCHAR_COMPRESSED): _blob,
    **{(f"{size}text", code): _text for size in ("tiny", "", "medium", "long") for code in _BLOBS},
    **{(f"{size}blob", code): _blob for size in ("tiny", "", "medium", "long") for code in _BLOBS},
    **{(name, FieldType.GEOMETRY): _cells_alone(wkb_array) for name in GEOMETRIES},
    ("json", FieldType.JSON): _json,
    ("vector", FieldType.VECTOR): _vector,
    ("vector", FieldType.VARCHAR): _vector,  # MariaDB 11.7
    ("uuid", FieldType.STRING): _cells_alone(uuid_array),
    ("inet4", FieldType.STRING): _cells_alone(inet4_array),
    ("inet6", FieldType.STRING): _cells_alone(inet6_array),
}
