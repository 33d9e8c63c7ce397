"""Column definitions, as CREATE TABLE and ALTER TABLE give them.

Grammar: MySQL manual, "CREATE TABLE Statement"; MariaDB's, the same. What is not known here makes the whole
statement unclear, so that the table is copied again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cdc.source.ddl.cursor import TokenCursor, UnclearStatementError

_SYNONYMS = {
    "INTEGER": "int",
    "INT1": "tinyint",
    "INT2": "smallint",
    "INT3": "mediumint",
    "INT4": "int",
    "INT8": "bigint",
    "MIDDLEINT": "mediumint",
    "DEC": "decimal",
    "NUMERIC": "decimal",
    "FIXED": "decimal",
    "CHARACTER": "char",
    "VARCHARACTER": "varchar",
    "FLOAT4": "float",
    "FLOAT8": "double",
}
_KNOWN = frozenset(
    {
        *("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double", "bit", "bool"),
        *("char", "varchar", "binary", "varbinary", "tinytext", "text", "mediumtext", "longtext"),
        *("tinyblob", "blob", "mediumblob", "longblob", "enum", "set", "json"),
        *("date", "time", "datetime", "timestamp", "year", "uuid", "inet4", "inet6"),
    }
)

DefaultKind = Literal["null", "string", "number", "bits", "hex", "boolean", "expression"]


@dataclass(frozen=True, slots=True)
class Default:
    """A DEFAULT clause. `text` is the constant without quotes; '' for NULL and for an expression."""

    kind: DefaultKind
    text: str = ""


@dataclass(frozen=True, slots=True)
class ColumnDefinition:
    """One column as a statement defines it. `data_type` is the server's own name of the type.

    `arguments` are the numbers in parentheses, `members` those of ENUM and SET. `nullable` is None where
    neither NULL nor NOT NULL stands there.
    """

    name: str
    data_type: str
    arguments: tuple[int, ...] = ()
    members: tuple[str, ...] = ()
    unsigned: bool = False
    zerofill: bool = False
    character_set: str | None = None
    collation: str | None = None
    nullable: bool | None = None
    default: Default | None = None
    generated: bool = False
    auto_increment: bool = False
    primary_key: bool = False
    invisible: bool = False
    cascading: bool = False


@dataclass(slots=True)
class _Draft:
    """A column definition that is being read."""

    name: str
    data_type: str
    fields: dict[str, object] = field(default_factory=dict)


def read_column(cursor: TokenCursor, name: str | None = None) -> ColumnDefinition:
    """The column definition that follows, up to a comma, a parenthesis, FIRST, AFTER or the end.

    `name` is given where it was read already. Raises UnclearStatementError.
    """
    draft = _Draft(cursor.name() if name is None else name, "")
    _read_type(cursor, draft)
    while not cursor.ended and cursor.peek() not in (",", ")", "FIRST", "AFTER"):
        _read_attribute(cursor, draft)
    return ColumnDefinition(draft.name, draft.data_type, **draft.fields)  # type: ignore[arg-type]


def _read_type(cursor: TokenCursor, draft: _Draft) -> None:
    word = cursor.peek()
    cursor.at += 1
    if word == "DOUBLE":
        cursor.accept("PRECISION")
    if word == "BOOLEAN":
        word = "BOOL"
    kind = _SYNONYMS.get(word, word.lower())
    if word in ("CHAR", "CHARACTER") and cursor.accept("VARYING"):
        kind = "varchar"
    if kind not in _KNOWN:
        raise UnclearStatementError("a type is not one that is derived from a statement")
    draft.data_type = kind
    if kind in ("enum", "set"):
        draft.fields["members"] = _members(cursor)
    elif cursor.accept("("):
        numbers = [cursor.number()]
        while cursor.accept(","):
            numbers.append(cursor.number())
        cursor.expect(")")
        draft.fields["arguments"] = tuple(numbers)
    while True:
        if cursor.accept("UNSIGNED"):
            draft.fields["unsigned"] = True
        elif cursor.accept("ZEROFILL"):
            draft.fields["unsigned"] = draft.fields["zerofill"] = True
        elif not cursor.accept("SIGNED"):
            break
    if kind == "bool":
        draft.data_type, draft.fields["arguments"] = "tinyint", (1,)


def _members(cursor: TokenCursor) -> tuple[str, ...]:
    cursor.expect("(")
    members = [cursor.string()]
    while cursor.accept(","):
        members.append(cursor.string())
    cursor.expect(")")
    return tuple(members)


def _read_attribute(cursor: TokenCursor, draft: _Draft) -> None:
    fields = draft.fields
    if cursor.accept("NOT"):
        if cursor.accept("NULL"):
            fields["nullable"] = False
        else:  # NOT SECONDARY, NOT ENFORCED (of a CHECK)
            cursor.expect("SECONDARY", "ENFORCED")
    elif cursor.accept("NULL"):
        fields["nullable"] = True
    elif cursor.accept("DEFAULT"):
        fields["default"] = _read_default(cursor)
    elif cursor.accept_phrase("ON", "UPDATE"):
        _pass_now(cursor)
    elif cursor.accept("AUTO_INCREMENT"):
        fields["auto_increment"] = True
    elif cursor.accept("PRIMARY"):
        cursor.accept("KEY")
        fields["primary_key"] = True
    elif cursor.accept("KEY"):
        fields["primary_key"] = True
    elif cursor.accept("UNIQUE"):
        cursor.accept("KEY")
    elif cursor.accept("COMMENT"):
        cursor.string()
    elif cursor.accept("CHARACTER", "CHARSET"):
        cursor.accept("SET")
        fields["character_set"] = character_set(cursor)
    elif cursor.accept("COLLATE"):
        fields["collation"] = collation(cursor)
    elif cursor.accept("GENERATED", "AS"):
        cursor.skip("ALWAYS", "AS")
        cursor.pass_parentheses()
        fields["generated"] = True
    elif fields.get("generated") and cursor.accept("VIRTUAL", "STORED", "PERSISTENT"):
        pass
    elif cursor.accept("INVISIBLE"):
        fields["invisible"] = True
    elif cursor.accept("VISIBLE", "ENFORCED"):
        pass
    elif cursor.accept("COLUMN_FORMAT", "STORAGE"):
        cursor.name()
    elif cursor.accept("CONSTRAINT"):
        if cursor.peek() != "CHECK":
            cursor.name()
    elif cursor.accept("CHECK"):
        cursor.pass_parentheses()
    elif cursor.accept("REFERENCES"):
        fields["cascading"] = pass_reference(cursor) or fields.get("cascading", False)
    else:
        raise UnclearStatementError("a column's attribute is not known")


def _read_default(cursor: TokenCursor) -> Default:
    sign = "-" if cursor.accept("-") else ""
    if not sign:
        cursor.accept("+")
    if cursor.peek() == "(":
        cursor.pass_parentheses()
        return Default("expression")
    word = cursor.peek()
    token = cursor.next()
    if token is None:
        raise UnclearStatementError("a default was expected")
    if token.kind == "string" and not sign:
        return Default("string", token.text)
    if token.kind == "number":
        return Default("number", sign + token.text)
    if token.kind == "bits" and not sign:
        return Default("bits", token.text)
    if token.kind == "hex" and not sign:
        return Default("hex", token.text)
    if word == "NULL":
        return Default("null")
    if word in ("TRUE", "FALSE"):
        return Default("boolean", "1" if word == "TRUE" else "0")
    if token.kind == "word":
        if word.startswith(("0X", "0B")):
            return Default("expression")
        if cursor.peek() == "(":
            cursor.pass_parentheses()
        return Default("expression")
    raise UnclearStatementError("a default is not one that is read from a statement")


def _pass_now(cursor: TokenCursor) -> None:
    cursor.expect("CURRENT_TIMESTAMP", "NOW", "LOCALTIME", "LOCALTIMESTAMP")
    if cursor.peek() == "(":
        cursor.pass_parentheses()


def character_set(cursor: TokenCursor) -> str:
    """The name of a character set, in lower case. Raises UnclearStatementError for BINARY and DEFAULT."""
    token = cursor.next()
    if token is None or token.kind == "mark" or token.text.lower() in ("default", "binary"):
        raise UnclearStatementError("a character set is not one that is derived from a statement")
    return token.text.lower()


def collation(cursor: TokenCursor) -> str:
    """The name of a collation, in lower case. Raises UnclearStatementError for BINARY and DEFAULT."""
    return character_set(cursor)


def pass_reference(cursor: TokenCursor) -> bool:
    """Passes what stands behind REFERENCES; whether the key changes rows of its table by itself."""
    cursor.name()
    if cursor.accept("."):
        cursor.name()
    if cursor.peek() == "(":
        cursor.pass_parentheses()
    cascading = False
    while True:
        if cursor.accept("MATCH"):
            cursor.expect("FULL", "PARTIAL", "SIMPLE")
        elif cursor.accept_phrase("ON", "UPDATE") or cursor.accept_phrase("ON", "DELETE"):
            if cursor.accept("CASCADE", "SET"):
                cursor.accept("NULL", "DEFAULT")
                cascading = True
            elif not cursor.accept_phrase("NO", "ACTION"):
                cursor.expect("RESTRICT")
        else:
            return cascading
