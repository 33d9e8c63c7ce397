"""Statements of the binary log: which tables of the replicated schema they change, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from cdc.schema import NameCase
from cdc.source.ddl.alterations import Alteration, DropPrimaryKey, is_primary, read_alterations
from cdc.source.ddl.creation import TableDefinition, read_definition
from cdc.source.ddl.cursor import TokenCursor, UnclearStatementError
from cdc.source.ddl.lexer import Lexed, UnreadableStatementError, lex
from cdc.source.ddl.names import NameReader, TableName

_DATA_WORDS = {"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH"}
_TABLE_WORDS = {"CREATE", "ALTER", "DROP", "RENAME", "TRUNCATE"}
_EXECUTABLE_COMMENT = re.compile(r"/\*M?!\d*(.*?)\*/", re.DOTALL)
_EXOTIC_MODES = 0b111100000000 | ~((1 << 31) - 1)
"""Modes that give words or constants another meaning: those of other databases' dialects (ORACLE, MSSQL, DB2,
POSTGRESQL), PAD_CHAR_TO_FULL_LENGTH, and MariaDB's EMPTY_STRING_IS_NULL and later ones."""

ChangeKind = Literal["create", "alter", "rename", "truncate", "drop", "drop_database", "database", "data"]


@dataclass(frozen=True, slots=True)
class Alter:
    """ALTER TABLE: clauses in order; none where all rows and columns stay as they are."""

    table: TableName
    alterations: tuple[Alteration, ...]


@dataclass(frozen=True, slots=True)
class Rename:
    """RENAME TABLE: pairs of old and new name, carried out in order."""

    pairs: tuple[tuple[TableName, TableName], ...]


@dataclass(frozen=True, slots=True)
class Create:
    """CREATE TABLE with a definition, or LIKE another table."""

    table: TableName
    definition: TableDefinition | TableName


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A statement that may change tables of the replicated schema.

    `tables` are their names without the schema, old and new ones of a rename alike; empty for a dropped
    database, for a `database` whose defaults change, and for `data` (rows changed by the statement itself, not
    by row events). `detail` says what exactly happens; None where that can't be told, for the reason `unclear`.
    """

    kind: ChangeKind
    tables: tuple[str, ...]
    statement: str
    opens_transaction: bool = False
    """MySQL's CREATE TABLE … SELECT: row events and a commit follow."""
    beside_rows: bool = False
    """It stands in one transaction with row events, which were read before it is carried out."""
    if_not_exists: bool = False
    or_replace: bool = False
    detail: Alter | Rename | Create | None = None
    unclear: str = "the statement is not one that is carried out by itself"
    sql_mode: int = 0

    @property
    def is_data(self) -> bool:
        """Rows changed by the statement itself: some session does not write row events."""
        return self.kind == "data"


def read_statement(
    statement: str, default_schema: str, schema: str, names: NameCase, sql_mode: int = 0
) -> SchemaChange | None:
    """What `statement`, run with `default_schema` and `sql_mode`, means for `schema`; None for nothing.

    Views, triggers, routines, users, indexes and other schemas mean nothing. Where names can't be told
    apart from the text, more tables than necessary are named, never fewer.
    """
    word = first_word(statement)
    if word not in _TABLE_WORDS and word not in _DATA_WORDS:
        return None
    reader = NameReader(default_schema, schema, names)
    if word in _DATA_WORDS:
        ours = reader.is_ours(default_schema) or schema.lower() in statement.lower()
        return SchemaChange("data", (), statement) if ours else None
    try:
        lexed = lex(statement, sql_mode)
    except UnreadableStatementError:
        return _all_words(statement, reader)
    change = _StatementReader(lexed, reader, statement).read()
    if change is None:
        return None
    if sql_mode & _EXOTIC_MODES:
        change = replace(change, detail=None, unclear="the session's sql_mode is not a usual one")
    elif not lexed.certain:
        change = replace(change, detail=None, unclear="a comment is run by MariaDB only")
    return replace(change, sql_mode=sql_mode)


def first_word(statement: str) -> str:
    """The word that a statement begins with, in upper case, comments before it passed over."""
    text = _EXECUTABLE_COMMENT.sub(r" \1 ", statement[:4096]) if "/*" in statement[:4096] else statement
    stripped = re.sub(r"^(?:\s+|--[^\n]*\n|#[^\n]*\n|/\*.*?\*/)+", "", text, flags=re.DOTALL)
    found = re.match(r"[A-Za-z]+", stripped)
    return found.group().upper() if found else ""


def _all_words(statement: str, reader: NameReader) -> SchemaChange | None:
    """A statement that can't be cut into tokens: every word in it may be a table's name."""
    if not reader.is_ours(reader.default_schema) and reader.schema.lower() not in statement.lower():
        return None
    words = tuple(dict.fromkeys(re.findall(r"[\w$]+", statement)))
    return SchemaChange("alter", words, statement, unclear="the statement can't be read")


class _StatementReader:
    """Reads one statement from its tokens."""

    def __init__(self, lexed: Lexed, names: NameReader, statement: str) -> None:
        self._cursor = TokenCursor(lexed.tokens)
        self._names = names
        self._statement = statement

    def read(self) -> SchemaChange | None:
        cursor = self._cursor
        verb = cursor.identifier().upper()
        if verb == "TRUNCATE":
            cursor.accept("TABLE")
            return self._change("truncate", self._names.read_list(cursor))
        if verb == "RENAME":
            return self._rename() if cursor.accept("TABLE", "TABLES") else None
        if verb == "DROP":
            return self._drop()
        if verb == "CREATE":
            return self._create()
        return self._alter()

    def _drop(self) -> SchemaChange | None:
        cursor = self._cursor
        if cursor.accept("DATABASE", "SCHEMA"):
            cursor.skip("IF", "EXISTS")
            ours = self._names.is_ours(cursor.identifier())
            return SchemaChange("drop_database", (), self._statement) if ours else None
        if cursor.accept("INDEX"):
            return self._drop_index()
        if not cursor.accept("TABLE", "TABLES"):
            return None  # TEMPORARY tables among them
        cursor.skip("IF", "EXISTS")
        return self._change("drop", self._names.read_list(cursor))

    def _drop_index(self) -> SchemaChange | None:
        """DROP INDEX `PRIMARY` ON t; all other indexes mean nothing."""
        cursor = self._cursor
        cursor.skip("IF", "EXISTS")
        if not is_primary(cursor.identifier()) or not cursor.accept("ON"):
            return None
        table = self._names.read(cursor)
        change = self._change("alter", [table])
        return replace(change, detail=Alter(table, (DropPrimaryKey(),))) if change else None

    def _create(self) -> SchemaChange | None:
        cursor = self._cursor
        or_replace = cursor.accept_phrase("OR", "REPLACE")
        if cursor.accept("DATABASE", "SCHEMA"):
            return self._database()
        if not cursor.accept("TABLE"):
            return None
        if_not_exists = cursor.skip_if_not_exists()
        table = self._names.read(cursor)
        words = [token.word for token in cursor.tokens[-2:]]
        opens = words == ["START", "TRANSACTION"]
        change = self._change("create", [table])
        if change is None:
            # The rows of another schema's table follow; the transaction is one all the same.
            return SchemaChange("create", (), self._statement, opens_transaction=True) if opens else None
        change = replace(change, opens_transaction=opens, if_not_exists=if_not_exists, or_replace=or_replace)
        try:
            return replace(change, detail=Create(table, self._definition()))
        except UnclearStatementError as error:
            return replace(change, unclear=error.reason)

    def _definition(self) -> TableDefinition | TableName:
        cursor = self._cursor
        in_parentheses = cursor.accept_phrase("(", "LIKE")
        if in_parentheses or cursor.accept("LIKE"):
            like = self._names.read(cursor)
            if in_parentheses:
                cursor.expect(")")
            if not cursor.ended:
                raise UnclearStatementError("what follows the model of a table is not known")
            return like
        return read_definition(cursor)

    def _database(self) -> SchemaChange | None:
        """The defaults of our database change, or may."""
        cursor = self._cursor
        cursor.skip_if_not_exists()
        # ALTER DATABASE may leave the name out.
        named = cursor.tokens[cursor.at].kind in ("word", "quoted") if not cursor.ended else False
        default = cursor.peek() in ("CHARACTER", "CHARSET", "COLLATE", "DEFAULT", "READ", "ENCRYPTION")
        name = cursor.identifier() if named and not default else self._names.default_schema
        return SchemaChange("database", (), self._statement) if self._names.is_ours(name) else None

    def _alter(self) -> SchemaChange | None:
        cursor = self._cursor
        if cursor.accept("DATABASE", "SCHEMA"):
            return self._database()
        ignore = False
        while cursor.peek() in ("ONLINE", "IGNORE"):
            ignore = ignore or cursor.peek() == "IGNORE"
            cursor.at += 1
        if not cursor.accept("TABLE"):
            return None
        cursor.accept_phrase("IF", "EXISTS")
        table = self._names.read(cursor)
        change = self._change("alter", self._mentioned(table))
        if change is None:
            return None
        if ignore:
            return replace(change, unclear="ALTER IGNORE may drop rows")
        try:
            return replace(change, detail=Alter(table, read_alterations(cursor, self._names)))
        except UnclearStatementError as error:
            return replace(change, unclear=error.reason)

    def _mentioned(self, table: TableName) -> list[TableName]:
        """`table` and the others that an ALTER may touch, whatever else it does."""
        cursor = TokenCursor(self._cursor.tokens)
        cursor.at = self._cursor.at
        found = [table]
        while not cursor.ended:
            word = cursor.peek()
            cursor.at += 1
            if word == "RENAME" and cursor.peek() not in {"COLUMN", "INDEX", "KEY"}:
                cursor.accept("TO", "AS", "=")
                found.append(self._names.read(cursor))
            elif (word == "WITH" and cursor.accept("TABLE")) or (word == "TO" and cursor.accept("TABLE")):
                found.append(self._names.read(cursor))  # EXCHANGE PARTITION, CONVERT PARTITION
            elif word == "CONVERT" and cursor.accept("TABLE"):
                found.append(self._names.read(cursor))
        return found

    def _rename(self) -> SchemaChange | None:
        cursor = self._cursor
        if_exists = cursor.accept_phrase("IF", "EXISTS")
        pairs: list[tuple[TableName, TableName]] = []
        while True:
            old = self._names.read(cursor)
            if cursor.accept("WAIT"):
                cursor.next()
            cursor.accept("NOWAIT")
            if not cursor.accept("TO"):
                break
            pairs.append((old, self._names.read(cursor)))
            if not cursor.accept(","):
                break
        change = self._change("rename", [name for pair in pairs for name in pair])
        if change is None:
            return None
        if if_exists or not cursor.ended:
            return replace(change, unclear="tables are renamed where they exist")
        return replace(change, detail=Rename(tuple(pairs)))

    def _change(self, kind: ChangeKind, names: list[TableName]) -> SchemaChange | None:
        ours = [name.name for name in names if name.ours]
        return SchemaChange(kind, tuple(dict.fromkeys(ours)), self._statement) if ours else None
