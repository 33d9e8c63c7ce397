"""What a path takes in its query: one object both reads it from a request and describes it in OpenAPI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from api.problems import MalformedError


@dataclass(frozen=True, slots=True)
class Parameter:
    """A text."""

    name: str
    description: str

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        return {"type": "string"}

    def text(self, request: Request) -> str | None:
        """The text as it came; None where there is none. Raises MalformedError where it came twice."""
        given = request.query_params.getlist(self.name)
        if len(given) > 1:
            raise MalformedError(f"{self.name} is given twice", hint="give it once")
        return given[0] if given else None


@dataclass(frozen=True, slots=True)
class Choice(Parameter):
    """One of some words."""

    words: tuple[str, ...] = ()

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        return {"type": "string", "enum": list(self.words)}

    def read(self, request: Request) -> str | None:
        """The word; None where there is none. Raises MalformedError."""
        value = self.text(request)
        if value is None or value in self.words:
            return value
        raise MalformedError(f"{self.name} has an unknown value", hint=f"one of: {', '.join(self.words)}")


@dataclass(frozen=True, slots=True)
class Flag(Parameter):
    """Yes or no."""

    default: bool = False

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        return {"type": "string", "enum": ["true", "false", "1", "0"], "default": str(self.default).lower()}

    def read(self, request: Request) -> bool:
        """Its value. Raises MalformedError."""
        value = self.text(request)
        if value is None:
            return self.default
        if value not in {"true", "false", "1", "0"}:
            raise MalformedError(f"{self.name} has an unknown value", hint="true or false")
        return value in {"true", "1"}


@dataclass(frozen=True, slots=True)
class Number(Parameter):
    """A whole number from `low` to `high`."""

    default: int = 0
    low: int = 0
    high: int = 0

    @property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high, "default": self.default}

    def read(self, request: Request) -> int:
        """Its value. Raises MalformedError."""
        value = self.text(request)
        if value is None:
            return self.default
        if not (value.isascii() and value.isdecimal() and len(value) < 10):
            raise MalformedError(f"{self.name} is no whole number", hint=f"from {self.low} to {self.high}")
        if not self.low <= int(value) <= self.high:
            raise MalformedError(f"{self.name} is out of range", hint=f"from {self.low} to {self.high}")
        return int(value)
