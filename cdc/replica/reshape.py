"""A replicated table in another shape, made in the caller's transaction: in place, or through a new table.

DuckDB 2.0 adds columns at the end only, drops none that stands before a column of the primary key, and neither
adds nor drops a key: what it can't do in place is written into a new table, which takes the old one's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from cdc.replica.tables import create, has_key_index, set_comment
from cdc.schema import Column, Table, quote_duckdb
from cdc.types import comment, duckdb_type

_REBUILT_PREFIX = "__duckling_rebuilt__"
_ASIDE_PREFIX = "__duckling_renamed__"


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """Where the values of a new column come from: `expression` in SQL over the old table.

    `old` is the column that goes on under this definition; None for one that is added.
    """

    old: str | None
    expression: str


def literal(type_name: str, value: pa.Array) -> str:
    """The one value of an Arrow array as SQL of DuckDB's `type_name`."""
    found = value[0].as_py()
    if found is None:
        return f"NULL::{type_name}"
    text = "".join(f"\\x{byte:02X}" for byte in found) if isinstance(found, bytes) else str(found)
    return "'" + text.replace("'", "''") + f"'::{type_name}"


def rename(cursor: duckdb.DuckDBPyConnection, old: str, new: str) -> None:
    """Gives a table another name."""
    cursor.execute(f"ALTER TABLE {quote_duckdb(old)} RENAME TO {quote_duckdb(new)}")


def rename_together(cursor: duckdb.DuckDBPyConnection, names: Mapping[str, str]) -> None:
    """Gives tables other names, `names` by their old ones, all at once: swaps and chains too."""
    taken = {new.encode().lower() for new in names.values()}
    moves: dict[str, str] = {}
    for number, (old, new) in enumerate(names.items()):
        if old == new:
            continue
        if old.encode().lower() in taken:  # it stands in another one's way
            aside = f"{_ASIDE_PREFIX}{number}"
            rename(cursor, old, aside)
            old = aside
        moves[old] = new
    for old, new in moves.items():
        rename(cursor, old, new)


def reshape(
    cursor: duckdb.DuckDBPyConnection, old: Table, new: Table, sources: Sequence[ColumnSource]
) -> bool:
    """Makes the table `old` look like `new`, whose columns come from `sources`; the name stays.

    True where that took a new table, False where the old one was altered or already was as `new`.
    """
    if _can_alter(old, new, sources):
        _alter(cursor, old, new, sources)
        return False
    name, rebuilt = quote_duckdb(old.name), _REBUILT_PREFIX + old.name
    create(cursor, new, rebuilt)
    values = ", ".join(source.expression for source in sources)
    cursor.execute(f"INSERT INTO {quote_duckdb(rebuilt)} SELECT {values} FROM {name}")
    cursor.execute(f"DROP TABLE {name}")
    rename(cursor, rebuilt, old.name)
    return True


def _can_alter(old: Table, new: Table, sources: Sequence[ColumnSource]) -> bool:
    kept = [source.old for source in sources if source.old is not None]
    order = [column.name for column in old.columns if column.name in kept]
    added_last = [source.old for source in sources[: len(kept)]] == kept
    if kept != order or not kept or not added_last:
        return False
    names = {source.old: column for source, column in zip(sources, new.columns, strict=True) if source.old}
    if [names[name].name for name in old.primary_key if name in names] != list(new.primary_key):
        return False
    if len(old.primary_key) != len(new.primary_key) or has_key_index(old) != has_key_index(new):
        return False
    if any(
        source.old is not None and source.expression != quote_duckdb(source.old) for source in sources
    ) or not _renames_apart(old, names):
        return False
    places = {column.name: place for place, column in enumerate(old.columns)}
    last_key = max((places[name] for name in old.primary_key), default=-1) if has_key_index(old) else -1
    dropped = [name for name in places if name not in kept]
    return all(places[name] > last_key for name in dropped)


def _renames_apart(old: Table, names: dict[str, Column]) -> bool:
    """Whether no column takes a name that another one had: they could not be renamed one by one."""
    before = {column.name.casefold() for column in old.columns}
    return all(
        column.name.casefold() == name.casefold() or column.name.casefold() not in before
        for name, column in names.items()
    )


def _alter(
    cursor: duckdb.DuckDBPyConnection, old: Table, new: Table, sources: Sequence[ColumnSource]
) -> None:
    table = f"ALTER TABLE {quote_duckdb(old.name)}"
    kept = {source.old for source in sources}
    for column in old.columns:
        if column.name not in kept:
            cursor.execute(f"{table} DROP COLUMN {quote_duckdb(column.name)}")
    for source, column in zip(sources, new.columns, strict=True):
        name = quote_duckdb(column.name)
        if source.old is None:
            cursor.execute(f"{table} ADD COLUMN {name} {duckdb_type(column)} DEFAULT {source.expression}")
            # The default has filled the rows; those to come bring their own values.
            cursor.execute(f"{table} ALTER COLUMN {name} DROP DEFAULT")
        elif source.old != column.name:
            cursor.execute(f"{table} RENAME COLUMN {quote_duckdb(source.old)} TO {name}")
        if source.old is None or comment(old.column(source.old)) != comment(column):
            set_comment(cursor, old.name, column)
