"""The one type map: what a MySQL or MariaDB column becomes in DuckDB, for the copy and the stream alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

from cdc.config import Settings
from cdc.errors import ValueDecodeError
from cdc.schema import Choice, Column, Table, quote_mysql
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
DATES = frozenset({"date", "datetime", "timestamp"})
"""Types that hold dates which the calendar lacks: '0000-00-00', '2024-00-00', '2024-02-31', year 0."""
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
    **dict.fromkeys(GEOMETRIES, ("GEOMETRY", pa.binary())),
}
_OLD_FORMATS = ("/* mariadb-5.3 */", "/* 5.5 binary format */", "/* old */")
_BEYOND_UTF8MB3 = frozenset({"utf8mb4", "utf16", "utf16le", "utf32", "gb18030"})


@dataclass(frozen=True, slots=True)
class TypeChoices:
    """What the settings of the same names choose; `applied_to` writes it into a table's columns.

    From there it is part of the recorded definition: a table whose columns a changed setting concerns does
    not equal its record any more and is copied again.
    """

    tinyint1: Literal["integer", "boolean"] = "integer"
    enum: Literal["varchar", "enum"] = "varchar"
    zero_dates: Literal["null", "error"] = "null"

    @classmethod
    def of(cls, settings: Settings) -> TypeChoices:
        """The choices that `settings` hold."""
        return cls(settings.tinyint1, settings.enum, settings.zero_dates)

    def applied_to(self, table: Table) -> Table:
        """`table` with the choice of each column.

        In a primary key TINYINT(1) stays an integer, and a zero date is an error: keys that differ must
        not become one, and DuckDB's keys hold no NULL.
        """
        key = {name.casefold() for name in table.primary_key}
        return replace(
            table,
            columns=tuple(
                replace(column, choice=self._choice(column, in_key=column.name.casefold() in key))
                for column in table.columns
            ),
        )

    def _choice(self, column: Column, *, in_key: bool) -> Choice:
        if column.data_type in DATES and (in_key or self.zero_dates == "error"):
            return "no_zero_dates"
        if _is_flag(column) and self.tinyint1 == "boolean" and not in_key:
            return "boolean"
        if column.data_type == "enum" and self.enum == "enum" and _members_known(column):
            return "enum"
        return ""


def _is_flag(column: Column) -> bool:
    """TINYINT(1), which BOOL is short for; an unsigned one is a number."""
    return column.column_type.lower() == "tinyint(1)"


def _members_known(column: Column) -> bool:
    """Whether the catalogue tells all members apart.

    It prints them in utf8mb3, where a character beyond U+FFFF is "?".
    """
    exact = column.character_set not in _BEYOND_UTF8MB3 or not any("?" in m for m in column.members)
    return exact and len(set(column.members)) == len(column.members)


def bit_length(column: Column) -> int:
    """n of a BIT(n) column, 1 to 64."""
    if column.precision is None:
        raise ValueDecodeError(f"The length of BIT column {column.name} is unknown.")
    return column.precision


def _decimal(column: Column) -> tuple[int, int]:
    if column.precision is None:
        raise ValueDecodeError(f"The precision of DECIMAL column {column.name} is unknown.")
    return column.precision, column.scale or 0


def _enum(members: tuple[str, ...]) -> str:
    """ENUM in the order of definition; before all '', which MySQL keeps for a value that was no member."""
    texts = members if "" in members else ("", *members)
    return "ENUM(" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + ")"


def _map(column: Column) -> tuple[str, pa.DataType]:
    kind = column.data_type
    if column.choice == "boolean":
        return "BOOLEAN", pa.bool_()
    if column.choice == "enum":
        return _enum(column.members), pa.string()
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


def row_schema(table: Table) -> pa.Schema:
    """The Arrow schema of a table's rows on their way into DuckDB: columns in the table's order, called c0,
    c1, … so that no name can collide with one of ours.
    """
    return pa.schema([(f"c{i}", arrow_type(column)) for i, column in enumerate(table.columns)])


def comment(column: Column) -> str:
    """The column as the source declares it, for DuckDB's comment on it.

    Its MySQL type; its character set where that is not utf8mb4, and its collation, which decides what the
    source takes for equal; the spatial reference that all its values have; and whether it is generated or
    invisible.
    """
    words = [column.column_type]
    if column.data_type in TEXTS and column.character_set is not None:
        if column.character_set != "utf8mb4":
            words.append(f"CHARACTER SET {column.character_set}")
        if column.collation is not None:
            words.append(f"COLLATE {column.collation}")
    if column.data_type in GEOMETRIES and column.srid is not None:
        words.append(f"SRID {column.srid}")
    if column.generated:
        words.append("GENERATED")
    if column.invisible:
        words.append("INVISIBLE")
    return " ".join(words)


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
