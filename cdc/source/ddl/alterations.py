"""What ALTER TABLE does to a table, clause by clause.

Grammar: MySQL manual, "ALTER TABLE Statement"; MariaDB's, "ALTER TABLE". A clause that is not listed here makes
the statement unclear: the table is then copied again.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc.source.ddl.columns import (
    ColumnDefinition,
    character_set,
    collation,
    pass_reference,
    read_column,
)
from cdc.source.ddl.cursor import TokenCursor, UnclearStatementError
from cdc.source.ddl.names import NameReader, TableName

FIRST = ""
"""`place` of a column that becomes the first one; no column has an empty name."""


@dataclass(frozen=True, slots=True)
class AddColumn:
    """ADD COLUMN. `place` is None (last), FIRST, or the name of the column before it."""

    column: ColumnDefinition
    place: str | None = None
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class DropColumn:
    """DROP COLUMN."""

    name: str
    if_exists: bool = False


@dataclass(frozen=True, slots=True)
class RenameColumn:
    """RENAME COLUMN."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class ChangeColumn:
    """CHANGE and MODIFY COLUMN: `old` becomes `column`; `place` as in AddColumn, None where it stays."""

    old: str
    column: ColumnDefinition
    place: str | None = None
    if_exists: bool = False


@dataclass(frozen=True, slots=True)
class SetVisibility:
    """ALTER COLUMN … SET VISIBLE or INVISIBLE."""

    name: str
    invisible: bool


@dataclass(frozen=True, slots=True)
class AddPrimaryKey:
    """ADD PRIMARY KEY, columns in key order."""

    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DropPrimaryKey:
    """DROP PRIMARY KEY."""


@dataclass(frozen=True, slots=True)
class SetDefaultCharacterSet:
    """The table's defaults for columns to come. None: what belongs to the other one."""

    character_set: str | None
    collation: str | None


@dataclass(frozen=True, slots=True)
class SetEngine:
    """ENGINE = …, in lower case."""

    engine: str


@dataclass(frozen=True, slots=True)
class RenameTable:
    """RENAME TO."""

    new: TableName


@dataclass(frozen=True, slots=True)
class AddCascadingKey:
    """ADD FOREIGN KEY by which a change elsewhere changes rows of this table."""


Alteration = (
    AddColumn
    | DropColumn
    | RenameColumn
    | ChangeColumn
    | SetVisibility
    | AddPrimaryKey
    | DropPrimaryKey
    | SetDefaultCharacterSet
    | SetEngine
    | RenameTable
    | AddCascadingKey
)

_KEEPING_OPTIONS = frozenset(
    {
        *("AUTO_INCREMENT", "COMMENT", "ROW_FORMAT", "KEY_BLOCK_SIZE", "AVG_ROW_LENGTH", "MAX_ROWS"),
        *("MIN_ROWS", "CHECKSUM", "TABLE_CHECKSUM", "PAGE_CHECKSUM", "DELAY_KEY_WRITE", "PACK_KEYS"),
        *("STATS_AUTO_RECALC", "STATS_PERSISTENT", "STATS_SAMPLE_PAGES", "COMPRESSION", "ENCRYPTION"),
        *("TRANSACTIONAL", "ALGORITHM", "LOCK", "PAGE_COMPRESSED", "PAGE_COMPRESSION_LEVEL", "ENCRYPTED"),
        *("ENCRYPTION_KEY_ID", "AUTOEXTEND_SIZE"),
    }
)
_INDEX_WORDS = ("INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL")


def read_alterations(cursor: TokenCursor, names: NameReader) -> tuple[Alteration, ...]:
    """The clauses behind ALTER TABLE and the table's name; those that keep all rows as they are, left out.

    Raises UnclearStatementError.
    """
    found: list[Alteration] = []
    while cursor.at < len(cursor.tokens):
        found.extend(_read_clause(cursor, names))
        cursor.accept(",")
    return tuple(found)


def _read_clause(cursor: TokenCursor, names: NameReader) -> list[Alteration]:
    if cursor.accept("ADD"):
        return _add(cursor)
    if cursor.accept("DROP"):
        return _drop(cursor)
    if cursor.accept("MODIFY"):
        cursor.accept("COLUMN")
        if_exists = cursor.accept_phrase("IF", "EXISTS")
        column = read_column(cursor)
        return _changed(column.name, column, _place(cursor), if_exists)
    if cursor.accept("CHANGE"):
        cursor.accept("COLUMN")
        if_exists = cursor.accept_phrase("IF", "EXISTS")
        old = cursor.name()
        column = read_column(cursor)
        return _changed(old, column, _place(cursor), if_exists)
    if cursor.accept("RENAME"):
        return _rename(cursor, names)
    if cursor.accept("ALTER"):
        return _alter(cursor)
    if cursor.accept("ENABLE", "DISABLE"):
        cursor.expect("KEYS")
        return []
    if cursor.accept("FORCE"):
        return []
    if cursor.accept_phrase("PARTITION", "BY"):
        cursor.at = len(cursor.tokens)  # nothing may follow that is not part of it
        return []
    if cursor.accept_phrase("REMOVE", "PARTITIONING"):
        return []
    if cursor.accept("REORGANIZE", "COALESCE", "REBUILD", "ANALYZE", "CHECK", "OPTIMIZE"):
        cursor.expect("PARTITION")
        cursor.at = len(cursor.tokens)
        return []
    if cursor.accept("WITH", "WITHOUT"):
        cursor.expect("VALIDATION")
        return []
    if cursor.accept("WAIT"):
        cursor.number()
        return []
    if cursor.accept("NOWAIT"):
        return []
    return _option(cursor)


def _changed(old: str, column: ColumnDefinition, place: str | None, if_exists: bool) -> list[Alteration]:
    changed: list[Alteration] = [ChangeColumn(old, column, place, if_exists)]
    return [*changed, *_key_of(column)]


def _key_of(column: ColumnDefinition) -> list[Alteration]:
    more: list[Alteration] = [AddPrimaryKey((column.name,))] if column.primary_key else []
    return [*more, AddCascadingKey()] if column.cascading else more


def _place(cursor: TokenCursor) -> str | None:
    if cursor.accept("FIRST"):
        return FIRST
    return cursor.name() if cursor.accept("AFTER") else None


def _add(cursor: TokenCursor) -> list[Alteration]:
    if cursor.peek() == "CONSTRAINT":
        cursor.at += 1
        if cursor.peek() not in ("PRIMARY", "UNIQUE", "FOREIGN", "CHECK"):
            cursor.skip_if_not_exists()
            cursor.name()
    if cursor.accept("PRIMARY"):
        cursor.expect("KEY")
        return [AddPrimaryKey(_key_columns(cursor))]
    if cursor.accept("FOREIGN"):
        cursor.expect("KEY")
        while cursor.peek() != "(":
            if cursor.next() is None:
                raise UnclearStatementError("a foreign key does not name columns")
        cursor.pass_parentheses()
        cursor.expect("REFERENCES")
        return [AddCascadingKey()] if pass_reference(cursor) else []
    if cursor.peek() in _INDEX_WORDS or cursor.peek() == "CHECK":
        cursor.pass_clause()
        return []
    if cursor.accept("PARTITION"):
        cursor.at = len(cursor.tokens)
        return []
    cursor.accept("COLUMN")
    missing_only = cursor.skip_if_not_exists()
    if cursor.peek() in ("SYSTEM", "PERIOD") and cursor.peek(1) in ("VERSIONING", "FOR"):
        raise UnclearStatementError("system versioning changes what rows a table has")
    if cursor.accept("("):
        added: list[Alteration] = []
        while True:
            column = read_column(cursor)
            added += [AddColumn(column, None, missing_only), *_key_of(column)]
            if not cursor.accept(","):
                break
        cursor.expect(")")
        return added
    column = read_column(cursor)
    return [AddColumn(column, _place(cursor), missing_only), *_key_of(column)]


def _key_columns(cursor: TokenCursor) -> tuple[str, ...]:
    """The columns in the parentheses of a key, prefix lengths and directions passed over."""
    while cursor.peek() != "(":
        if cursor.next() is None:
            raise UnclearStatementError("a key does not name columns")
    cursor.expect("(")
    columns = []
    while True:
        columns.append(cursor.name())
        if cursor.peek() == "(":
            cursor.pass_parentheses()
        cursor.accept("ASC", "DESC")
        if not cursor.accept(","):
            break
    cursor.expect(")")
    while cursor.accept("USING", "COMMENT", "KEY_BLOCK_SIZE", "VISIBLE"):
        cursor.accept("=")
        following = None if cursor.ended else cursor.tokens[cursor.at]
        if following is not None and following.word not in (",", ")"):
            cursor.at += 1
    return tuple(columns)


read_key_columns = _key_columns


def _drop(cursor: TokenCursor) -> list[Alteration]:
    if cursor.accept("PRIMARY"):
        cursor.expect("KEY")
        return [DropPrimaryKey()]
    if cursor.accept("INDEX", "KEY"):
        cursor.accept_phrase("IF", "EXISTS")
        return [DropPrimaryKey()] if is_primary(cursor.name()) else []
    if cursor.peek() in ("FOREIGN", "CHECK"):
        cursor.pass_clause()
        return []
    if cursor.peek() in ("CONSTRAINT", "PARTITION", "SYSTEM", "PERIOD"):
        # A constraint may be the primary key; the others take rows away.
        raise UnclearStatementError(f"DROP {cursor.peek()} is not derived from a statement")
    cursor.accept("COLUMN")
    if_exists = cursor.accept_phrase("IF", "EXISTS")
    name = cursor.name()
    cursor.accept("RESTRICT", "CASCADE")
    return [DropColumn(name, if_exists)]


def is_primary(index: str) -> bool:
    """Whether an index of this name is the primary key, which both servers call PRIMARY."""
    return index.upper() == "PRIMARY"


def _rename(cursor: TokenCursor, names: NameReader) -> list[Alteration]:
    if cursor.accept("COLUMN"):
        if cursor.accept_phrase("IF", "EXISTS"):
            raise UnclearStatementError("a column is renamed where it exists")
        old = cursor.name()
        cursor.expect("TO")
        return [RenameColumn(old, cursor.name())]
    if cursor.accept("INDEX", "KEY"):
        cursor.pass_clause()
        return []
    cursor.accept("TO", "AS", "=")
    return [RenameTable(names.read(cursor))]


def _alter(cursor: TokenCursor) -> list[Alteration]:
    if cursor.peek() in ("INDEX", "KEY", "CHECK", "CONSTRAINT"):
        cursor.pass_clause()
        return []
    cursor.accept("COLUMN")
    if cursor.accept_phrase("IF", "EXISTS"):
        raise UnclearStatementError("a column is altered where it exists")
    name = cursor.name()
    if cursor.accept("SET"):
        if cursor.accept("INVISIBLE"):
            return [SetVisibility(name, invisible=True)]
        if cursor.accept("VISIBLE"):
            return [SetVisibility(name, invisible=False)]
        cursor.expect("DEFAULT")
        cursor.pass_clause()
        return []
    cursor.expect("DROP")
    cursor.expect("DEFAULT")
    return []


def _option(cursor: TokenCursor) -> list[Alteration]:
    if cursor.accept("DEFAULT") and cursor.peek() not in ("CHARACTER", "CHARSET", "COLLATE"):
        raise UnclearStatementError("a default of the table is not known")
    if cursor.accept("CHARACTER", "CHARSET"):
        cursor.accept("SET")
        cursor.accept("=")
        chosen = character_set(cursor)
        if cursor.accept_phrase("DEFAULT", "COLLATE") or cursor.accept("COLLATE"):
            cursor.accept("=")
            return [SetDefaultCharacterSet(chosen, collation(cursor))]
        return [SetDefaultCharacterSet(chosen, None)]
    if cursor.accept("COLLATE"):
        cursor.accept("=")
        return [SetDefaultCharacterSet(None, collation(cursor))]
    if cursor.accept("ENGINE"):
        cursor.accept("=")
        token = cursor.next()
        return [SetEngine(token.text.lower() if token else "")]
    if cursor.peek() in _KEEPING_OPTIONS:
        cursor.at += 1
        cursor.accept("=")
        if cursor.next() is None:
            raise UnclearStatementError("an option has no value")
        return []
    raise UnclearStatementError(f"{_known(cursor.peek())} is not derived from a statement")


def _known(word: str) -> str:
    """The keyword of the clause, unless it might be something else."""
    keywords = {"CONVERT", "EXCHANGE", "TRUNCATE", "DISCARD", "IMPORT", "UNION", "REPAIR", "CONNECTION"}
    return word if word in keywords else "a clause"
