"""Columns for generated tests: what the source has, types to choose from, and values for each."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pymysql

from cdc.schema import quote_mysql


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """One column as information_schema has it; names in lower case but for `name`."""

    name: str
    data_type: str
    column_type: str
    nullable: bool
    generated: bool
    key: bool
    automatic: bool


@dataclass(frozen=True, slots=True)
class SourceTable:
    """One base table: its columns in order, and its partitions."""

    name: str
    columns: tuple[SourceColumn, ...]
    partitions: tuple[str, ...]

    @property
    def quoted(self) -> str:
        """The name in backticks."""
        return quote_mysql(self.name)

    @property
    def key(self) -> tuple[str, ...]:
        """The columns of the primary key, in the table's order."""
        return tuple(column.name for column in self.columns if column.key)


def read_tables(connection: pymysql.Connection) -> list[SourceTable]:
    """The base tables of the session's database, by name."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.TABLE_NAME, c.COLUMN_NAME, c.DATA_TYPE, c.COLUMN_TYPE, c.IS_NULLABLE, c.EXTRA,"
            " c.COLUMN_KEY FROM information_schema.COLUMNS c JOIN information_schema.TABLES t"
            " USING (TABLE_SCHEMA, TABLE_NAME)"
            " WHERE c.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE = 'BASE TABLE'"
            " ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION"
        )
        columns: dict[str, list[SourceColumn]] = {}
        for table, name, data_type, column_type, nullable, extra, key in cursor.fetchall():
            words = str(extra).upper()
            columns.setdefault(str(table), []).append(
                SourceColumn(
                    str(name),
                    str(data_type).lower(),
                    _text(column_type),
                    nullable == "YES",
                    bool(re.search(r"\b(VIRTUAL|STORED|PERSISTENT)\b", words)),
                    key == "PRI",
                    "AUTO_INCREMENT" in words,
                )
            )
        cursor.execute(
            "SELECT TABLE_NAME, PARTITION_NAME FROM information_schema.PARTITIONS WHERE"
            " TABLE_SCHEMA = DATABASE() AND PARTITION_NAME IS NOT NULL"
            " ORDER BY TABLE_NAME, PARTITION_ORDINAL_POSITION"
        )
        partitions: dict[str, list[str]] = {}
        for table, partition in cursor.fetchall():
            partitions.setdefault(str(table), []).append(str(partition))
    return [
        SourceTable(name, tuple(found), tuple(partitions.get(name, ()))) for name, found in columns.items()
    ]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


TYPES = (
    "INT",
    "INT UNSIGNED",
    "BIGINT",
    "TINYINT",
    "SMALLINT UNSIGNED",
    "MEDIUMINT",
    "BOOLEAN",
    "VARCHAR(40)",
    "VARCHAR(10)",
    "VARCHAR(300)",
    "VARCHAR(20) CHARACTER SET latin1",
    "VARCHAR(30) COLLATE utf8mb4_bin",
    "CHAR(6)",
    "TEXT",
    "VARBINARY(40)",
    "BINARY(4)",
    "BLOB",
    "DECIMAL(12,3)",
    "DECIMAL(6,1)",
    "FLOAT",
    "DOUBLE",
    "DATE",
    "DATETIME",
    "DATETIME(3)",
    "TIMESTAMP NULL",
    "TIMESTAMP(6) NULL",
    "TIME(2)",
    "YEAR",
    "BIT(9)",
    "JSON",
    "ENUM('red','green','blue')",
    "ENUM('blue','red','green','a b')",
    "SET('x','y','z')",
    "SET('z','y','x')",
)

_VALUES: dict[str, tuple[str, ...]] = {
    "int": ("0", "1", "-7", "41", "2000000", "2147483647"),
    "char": ("'a'", "'B'", "''", "'ß'", "'12'", "'red'", "'2024-02-29'", "'x''y'"),
    "text": ("'text'", "'🛒'", "''", "'12.5'", "'[1, 2]'"),
    "binary": ("X'00'", "X'6100'", "'ab'", "X'FF'"),
    "blob": ("X'00FF'", "'blob'"),
    "number": ("0", "1.5", "-2.25", "99.9", "12345.6"),
    "date": ("'2024-02-29'", "'1999-12-31'"),
    "datetime": ("'2024-02-29 23:59:58.75'", "'2001-01-01 00:00:00'"),
    "time": ("'-12:30:00.5'", "'23:59:59'", "'100:00:00'"),
    "year": ("2024", "1999"),
    "bit": ("0", "1", "257"),
    "json": ("'{\"a\": [1, null]}'", "'[true]'", "'7'"),
}
_KINDS = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint"), "int"),
    **dict.fromkeys(("char", "varchar"), "char"),
    **dict.fromkeys(("tinytext", "text", "mediumtext", "longtext"), "text"),
    **dict.fromkeys(("binary", "varbinary"), "binary"),
    **dict.fromkeys(("tinyblob", "blob", "mediumblob", "longblob"), "blob"),
    **dict.fromkeys(("decimal", "float", "double"), "number"),
    **dict.fromkeys(("datetime", "timestamp"), "datetime"),
}


def literal(column_type: str, seed: int) -> str:
    """A value that suits the type, as SQL; `seed` chooses."""
    kind = re.match(r"\w+", column_type.lower())
    assert kind is not None
    word = "tinyint" if kind[0] == "boolean" else kind[0]
    if word in ("enum", "set"):
        members = re.findall(r"'[^']*'", column_type)
        return str(members[seed % len(members)])
    if word == "tinyint":
        return ("0", "1", "-7", "100")[seed % 4]
    values = _VALUES[_KINDS.get(word, word)]
    return values[seed % len(values)]
