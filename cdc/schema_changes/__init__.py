"""Schema changes: carried out on the copy where they can be derived exactly, else by another copy."""

from __future__ import annotations

from cdc.schema_changes.changes import SchemaChanges
from cdc.schema_changes.selection import wanted

__all__ = ["SchemaChanges", "wanted"]
