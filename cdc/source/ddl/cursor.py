"""A place in the tokens of a statement, and what can be read from there."""

from __future__ import annotations

from collections.abc import Sequence

from cdc.source.ddl.lexer import Token


class UnclearStatementError(Exception):
    """A clause that is not known; `reason` says which, without values of the statement."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenCursor:
    """Reads tokens from left to right. Words are compared in upper case; quoted names are no words."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.at = 0

    @property
    def ended(self) -> bool:
        """Whether all was read."""
        return self.at >= len(self.tokens)

    def peek(self, ahead: int = 0) -> str:
        """The word or mark that follows, '' for a quoted name or a string, and at the end."""
        place = self.at + ahead
        return self.tokens[place].word if place < len(self.tokens) else ""

    def next(self) -> Token | None:
        """The next token, whatever it is; None at the end."""
        if self.ended:
            return None
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, *words: str) -> bool:
        """Passes one of `words`, if it follows."""
        if self.peek() in words:
            self.at += 1
            return True
        return False

    def accept_phrase(self, *words: str) -> bool:
        """Passes `words`, if all follow in this order."""
        if all(self.peek(i) == word for i, word in enumerate(words)):
            self.at += len(words)
            return True
        return False

    def skip(self, *words: str) -> None:
        """Passes any of `words`, any number of times."""
        while self.accept(*words):
            pass

    def skip_if_not_exists(self) -> bool:
        """Passes IF NOT EXISTS; whether it was there."""
        return self.accept_phrase("IF", "NOT", "EXISTS")

    def expect(self, *words: str) -> None:
        """Passes one of `words`. Raises UnclearStatementError where another one follows."""
        if not self.accept(*words):
            raise UnclearStatementError(f"{words[0]} was expected")

    def identifier(self) -> str:
        """A name in quotes of any kind or in none; '' where none follows."""
        token = self.next()
        return token.text if token is not None and token.kind != "mark" else ""

    def name(self) -> str:
        """A name. Raises UnclearStatementError where none follows."""
        token = self.next()
        if token is None or token.kind not in ("word", "quoted", "number") or not token.text:
            raise UnclearStatementError("a name was expected")
        return token.text

    def number(self) -> int:
        """A whole number. Raises UnclearStatementError."""
        token = self.next()
        if token is None or token.kind != "number" or not token.text.isdecimal():
            raise UnclearStatementError("a number was expected")
        return int(token.text)

    def string(self) -> str:
        """A string. Raises UnclearStatementError."""
        token = self.next()
        if token is None or token.kind != "string":
            raise UnclearStatementError("a string was expected")
        return token.text

    def pass_parentheses(self) -> None:
        """Passes one pair of parentheses with all inside. Raises UnclearStatementError."""
        self.expect("(")
        depth = 1
        while depth:
            token = self.next()
            if token is None:
                raise UnclearStatementError("a parenthesis does not end")
            if token.kind == "mark":
                depth += {"(": 1, ")": -1}.get(token.text, 0)

    def pass_clause(self) -> None:
        """Passes everything up to the next comma outside parentheses, or the end."""
        while not self.ended and self.peek() != ",":
            if self.peek() == "(":
                self.pass_parentheses()
            else:
                self.at += 1
