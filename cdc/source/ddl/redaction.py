"""A statement as it may be shown: without comments, and without the text of its strings."""

from __future__ import annotations

from cdc.source.ddl.lexer import Token, UnreadableStatementError, lex

_SECRET = frozenset({"string", "introduced", "hex", "bits"})
_KEPT = 10_000
"""Characters of a statement that are kept: partition lists can be long."""


def redacted(statement: str, sql_mode: int = 0) -> str:
    """`statement` with '…' for every string but the members of ENUM and SET, and no comments.

    Defaults, comments on columns and connection strings may hold what is nobody's business; members are
    types. Cut to 10,000 characters.
    """
    try:
        tokens = lex(statement, sql_mode).tokens
    except UnreadableStatementError:
        return statement.lstrip()[:6].split(" ")[0].upper() + " …"
    parts: list[str] = []
    end = tokens[0].start if tokens else 0
    for at, token in enumerate(tokens):
        if token.start > end:
            parts.append(" ")
        shown = token.kind not in _SECRET or _is_member(tokens, at)
        parts.append(statement[token.start : token.end] if shown else "'…'")
        end = token.end
    text = "".join(parts)
    return text if len(text) <= _KEPT else text[: _KEPT - 1] + "…"


def _is_member(tokens: tuple[Token, ...], at: int) -> bool:
    """Whether a string stands in the parentheses of ENUM or SET, behind nothing but strings and commas."""
    if tokens[at].kind != "string":
        return False
    at -= 1
    while at > 1 and (tokens[at].kind == "string" or tokens[at].word == ","):
        at -= 1
    return at >= 1 and tokens[at].word == "(" and tokens[at - 1].word in ("ENUM", "SET")
