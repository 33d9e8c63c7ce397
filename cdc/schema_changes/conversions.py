"""Whether a changed column keeps its values, and how they are carried over in DuckDB.

Everything that is not listed here may change values at the source (rounding, padding, other character sets,
time zones, members that are gone), by rules of the server and the session: the table is copied again.
"""

from __future__ import annotations

from cdc.schema import Column, quote_duckdb
from cdc.source.ddl.cursor import UnclearStatementError
from cdc.types import DECIMAL_DIGITS, duckdb_type

_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_CHARACTERS = ("char", "varchar")
_LONG_TEXTS = ("tinytext", "text", "mediumtext", "longtext")
_BYTES = ("varbinary", "tinyblob", "blob", "mediumblob", "longblob")
_BYTES_PER_CHARACTER = 4
"""At most, in any character set of either server."""
_FRACTIONS = ("time", "datetime", "timestamp")


def carried_over(old: Column, new: Column) -> str:
    """The SQL expression, over a table with the column `old`, that gives the values of `new`.

    Raises UnclearStatementError where the source may have changed values.
    """
    if not _keeps_values(old, new):
        raise UnclearStatementError(f"column {new.name} gets another type, which may change its values")
    name = quote_duckdb(old.name)
    if duckdb_type(old) == duckdb_type(new):
        return name
    if old.data_type == "enum":
        return f"{name}::VARCHAR::{duckdb_type(new)}"
    return f"{name}::{duckdb_type(new)}"


def _keeps_values(old: Column, new: Column) -> bool:
    if old.generated != new.generated:
        return False
    if old.choice != new.choice:
        return False
    if old.column_type == new.column_type and _same_text(old, new):
        return old.srid == new.srid
    if old.data_type in _BITS and new.data_type in _BITS:
        return old.choice != "boolean" and _range_within(old, new)
    if old.data_type in _BYTES and new.data_type in _BYTES:
        return (new.length or 0) >= (old.length or 0)
    if old.data_type in (*_CHARACTERS, *_LONG_TEXTS) and new.data_type in (*_CHARACTERS, *_LONG_TEXTS):
        return _text_fits(old, new)
    if old.data_type != new.data_type:
        return False
    if old.data_type == "decimal":
        return _decimal_fits(old, new)
    if old.data_type == "bit":
        return (new.precision or 0) >= (old.precision or 0)
    if old.data_type in _FRACTIONS:
        return new.fraction >= old.fraction
    if old.data_type == "enum":
        return _same_text(old, new) and set(old.members) <= set(new.members)
    if old.data_type == "set":
        return _same_text(old, new) and new.members[: len(old.members)] == old.members
    return False


def _same_text(old: Column, new: Column) -> bool:
    """Whether both are of one character set, or the new one has every character.

    The copy was read in utf8mb4, so what the server makes of a text in utf8mb4 is what the copy has.
    """
    return old.character_set == new.character_set or (
        old.character_set is not None and new.character_set == "utf8mb4"
    )


def _range_within(old: Column, new: Column) -> bool:
    before, after = _BITS[old.data_type], _BITS[new.data_type]
    if old.unsigned == new.unsigned:
        return after >= before
    return old.unsigned and after > before


def _text_fits(old: Column, new: Column) -> bool:
    before, after = old.length or 0, new.length or 0
    if not _same_text(old, new):
        return False
    if old.data_type in _LONG_TEXTS:
        # Of these the length counts bytes, and the same text may take more of them.
        same = old.character_set == new.character_set
        return new.data_type in _LONG_TEXTS and after >= before * (1 if same else _BYTES_PER_CHARACTER)
    if new.data_type in _LONG_TEXTS:
        return after >= before * _BYTES_PER_CHARACTER
    # A CHAR drops spaces at the end.
    return after >= before and (new.data_type == "varchar" or old.data_type == "char")


def _decimal_fits(old: Column, new: Column) -> bool:
    old_scale, new_scale = old.scale or 0, new.scale or 0
    old_precision, new_precision = old.precision or 0, new.precision or 0
    if new.unsigned and not old.unsigned:
        return False
    if max(old_precision, new_precision) > DECIMAL_DIGITS:
        # As text: 1.50 is not 1.5
        return (
            min(old_precision, new_precision) > DECIMAL_DIGITS and _wider(old, new) and old_scale == new_scale
        )
    return _wider(old, new) and new_scale >= old_scale


def _wider(old: Column, new: Column) -> bool:
    before = (old.precision or 0) - (old.scale or 0)
    return (new.precision or 0) - (new.scale or 0) >= before
