"""Whether the columns that a TABLE_MAP describes are those of the copy: the check on every definition."""

from __future__ import annotations

from cdc.schema import Column, Table
from cdc.source.table_map import TableMap
from cdc.types import TEXTS
from cdc.values.binlog import BinlogColumn

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})


def disagreement(table: Table, table_map: TableMap) -> str | None:
    """In what the source's columns differ from those of the copy, as a clause; None where they agree.

    Columns go by name. Compared is what the converters of values do not find out by themselves: names, signs,
    character sets, members and the primary key.
    """
    theirs = {column.name.casefold(): column for column in table_map.columns if not _is_hidden(column.name)}
    ours = {column.name.casefold(): column for column in table.columns}
    if ours.keys() != theirs.keys():
        return f"column {min(ours.keys() ^ theirs.keys())!r} is on one side only"
    for name, column in ours.items():
        if not _agree(column, theirs[name]):
            return f"column {column.name!r} is of another type"
    key = {table_map.columns[place].name.casefold() for place in table_map.primary_key}
    # Where there is no primary key, the log shows a unique one instead (share->primary_key in both servers).
    if table.primary_key and key != {name.casefold() for name in table.primary_key}:
        return "the primary key is another one"
    return None


def _agree(ours: Column, theirs: BinlogColumn) -> bool:
    if ours.data_type in _INTEGERS and ours.unsigned != theirs.unsigned:
        return False
    if ours.data_type not in TEXTS:
        return True
    known = ours.character_set is not None and theirs.character_set is not None
    if known and ours.character_set != theirs.character_set:
        return False
    # The catalogue prints members in utf8mb3, with "?" for a character beyond it.
    comparable = ours.members and theirs.members and not any("?" in member for member in ours.members)
    return not comparable or ours.members == theirs.members


def _is_hidden(column: str) -> bool:
    """MariaDB's invisible helper of a long UNIQUE key, in the log but not in the catalogue."""
    return column.startswith("DB_ROW_HASH_")
