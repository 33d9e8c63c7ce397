"""A column definition of a statement as the catalogue of the source would describe the column."""

from __future__ import annotations

from dataclasses import replace

from cdc.schema import Column
from cdc.source.ddl.columns import ColumnDefinition
from cdc.source.ddl.cursor import UnclearStatementError
from cdc.source.defaults import SourceDefaults
from cdc.types import TEXTS, unsupported

# NUMERIC_PRECISION and the display width in COLUMN_TYPE, each for signed and unsigned
# (information_schema.COLUMNS of MySQL 9.7 and MariaDB 10.11).
_PRECISION = {
    "tinyint": (3, 3),
    "smallint": (5, 5),
    "mediumint": (7, 7),
    "int": (10, 10),
    "bigint": (19, 20),
}
_WIDTHS = {
    "tinyint": (4, 3),
    "smallint": (6, 5),
    "mediumint": (9, 8),
    "int": (11, 10),
    "bigint": (20, 20),
}
_LENGTHS = {
    **dict.fromkeys(("tinytext", "tinyblob"), 255),
    **dict.fromkeys(("text", "blob"), 65_535),
    **dict.fromkeys(("mediumtext", "mediumblob"), 16_777_215),
    **dict.fromkeys(("longtext", "longblob"), 4_294_967_295),
}
_DOUBLE_FROM = 25
"""FLOAT(p) is DOUBLE from this p on (MySQL manual, "Floating-Point Types")."""
_MARIADB_TYPES = frozenset({"uuid", "inet4", "inet6"})


def resolve(
    definition: ColumnDefinition, defaults: SourceDefaults, table_collation: str | None, *, in_key: bool
) -> Column:
    """The column that `definition` makes in a table whose default collation is `table_collation`.

    Raises UnclearStatementError where that depends on more than the statement and `defaults`.
    """
    kind = definition.data_type
    collation = None
    if kind == "json" and defaults.flavor == "mariadb":
        # MariaDB manual, "JSON Data Type": an alias for LONGTEXT COLLATE utf8mb4_bin
        if definition.character_set or definition.collation:
            raise UnclearStatementError("a JSON column names a character set")
        kind, collation = "longtext", "utf8mb4_bin"
    elif kind in TEXTS:
        collation = _collation(definition, defaults, table_collation)
    elif definition.character_set or definition.collation:
        raise UnclearStatementError("a column that holds no text names a character set")
    if (kind in _MARIADB_TYPES) != (kind in _MARIADB_TYPES and defaults.flavor == "mariadb"):
        raise UnclearStatementError("a type is not one of this server's")
    column = replace(
        _typed(definition, kind, defaults),
        nullable=_nullable(definition, in_key=in_key),
        character_set=None if collation is None else character_set_of(collation, defaults),
        collation=collation,
        generated=definition.generated,
        invisible=definition.invisible,
    )
    reason = unsupported(column)
    if reason:
        raise UnclearStatementError(reason)
    return column


def _nullable(definition: ColumnDefinition, *, in_key: bool) -> bool:
    if in_key:
        return False
    if definition.nullable is not None:
        return definition.nullable
    if definition.data_type == "timestamp":
        # explicit_defaults_for_timestamp decides, which the log of MariaDB does not tell
        raise UnclearStatementError("a TIMESTAMP column is declared neither NULL nor NOT NULL")
    return not definition.auto_increment


def _collation(definition: ColumnDefinition, defaults: SourceDefaults, of_table: str | None) -> str:
    named = definition.collation
    if named is None and definition.character_set is None:
        named = of_table
    elif named is None and definition.character_set is not None:
        named = default_collation(definition.character_set, defaults)
    if named is None:
        raise UnclearStatementError("the table's default collation is not known")
    character_set_of(named, defaults)
    return named


def default_collation(character_set: str, defaults: SourceDefaults) -> str:
    """The collation that a character set has by default. Raises UnclearStatementError."""
    if character_set == "utf8" and defaults.flavor == "mysql":
        character_set = "utf8mb3"
    if character_set not in defaults.default_collations:  # MariaDB's utf8 depends on old_mode
        raise UnclearStatementError("a character set is not one that is derived from a statement")
    return defaults.default_collations[character_set]


def character_set_of(collation: str, defaults: SourceDefaults) -> str:
    """The character set of a collation. Raises UnclearStatementError; for "binary" too, which makes bytes."""
    found = defaults.character_sets.get(collation)
    if found is None and collation.partition("_")[0] in defaults.default_collations:
        found = collation.partition("_")[0]
    if found is None or found == "binary":
        raise UnclearStatementError("a collation is not one that is derived from a statement")
    return found


def _typed(definition: ColumnDefinition, kind: str, defaults: SourceDefaults) -> Column:
    """DATA_TYPE, COLUMN_TYPE and what follows from them."""
    arguments = definition.arguments
    if kind in _PRECISION:
        return _integer(definition, kind, defaults)
    if kind in ("decimal", "float", "double"):
        return _fractional(definition, kind)
    if kind == "bit":
        bits = _one(arguments, 1)
        return Column(definition.name, data_type=kind, column_type=f"bit({bits})", precision=bits)
    if kind in ("char", "binary", "varchar", "varbinary"):
        length = _one(arguments, 1 if kind in ("char", "binary") else None)
        return Column(definition.name, data_type=kind, column_type=f"{kind}({length})", length=length)
    if kind in ("enum", "set"):
        return _members(definition, kind)
    if kind in ("time", "datetime", "timestamp"):
        fraction = _one(arguments, 0)
        shown = f"{kind}({fraction})" if fraction else kind
        return Column(definition.name, data_type=kind, column_type=shown, fraction=fraction)
    if kind == "year" and arguments in ((), (4,)):
        return Column(
            definition.name, data_type=kind, column_type="year(4)" if defaults.prints_widths else "year"
        )
    if arguments:  # TEXT(n) is one of four types, by the length in bytes
        raise UnclearStatementError("a type has an argument that is not derived from a statement")
    return Column(definition.name, data_type=kind, column_type=kind, length=_LENGTHS.get(kind))


def _one(arguments: tuple[int, ...], default: int | None) -> int:
    if len(arguments) > 1 or (not arguments and default is None):
        raise UnclearStatementError("a type has other arguments than expected")
    number = arguments[0] if arguments else default
    assert number is not None
    return number


def _signed(definition: ColumnDefinition) -> str:
    return (" unsigned" if definition.unsigned else "") + (" zerofill" if definition.zerofill else "")


def _integer(definition: ColumnDefinition, kind: str, defaults: SourceDefaults) -> Column:
    given = definition.arguments
    if len(given) > 1 or (definition.zerofill and not given):
        raise UnclearStatementError("a type has other arguments than expected")
    signed, unsigned = _PRECISION[kind]
    if kind == "mediumint" and defaults.flavor == "mariadb":
        unsigned = 8
    width = given[0] if given else _WIDTHS[kind][definition.unsigned]
    shows = defaults.prints_widths or definition.zerofill
    flag = kind == "tinyint" and given == (1,) and not definition.unsigned
    return Column(
        definition.name,
        data_type=kind,
        column_type=kind + (f"({width})" if shows or flag else "") + _signed(definition),
        precision=unsigned if definition.unsigned else signed,
        scale=0,
    )


def _fractional(definition: ColumnDefinition, kind: str) -> Column:
    given = definition.arguments
    if kind == "decimal":
        precision, scale = (given + ((10, 0)[len(given) :]))[:2]
        shown = f"decimal({precision},{scale}){_signed(definition)}"
        return Column(definition.name, data_type=kind, column_type=shown, precision=precision, scale=scale)
    if len(given) == 1:
        if kind == "double":
            raise UnclearStatementError("a type has other arguments than expected")
        kind = "double" if given[0] >= _DOUBLE_FROM else "float"
        given = ()
    if len(given) == 2:
        shown = f"{kind}({given[0]},{given[1]}){_signed(definition)}"
        return Column(definition.name, data_type=kind, column_type=shown, precision=given[0], scale=given[1])
    return Column(
        definition.name,
        data_type=kind,
        column_type=kind + _signed(definition),
        precision=12 if kind == "float" else 22,
    )


def _members(definition: ColumnDefinition, kind: str) -> Column:
    members = definition.members
    for member in members:
        # What the catalogue prints differs from what was written: escapes, letters beyond U+FFFF, padding.
        if member != member.rstrip(" ") or any(ord(c) < 32 or c == "\\" or ord(c) > 0xFFFF for c in member):
            raise UnclearStatementError("a member is not one that is derived from a statement")
    lengths = [len(member) for member in members]
    quoted = ",".join("'" + member.replace("'", "''") + "'" for member in members)
    return Column(
        definition.name,
        data_type=kind,
        column_type=f"{kind}({quoted})",
        length=max(lengths) if kind == "enum" else sum(lengths) + len(members) - 1,
        members=members,
    )
