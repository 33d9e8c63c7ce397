"""By what a table is followed: a timestamp column, a growing key, or its checksum."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.replica.watermarks import Kind
from cdc.schema import Column, Table
from cdc.types import DATES

COLUMNS = ("updatedat", "updated_at", "modifiedat", "modified_at", "createdat", "created_at", "timestamp")
"""Names of timestamp columns in lower case, the best first."""
_TOUCHED = frozenset(COLUMNS[:4])
"""Those that an update is expected to move."""
_COMPARABLE = frozenset(
    {
        *("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "char", "varchar", "uuid"),
        *("binary", "varbinary", "date", "datetime", "timestamp"),
    }
)
"""Types whose values compare, as literals, in the order that ORDER BY gives them. ENUM, SET and BIT don't, and
a FLOAT's literal need not equal it."""
_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})


@dataclass(frozen=True, slots=True)
class Traits:
    """What a watermark needs to know of a table beside its definition.

    `growing` is its AUTO_INCREMENT column, if any; `leading` are columns that an index begins with.
    """

    growing: str | None = None
    leading: frozenset[str] = frozenset()
    created: str = ""


@dataclass(frozen=True, slots=True)
class Followed:
    """A table and what it is followed by: `column` is the timestamp's or the growing key's; `shape` is the
    table's fingerprint."""

    table: Table
    kind: Kind
    column: Column | None
    traits: Traits
    shape: str

    @property
    def indexed(self) -> bool:
        """Whether the source finds the greatest value without reading the table."""
        return self.column is not None and self.column.name in self.traits.leading

    @property
    def sees_updates(self) -> bool:
        """Whether changed rows are found, not new ones alone."""
        return self.kind == "checksum" or (
            self.kind == "timestamp" and self.column is not None and self.column.name.lower() in _TOUCHED
        )

    @property
    def comparable_key(self) -> bool:
        """Whether a pass can go on behind a row by comparing with its key."""
        return bool(self.table.primary_key) and all(
            self.table.column(name).data_type in _COMPARABLE for name in self.table.primary_key
        )


def choose(table: Table, traits: Traits) -> Followed:
    """By what `table` is followed.

    The column must be a DATE, DATETIME or TIMESTAMP, and the table must have a primary key, by which rows are
    replaced. Without such a column it is a single AUTO_INCREMENT key, and without that the checksum.
    """
    shape = table.fingerprint()
    if table.primary_key:
        named = {column.name.lower(): column for column in table.columns if column.data_type in DATES}
        for name in COLUMNS:
            if name in named:
                return Followed(table, "timestamp", named[name], traits, shape)
        if table.primary_key == (traits.growing,):
            column = table.column(table.primary_key[0])
            if column.data_type in _INTEGERS:
                return Followed(table, "key", column, traits, shape)
    return Followed(table, "checksum", None, traits, shape)
