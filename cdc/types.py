"""The one type map: what a MySQL or MariaDB column becomes in DuckDB, for the copy and the stream alike."""

from __future__ import annotations

import pyarrow as pa

from cdc.errors import ValueDecodeError
from cdc.schema import Column, quote_mysql
from cdc.values.charsets import supported_charset

DECIMAL_DIGITS = 38
"""Most digits of a DuckDB DECIMAL; MySQL has up to 65 (a wider column becomes VARCHAR, exact)."""

_INTEGERS = {
    "tinyint": ("TINYINT", pa.int8(), pa.uint8()),
    "smallint": ("SMALLINT", pa.int16(), pa.uint16()),
    "mediumint": ("INTEGER", pa.int32(), pa.uint32()),
    "int": ("INTEGER", pa.int32(), pa.uint32()),
    "bigint": ("BIGINT", pa.int64(), pa.uint64()),
}
_BITS = (
    (8, "UTINYINT", pa.uint8()),
    (16, "USMALLINT", pa.uint16()),
    (32, "UINTEGER", pa.uint32()),
    (64, "UBIGINT", pa.uint64()),
)
TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"})
"""Types that have a character set."""
GEOMETRIES = frozenset(
    {
        "geometry",
        "point",
        "linestring",
        "polygon",
        "multipoint",
        "multilinestring",
        "multipolygon",
        "geometrycollection",
        "geomcollection",
    }
)
_FIXED = {
    "float": ("FLOAT", pa.float32()),
    "double": ("DOUBLE", pa.float64()),
    "date": ("DATE", pa.date32()),
    "datetime": ("TIMESTAMP", pa.timestamp("us")),
    "timestamp": ("TIMESTAMP", pa.timestamp("us")),
    "time": ("INTERVAL", pa.duration("us")),
    "year": ("SMALLINT", pa.int16()),
    "json": ("JSON", pa.string()),
    "vector": ("FLOAT[]", pa.list_(pa.float32())),
    **dict.fromkeys(TEXTS, ("VARCHAR", pa.string())),
    **dict.fromkeys(("uuid", "inet4", "inet6"), ("VARCHAR", pa.string())),
    **dict.fromkeys(
        ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), ("BLOB", pa.binary())
    ),
    **dict.fromkeys(GEOMETRIES, ("BLOB", pa.binary())),
}
_OLD_FORMATS = ("/* mariadb-5.3 */", "/* 5.5 binary format */", "/* old */")


def bit_length(column: Column) -> int:
    """n of a BIT(n) column, 1 to 64."""
    if column.precision is None:
        raise ValueDecodeError(f"The length of BIT column {column.name} is unknown.")
    return column.precision


def _decimal(column: Column) -> tuple[int, int]:
    if column.precision is None:
        raise ValueDecodeError(f"The precision of DECIMAL column {column.name} is unknown.")
    return column.precision, column.scale or 0


def _map(column: Column) -> tuple[str, pa.DataType]:
    kind = column.data_type
    if (fixed := _FIXED.get(kind)) is not None:
        return fixed
    if (integer := _INTEGERS.get(kind)) is not None:
        name, signed, unsigned = integer
        return ("U" + name, unsigned) if column.unsigned else (name, signed)
    if kind == "decimal":
        precision, scale = _decimal(column)
        if precision <= DECIMAL_DIGITS:
            return f"DECIMAL({precision},{scale})", pa.decimal128(precision, scale)
        return "VARCHAR", pa.string()
    if kind == "bit":
        length = bit_length(column)
        for limit, name, arrow in _BITS:
            if length <= limit:
                return name, arrow
    raise ValueDecodeError(
        f"Column {column.name} has type {kind}, which has no counterpart in DuckDB.",
        hint="exclude the table, or change the column's type",
    )


def duckdb_type(column: Column) -> str:
    """The column's SQL type in the replica.

    TIME becomes INTERVAL, because it spans -838:59:59 to 838:59:59 (DuckDB's TIME is a time of day).
    Raises ValueDecodeError for a type without a counterpart (`unsupported` tells beforehand).
    """
    return _map(column)[0]


def arrow_type(column: Column) -> pa.DataType:
    """The Arrow type of the column's values, by copy and by stream; DuckDB reads it as `duckdb_type`.

    JSON travels as its text. Raises ValueDecodeError as `duckdb_type` does.
    """
    return _map(column)[1]


def select_expression(column: Column) -> str:
    """What the copy selects, so that the text protocol carries the exact value.

    FLOAT prints six digits only (MySQL manual, "Problems with Floating-Point Values"), FLOAT(m,d),
    DOUBLE(m,d) and ZEROFILL print as they are declared; times 1e0 is the value as a full double, and keeps
    the sign of zero, which "+ 0e0" would not.
    """
    name = quote_mysql(column.name)
    if column.data_type == "float":
        return f"{name} * 1e0"
    if column.data_type == "double" and column.column_type.lower() != "double":
        return f"{name} * 1e0"
    return name


def unsupported(column: Column) -> str | None:
    """Why the column can't be replicated exactly, as a clause for preflight; None where it can."""
    kind = column.data_type
    if kind not in _FIXED and kind not in _INTEGERS and kind not in {"decimal", "bit"}:
        return f"type {kind} has no counterpart in DuckDB"
    if any(mark in column.column_type.lower() for mark in _OLD_FORMATS) and kind not in {"enum", "set"}:
        return f"{kind} is stored in a format of an older server; rebuild the table (ALTER TABLE … FORCE)"
    charset = column.character_set
    if kind in TEXTS and charset is not None and not supported_charset(charset):
        return f"character set {charset} is not known"
    return None
