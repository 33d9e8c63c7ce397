"""Which TABLE_MAP events speak of captured tables, and what their rows look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cdc.errors import BinlogError, SchemaMismatchError
from cdc.schema import NameCase, Table
from cdc.source.agreement import disagreement
from cdc.source.row_layout import RowLayout
from cdc.source.table_map import TableMap, read_table_map
from cdc.values.charsets import decoder

_MAX_KNOWN = 20_000
"""TABLE_MAP contents that are remembered: more than a schema has tables, few enough for their memory."""


@dataclass(slots=True)
class Target:
    """A captured table as one TABLE_MAP describes it."""

    key: str
    table: str
    table_map: TableMap
    layout: RowLayout
    present: tuple[bytes, bytes]
    """The columns-present bitmaps of a full row image: bits beyond the last column as zeros, and as ones."""


class Targets:
    """The tables that rows may belong to, by the table ids of the binary log.

    `tables` gives the captured tables of `schema` by the key that `names` makes of their name; after a
    change of them, call `clear`. `by_id` is by the six bytes of an event; None is a table of no concern.
    """

    __slots__ = ("_collations", "_known", "_names", "_schema", "_tables", "by_id")

    def __init__(
        self,
        tables: Callable[[], Mapping[str, Table]],
        *,
        schema: str,
        names: NameCase,
        collations: Mapping[int, str],
    ) -> None:
        self._tables = tables
        self._schema = names.key(schema)
        self._names = names
        self._collations = collations
        self._known: dict[bytes, Target | None] = {}
        self.by_id: dict[bytes, Target | None] = {}

    @property
    def tables(self) -> Mapping[str, Table]:
        """The captured tables, by the key of their name."""
        return self._tables()

    def clear(self) -> None:
        """Forget all: the captured tables are others now."""
        self._known.clear()
        self.by_id.clear()

    def recall(self, known: Mapping[bytes, Target | None]) -> None:
        """The tables by number are these again: what came since was not taken."""
        self.by_id.clear()
        self.by_id.update(known)

    def add(self, buffer: bytes, body: int, end: int) -> None:
        """Takes in a TABLE_MAP event that lies between `body` (behind its header) and `end`."""
        content = buffer[body + 6 : end]
        try:
            target = self._known[content]
        except KeyError:
            target = self._learn(content)
        self.by_id[buffer[body : body + 6]] = target

    def _learn(self, content: bytes) -> Target | None:
        """What a TABLE_MAP that was not seen before means for us."""
        if len(self._known) > _MAX_KNOWN:
            self._known.clear()
        length = content[2]
        target: Target | None = None
        if self._names.key(content[3 : 3 + length].decode()) == self._schema:
            at = 3 + length + 1
            key = self._names.key(content[at + 1 : at + 1 + content[at]].decode())
            table = self.tables.get(key)
            if table is not None:
                target = _target(key, table, read_table_map(content, self._collations, _member_text))
        self._known[content] = target
        return target


def _target(key: str, table: Table, table_map: TableMap) -> Target:
    if not table_map.named:
        raise BinlogError(
            f"the source writes no column names for table {table.name}",
            hint="SET GLOBAL binlog_row_metadata = FULL, then POST /sync/table/" + table.name,
            table=table.name,
            code="ROW_METADATA",
        )
    difference = disagreement(table, table_map)
    if difference is not None:
        raise SchemaMismatchError(
            f"the definition of table {table.name} changed: {difference}",
            hint=f"the table is copied again; by hand: POST /sync/table/{table.name}",
            table=table.name,
        )
    layout = RowLayout.of(table_map, table.primary_key)
    return Target(key, table.name, table_map, layout, (layout.columns_bitmap, b"\xff" * layout.null_bytes))


def _member_text(member: bytes, character_set: str | None) -> str:
    """A member of an ENUM or SET, which stands in the log in its column's character set."""
    if character_set in (None, "binary"):
        return member.decode("utf-8", "replace")
    return decoder(character_set)(member)
