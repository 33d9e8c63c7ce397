"""Names of tables in a statement: which schema they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.schema import NameCase
from cdc.source.ddl.cursor import TokenCursor


@dataclass(frozen=True, slots=True)
class TableName:
    """A table; `ours` says whether it belongs to the replicated schema."""

    name: str
    ours: bool


@dataclass(frozen=True, slots=True)
class NameReader:
    """Reads names as a session with `default_schema` means them, for the replicated `schema`."""

    default_schema: str
    schema: str
    names: NameCase

    def read(self, cursor: TokenCursor) -> TableName:
        """The table that is named next; an empty name where none is."""
        first = cursor.identifier()
        owner = self.default_schema
        if cursor.accept("."):
            owner, first = first, cursor.identifier()
        return TableName(first, bool(first) and self.is_ours(owner))

    def read_list(self, cursor: TokenCursor) -> list[TableName]:
        """Names between commas."""
        found = [self.read(cursor)]
        while cursor.accept(","):
            found.append(self.read(cursor))
        return found

    def is_ours(self, schema: str) -> bool:
        """Whether `schema` is the replicated one."""
        return self.names.key(schema) == self.names.key(self.schema)
