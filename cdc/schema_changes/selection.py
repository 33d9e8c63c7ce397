"""Which tables the settings choose."""

from __future__ import annotations

from fnmatch import fnmatchcase

from cdc.config import Settings


def wanted(settings: Settings, name: str) -> bool:
    """Whether a table called `name` is one that the settings choose."""
    included, excluded = settings.included_tables, settings.excluded_tables
    chosen = not included or any(fnmatchcase(name, pattern) for pattern in included)
    return chosen and not any(fnmatchcase(name, pattern) for pattern in excluded)
