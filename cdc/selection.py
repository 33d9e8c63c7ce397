"""Which tables the settings choose, and which of them do without an index of their key."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from cdc.config import Settings


def wanted(settings: Settings, name: str) -> bool:
    """Whether a table called `name` is one that the settings choose."""
    included, excluded = settings.included_tables, settings.excluded_tables
    return (not included or _one_of(name, included)) and not _one_of(name, excluded)


def key_indexed(settings: Settings, name: str) -> bool:
    """Whether a table called `name` is to have DuckDB's index of its primary key."""
    return not _one_of(name, settings.unindexed_tables)


def _one_of(name: str, patterns: Sequence[str]) -> bool:
    """As the catalogue chooses: a name with a [ in it may stand for itself."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)
