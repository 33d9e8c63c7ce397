"""Statements of the binary log: what they change, clause by clause where that can be told."""

from __future__ import annotations

from cdc.source.ddl.statements import Alter, Create, Rename, SchemaChange, read_statement

__all__ = ["Alter", "Create", "Rename", "SchemaChange", "read_statement"]
