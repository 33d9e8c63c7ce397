"""The text of a statement into tokens, by the rules of the session that sent it.

Rules: MySQL manual, "Comments", "String Literals", "Schema Object Names"; MariaDB adds `/*M!`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ANSI_QUOTES = 1 << 2
NO_BACKSLASH_ESCAPES = 1 << 20
"""Bits of sql_mode as QUERY events carry it (MySQL's system_variables.h, the same in MariaDB)."""

TokenKind = Literal["word", "quoted", "string", "number", "bits", "hex", "introduced", "mark"]

_SPACE = re.compile(r"\s+")
_LINE_COMMENT = re.compile(r"(?:--(?=[\s\x00-\x1f]|$)|#)[^\n]*")
_EXECUTABLE = re.compile(r"/\*(M?)!\d*")
_WORD = re.compile(r"[0-9A-Za-z_$\u0080-\U0010ffff]+")
_NUMBER = re.compile(r"\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]\d+")
_ESCAPES = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "%": "\\%", "_": "\\_"}


class UnreadableStatementError(ValueError):
    """A quote or comment that does not end."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token. `text` is its meaning: quotes and escapes taken away; `start` and `end` are its place.

    "word": a name or keyword without quotes; "quoted": a name in quotes; "bits" and "hex": the digits of
    b'01' and x'ff'; "introduced": a string with a character set in front; "mark": any other character.
    """

    kind: TokenKind
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """In upper case, as keywords are compared; '' for what is no keyword."""
        return self.text.upper() if self.kind in ("word", "mark", "number") else ""


@dataclass(frozen=True, slots=True)
class Lexed:
    """The tokens of one statement.

    `certain` is False where a comment is run by MariaDB only: its tokens are there, but MySQL passes them
    over. All others have been run: of a `/*!` that a server passes over, it writes `/* ` to the log.
    """

    tokens: tuple[Token, ...]
    certain: bool = True


def lex(text: str, sql_mode: int = 0) -> Lexed:
    """All tokens of `text`, those in executable comments too, up to a semicolon at its end.

    Raises UnreadableStatementError.
    """
    return _Lexer(text, sql_mode).run()


class _Lexer:
    def __init__(self, text: str, sql_mode: int) -> None:
        self._text = text
        self._at = 0
        self._names = '`"' if sql_mode & ANSI_QUOTES else "`"
        self._backslash = not sql_mode & NO_BACKSLASH_ESCAPES
        self._certain = True
        self._tokens: list[Token] = []

    def run(self) -> Lexed:
        inside = False
        while self._at < len(self._text):
            if inside and self._text.startswith("*/", self._at):
                inside = False
                self._at += 2
            elif (found := _EXECUTABLE.match(self._text, self._at)) and not inside:
                inside = True
                self._at = found.end()
                self._certain = self._certain and not found[1]
            elif not self._skip():
                self._token()
        if inside:
            raise UnreadableStatementError("a comment does not end")
        while self._tokens and self._tokens[-1].text == ";" and self._tokens[-1].kind == "mark":
            self._tokens.pop()
        return Lexed(tuple(self._tokens), self._certain)

    def _skip(self) -> bool:
        """Passes over space or a comment."""
        for pattern in (_SPACE, _LINE_COMMENT):
            if found := pattern.match(self._text, self._at):
                self._at = found.end()
                return True
        if self._text.startswith("/*", self._at):
            end = self._text.find("*/", self._at + 2)
            if end < 0:
                raise UnreadableStatementError("a comment does not end")
            self._at = end + 2
            return True
        return False

    def _add(self, kind: TokenKind, text: str, start: int) -> None:
        self._tokens.append(Token(kind, text, start, self._at))

    def _token(self) -> None:
        text, start = self._text, self._at
        first = text[start]
        if first in self._names:
            self._add("quoted", self._quoted(first, escapes=False), start)
        elif first in "'\"":
            self._string(start, first)
        elif found := _WORD.match(text, start):
            self._word(found, start)
        else:
            self._at += 1
            self._add("mark", first, start)

    def _string(self, start: int, quote: str) -> None:
        value = self._quoted(quote, escapes=self._backslash)
        before = self._tokens[-1] if self._tokens else None
        if before is not None and before.kind == "string":  # 'a' 'b' is one string
            self._tokens[-1] = Token("string", before.text + value, before.start, self._at)
        else:
            self._add("string", value, start)

    def _word(self, found: re.Match[str], start: int) -> None:
        """A name, keyword or number, or what stands before the quote of a special string."""
        text = self._text
        after_dot = bool(self._tokens) and self._tokens[-1].text == "." and self._tokens[-1].end == start
        number = None if after_dot else _NUMBER.match(text, start)
        self._at = number.end() if number else found.end()
        word = text[start : self._at]
        following = text[self._at : self._at + 1]
        kinds: dict[str, TokenKind] = {"b": "bits", "x": "hex", "n": "introduced"}
        if following == "'" and word.lower() in kinds:
            self._add(kinds[word.lower()], self._quoted("'", escapes=self._backslash), start)
            self._tokens[-1] = Token(self._tokens[-1].kind, self._tokens[-1].text, start, self._at)
        elif following in ("'", '"') and word.startswith("_") and following not in self._names and following:
            value = self._quoted(following, escapes=self._backslash)
            self._tokens.append(Token("introduced", value, start, self._at))
        elif number or (word.isdecimal() and word.isascii()):
            self._add("number", word, start)
        else:
            self._add("word", word, start)

    def _quoted(self, quote: str, *, escapes: bool) -> str:
        """What stands in the quotes that begin here; the place is then behind them."""
        text, at = self._text, self._at + 1
        parts: list[str] = []
        while at < len(text):
            character = text[at]
            if character == quote:
                if text.startswith(quote, at + 1):
                    parts.append(quote)
                    at += 2
                    continue
                self._at = at + 1
                return "".join(parts)
            if character == "\\" and escapes and at + 1 < len(text):
                parts.append(_ESCAPES.get(text[at + 1], text[at + 1]))
                at += 2
            else:
                parts.append(character)
                at += 1
        raise UnreadableStatementError("a quote does not end")
