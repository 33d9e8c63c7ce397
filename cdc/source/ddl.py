"""Statements of the binary log: which tables of the replicated schema they change, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sqlglot.dialects.mysql import MySQL
from sqlglot.errors import TokenError
from sqlglot.tokenizer_core import Token, TokenType

from cdc.schema import NameCase

_DATA_WORDS = {"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "WITH"}
_TABLE_WORDS = {"CREATE", "ALTER", "DROP", "RENAME", "TRUNCATE"}
_EXECUTABLE_COMMENT = re.compile(r"/\*M?!\d*(.*?)\*/", re.DOTALL)

ChangeKind = Literal["create", "alter", "rename", "truncate", "drop", "drop_database", "data"]


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A statement that may change tables of the replicated schema.

    `tables` are their names without the schema, old and new ones of a rename alike; empty for a dropped
    database, and for `data` (rows changed by the statement itself, not by row events).
    """

    kind: ChangeKind
    tables: tuple[str, ...]
    statement: str
    opens_transaction: bool = False
    """MySQL's CREATE TABLE … SELECT: row events and a commit follow."""

    @property
    def is_data(self) -> bool:
        """Rows changed by the statement itself: some session does not write row events."""
        return self.kind == "data"


def read_statement(statement: str, default_schema: str, schema: str, names: NameCase) -> SchemaChange | None:
    """What `statement`, run with `default_schema`, means for `schema`; None for nothing.

    Views, triggers, routines, users, indexes and other schemas mean nothing. Where names can't be told
    apart from the text, more tables than necessary are named, never fewer.
    """
    text = _EXECUTABLE_COMMENT.sub(r" \1 ", statement)
    word = _first_word(text)
    if word in _DATA_WORDS:
        ours = names.key(default_schema) == names.key(schema) or schema.lower() in text.lower()
        return SchemaChange("data", (), statement) if ours else None
    if word not in _TABLE_WORDS:
        return None
    try:
        tokens = MySQL().tokenize(text)
        if word == "RENAME" and len(tokens) > 1:  # sqlglot leaves the rest of this statement in one piece
            tokens = [tokens[0], *MySQL().tokenize(tokens[1].text)]
    except TokenError:
        return _all_words(text, statement, default_schema, schema, names)
    reader = _Reader(tokens, names.key(default_schema), names.key(schema), names)
    return reader.read(statement)


def _first_word(text: str) -> str:
    stripped = re.sub(r"^(?:\s+|--[^\n]*\n|#[^\n]*\n|/\*.*?\*/)+", "", text, flags=re.DOTALL)
    found = re.match(r"[A-Za-z]+", stripped)
    return found.group().upper() if found else ""


def _all_words(
    text: str, statement: str, default_schema: str, schema: str, names: NameCase
) -> SchemaChange | None:
    """A statement that can't be cut into tokens: every word in it may be a table's name."""
    if names.key(default_schema) != names.key(schema) and schema.lower() not in text.lower():
        return None
    return SchemaChange("alter", tuple(dict.fromkeys(re.findall(r"[\w$]+", text))), statement)


class _Reader:
    """Reads the table names of one statement from its tokens."""

    def __init__(self, tokens: list[Token], default_schema: str, schema: str, names: NameCase) -> None:
        self._tokens = tokens
        self._at = 0
        self._default_schema = default_schema
        self._schema = schema
        self._names = names

    def read(self, statement: str) -> SchemaChange | None:
        verb = self._next_word()
        if verb == "TRUNCATE":
            self._accept("TABLE")
            return self._change("truncate", self._name_list(), statement)
        if verb == "RENAME":
            if not self._accept("TABLE", "TABLES"):
                return None
            return self._change("rename", self._rename_pairs(), statement)
        if verb == "DROP":
            return self._drop(statement)
        if verb == "CREATE":
            return self._create(statement)
        return self._alter(statement)

    def _drop(self, statement: str) -> SchemaChange | None:
        if self._accept("DATABASE", "SCHEMA"):
            self._skip("IF", "EXISTS")
            name = self._identifier()
            return (
                SchemaChange("drop_database", (), statement)
                if self._names.key(name) == self._schema
                else None
            )
        if not self._accept("TABLE", "TABLES"):
            return None  # TEMPORARY tables among them
        self._skip("IF", "EXISTS")
        return self._change("drop", self._name_list(), statement)

    def _create(self, statement: str) -> SchemaChange | None:
        self._skip("OR", "REPLACE")
        if not self._accept("TABLE"):
            return None
        self._skip("IF", "NOT", "EXISTS")
        names = [self._name()]
        words = [token.text.upper() for token in self._tokens if token.token_type != TokenType.SEMICOLON]
        change = self._change("create", names, statement)
        opens = words[-2:] == ["START", "TRANSACTION"]
        if change is None:
            # The rows of another schema's table follow; the transaction is one all the same.
            return SchemaChange("create", (), statement, opens_transaction=True) if opens else None
        return SchemaChange("create", change.tables, statement, opens_transaction=opens)

    def _alter(self, statement: str) -> SchemaChange | None:
        self._skip("ONLINE", "IGNORE")
        if not self._accept("TABLE"):
            return None
        self._skip("IF", "EXISTS")
        names = [self._name()]
        while self._at < len(self._tokens):
            word = self._peek()
            self._at += 1
            if word == "RENAME" and self._peek() not in {"COLUMN", "INDEX", "KEY"}:
                self._accept("TO", "AS", "=")
                names.append(self._name())
            elif word == "WITH" and self._accept("TABLE"):  # EXCHANGE PARTITION … WITH TABLE
                names.append(self._name())
        return self._change("alter", names, statement)

    def _change(self, kind: ChangeKind, names: list[tuple[str, str]], statement: str) -> SchemaChange | None:
        ours = [name for owner, name in names if (owner or self._default_schema) == self._schema and name]
        return SchemaChange(kind, tuple(dict.fromkeys(ours)), statement) if ours else None

    def _name_list(self) -> list[tuple[str, str]]:
        names = [self._name()]
        while self._accept(","):
            names.append(self._name())
        return names

    def _rename_pairs(self) -> list[tuple[str, str]]:
        self._skip("IF", "EXISTS")
        names = [self._name()]
        while self._accept("TO", ",", "WAIT", "NOWAIT"):
            names.append(self._name())
        return names

    def _name(self) -> tuple[str, str]:
        """Schema in folded case ('' for the session's own), and table."""
        first = self._identifier()
        if self._accept("."):
            return self._names.key(first), self._identifier()
        return "", first

    def _identifier(self) -> str:
        if self._at >= len(self._tokens):
            return ""
        text = self._tokens[self._at].text
        self._at += 1
        return text

    def _next_word(self) -> str:
        return self._identifier().upper()

    def _peek(self) -> str:
        """The word that follows, in upper case; '' for a quoted name, which is no keyword, and at the end."""
        if self._at >= len(self._tokens):
            return ""
        token = self._tokens[self._at]
        quoted = token.token_type in (TokenType.IDENTIFIER, TokenType.STRING)
        return "" if quoted else token.text.upper()

    def _accept(self, *words: str) -> bool:
        if self._peek() in words:
            self._at += 1
            return True
        return False

    def _skip(self, *words: str) -> None:
        while self._accept(*words):
            pass
