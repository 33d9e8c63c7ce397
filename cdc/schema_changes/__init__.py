"""Schema changes: carried out on the copy where they can be derived exactly, else by another copy."""

from __future__ import annotations

from cdc.schema_changes.changes import SchemaChanges

__all__ = ["SchemaChanges"]
