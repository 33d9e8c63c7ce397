"""Tables and columns of the source, as its catalogue describes them: shared words without I/O."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import orjson

Choice = Literal["", "boolean", "enum", "no_zero_dates"]
"""How a column is kept where there is a choice (`cdc.types.TypeChoices`); "" is the default."""


def quote_mysql(name: str) -> str:
    """`name` as a MySQL identifier: in backticks, backticks doubled."""
    return "`" + name.replace("`", "``") + "`"


def quote_duckdb(name: str) -> str:
    """`name` as a DuckDB identifier: in double quotes, double quotes doubled."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class NameCase:
    """How the server tells names of schemas and tables apart: lower_case_table_names.

    0 (Linux): `t` and `T` are two tables; 1 and 2: they are one. Column names never differ by case.
    """

    folds: bool = False

    def key(self, name: str) -> str:
        """What two spellings of one name have in common."""
        return name.lower() if self.folds else name


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Fields follow information_schema.COLUMNS; MySQL and MariaDB give the same meaning.

    `data_type` is DATA_TYPE in lower case ("bigint", "varchar", "enum", …); `column_type` is COLUMN_TYPE
    as the server prints it ("bigint unsigned"); `length` counts characters (bytes for binary types);
    `fraction` is the number of fractional digits of a temporal type; `members` are those of ENUM or SET.
    `choice` is ours: it belongs to the definition, so that rows of one choice never meet those of another.
    """

    name: str
    data_type: str
    column_type: str
    nullable: bool = True
    character_set: str | None = None
    collation: str | None = None
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    fraction: int = 0
    members: tuple[str, ...] = ()
    generated: bool = False
    invisible: bool = False
    srid: int | None = None
    choice: Choice = ""

    @property
    def unsigned(self) -> bool:
        """True for UNSIGNED (and ZEROFILL, which implies it)."""
        words = self.column_type.lower().split()
        return "unsigned" in words or "zerofill" in words


@dataclass(frozen=True, slots=True)
class Table:
    """One table. `primary_key` is in key order, empty where there is none; `row_estimate` is the server's.

    `collation` is the table's default, which columns to come get; None where it is not known. `key_index` is ours:
    whether the copy has DuckDB's index of the primary key, where it can. Rows are the same with it and without.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    engine: str = "InnoDB"
    row_estimate: int = 0
    collation: str | None = None
    key_index: bool = field(default=True, compare=False)

    def column(self, name: str) -> Column:
        """The column called `name`, in any case. Raises KeyError."""
        folded = name.casefold()
        for column in self.columns:
            if column.name.casefold() == folded:
                return column
        raise KeyError(name)

    @property
    def transactional(self) -> bool:
        """Whether a consistent snapshot covers the table."""
        return self.engine.lower() in {"innodb", "rocksdb", "tokudb", "ndbcluster"}

    @property
    def source_name(self) -> str:
        """Schema and name, quoted for MySQL."""
        return f"{quote_mysql(self.schema)}.{quote_mysql(self.name)}"

    def fingerprint(self) -> str:
        """A short hash of names, types and key: equal where rows of one fit the other."""
        columns = [(c.name, c.column_type.lower(), c.character_set, c.choice) for c in self.columns]
        shape = [self.primary_key, columns]
        return hashlib.sha256(orjson.dumps(shape)).hexdigest()[:16]

    def to_json(self) -> str:
        """All fields as JSON text, for the bookkeeping; as before there was a choice where the index is kept."""
        fields = asdict(self)
        if self.key_index:
            del fields["key_index"]
        return orjson.dumps(fields).decode()

    @classmethod
    def from_json(cls, text: str) -> Table:
        """The table that `to_json` wrote."""
        fields: dict[str, Any] = orjson.loads(text)
        columns = tuple(Column(**{**c, "members": tuple(c["members"])}) for c in fields.pop("columns"))
        return cls(**{**fields, "columns": columns, "primary_key": tuple(fields["primary_key"])})
