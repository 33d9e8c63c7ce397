"""What CREATE TABLE makes: columns, primary key, and the table's defaults."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.source.ddl.alterations import read_key_columns
from cdc.source.ddl.columns import ColumnDefinition, character_set, collation, pass_reference, read_column
from cdc.source.ddl.cursor import TokenCursor, UnclearStatementError

_KEEPING_OPTIONS = frozenset(
    {
        *("AUTO_INCREMENT", "COMMENT", "ROW_FORMAT", "KEY_BLOCK_SIZE", "AVG_ROW_LENGTH", "MAX_ROWS"),
        *("MIN_ROWS", "CHECKSUM", "TABLE_CHECKSUM", "PAGE_CHECKSUM", "DELAY_KEY_WRITE", "PACK_KEYS"),
        *("STATS_AUTO_RECALC", "STATS_PERSISTENT", "STATS_SAMPLE_PAGES", "COMPRESSION", "ENCRYPTION"),
        *("TRANSACTIONAL", "PAGE_COMPRESSED", "PAGE_COMPRESSION_LEVEL", "ENCRYPTED", "ENCRYPTION_KEY_ID"),
        *("AUTOEXTEND_SIZE",),
    }
)


@dataclass(frozen=True, slots=True)
class TableDefinition:
    """A table as CREATE TABLE defines it; None where the statement leaves it to a default."""

    columns: tuple[ColumnDefinition, ...]
    primary_key: tuple[str, ...]
    character_set: str | None = None
    collation: str | None = None
    engine: str | None = None
    cascading: bool = False


def read_definition(cursor: TokenCursor) -> TableDefinition:
    """The definition that begins with a parenthesis, up to the end. Raises UnclearStatementError."""
    cursor.expect("(")
    columns: list[ColumnDefinition] = []
    key: tuple[str, ...] = ()
    cascading = False
    while True:
        if (found := _read_key(cursor)) is not None:
            key = key or found
        elif (reference := _pass_constraint(cursor)) is not None:
            cascading = cascading or reference
        else:
            column = read_column(cursor)
            columns.append(column)
            key = key or ((column.name,) if column.primary_key else ())
            cascading = cascading or column.cascading
        if not cursor.accept(","):
            break
    cursor.expect(")")
    options = _read_options(cursor)
    if not columns:
        raise UnclearStatementError("a table without columns in its statement")
    return TableDefinition(tuple(columns), key, cascading=cascading, **options)


def _read_key(cursor: TokenCursor) -> tuple[str, ...] | None:
    start = cursor.at
    if cursor.accept("CONSTRAINT") and cursor.peek() != "PRIMARY":
        cursor.identifier()
    if cursor.accept_phrase("PRIMARY", "KEY"):
        return read_key_columns(cursor)
    cursor.at = start
    return None


def _pass_constraint(cursor: TokenCursor) -> bool | None:
    """Passes an index or a constraint: whether rows change by it; None where a column follows."""
    if cursor.peek() == "CONSTRAINT":
        cursor.at += 1
        if cursor.peek() not in ("UNIQUE", "FOREIGN", "CHECK"):
            cursor.name()
    if cursor.peek() == "FOREIGN" and cursor.peek(1) == "KEY":
        cursor.at += 2
        while cursor.peek() != "(":
            if cursor.next() is None:
                raise UnclearStatementError("a foreign key does not name columns")
        cursor.pass_parentheses()
        cursor.expect("REFERENCES")
        return pass_reference(cursor)
    if cursor.peek() in ("INDEX", "KEY", "UNIQUE", "FULLTEXT", "SPATIAL", "CHECK"):
        while not cursor.ended and cursor.peek() not in (",", ")"):
            if cursor.peek() == "(":
                cursor.pass_parentheses()
            else:
                cursor.at += 1
        return False
    if cursor.peek() == "PERIOD" and cursor.peek(1) == "FOR":
        raise UnclearStatementError("a period is not derived from a statement")
    return None


def _read_options(cursor: TokenCursor) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    while not cursor.ended:
        cursor.accept(",")
        if cursor.accept_phrase("PARTITION", "BY"):
            if any(token.word in ("SELECT", "TABLE", "SYSTEM_TIME") for token in cursor.tokens[cursor.at :]):
                raise UnclearStatementError("what stands behind the partitions is not known")
            return found
        if cursor.accept("DEFAULT") and cursor.peek() not in ("CHARACTER", "CHARSET", "COLLATE"):
            raise UnclearStatementError("a default of the table is not known")
        if cursor.accept("CHARACTER", "CHARSET"):
            cursor.accept("SET")
            cursor.accept("=")
            found["character_set"] = character_set(cursor)
        elif cursor.accept("COLLATE"):
            cursor.accept("=")
            found["collation"] = collation(cursor)
        elif cursor.accept("ENGINE"):
            cursor.accept("=")
            token = cursor.next()
            found["engine"] = token.text.lower() if token else ""
        elif cursor.peek() in _KEEPING_OPTIONS:
            cursor.at += 1
            cursor.accept("=")
            if cursor.next() is None:
                raise UnclearStatementError("an option has no value")
        else:
            raise UnclearStatementError("an option of the table is not known")
    return found
