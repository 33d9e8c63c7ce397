"""The copies that are due without being asked for: of which tables, and how often each was tried."""

from __future__ import annotations

from collections.abc import Iterable

from cdc.errors import DucklingError, NotFoundError
from cdc.runs import Run

_TRIES = 5
"""Attempts at an automatic copy of the same tables before they are left to a human."""


class DueCopies:
    """Tables to copy without being asked, in order. Only one thread at a time may change it."""

    def __init__(self, *, fill_empty: bool) -> None:
        self.fill_empty = fill_empty
        """Whether an empty replica is to be filled."""
        self._tables: dict[str, None] = {}
        self._attempts: dict[str, int] = {}

    def __bool__(self) -> bool:
        """Whether a table is due."""
        return bool(self._tables)

    @property
    def tables(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._tables)

    def add(self, names: Iterable[str]) -> None:
        """These must be copied (again)."""
        for name in names:
            self._tables.setdefault(name)

    def take(self, run: Run) -> list[str]:
        """Those that `run` copies: they are no longer due."""
        taken = [name for name in self._tables if not run.tables or name in run.tables]
        for name in taken:
            del self._tables[name]
        return taken

    def copied(self, names: Iterable[str]) -> None:
        """These were copied well, asked for or not."""
        for name in names:
            self._attempts.pop(name, None)

    def failed(self, taken: list[str], error: DucklingError) -> list[str]:
        """A copy failed: those that were taken for it come again, up to a number of times. Returns those that don't."""
        if isinstance(error, NotFoundError):
            return []
        given_up = []
        for name in taken:
            tries = self._attempts.get(name, 0) + 1
            self._attempts[name] = tries
            if tries < _TRIES or error.retryable:
                self._tables.setdefault(name)
            else:
                given_up.append(name)
        return given_up

    def forget(self) -> None:
        """The replica is being cleared, and stays empty until somebody asks."""
        self.fill_empty = False
        self._tables.clear()
