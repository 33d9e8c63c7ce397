"""Rows events into the buffers of the open batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cdc.errors import BinlogError
from cdc.source import events
from cdc.source.batcher import Batcher, Rows
from cdc.source.cascades import Cascades, refers_beyond_key, sets_off
from cdc.source.compressed_events import uncompressed
from cdc.source.rows import DELETE, INSERT, UPDATE
from cdc.source.targets import Target, Targets
from cdc.source.transaction import OpenTransaction

OPERATIONS: dict[int, int] = {
    **dict.fromkeys(events.INSERT_ROWS, INSERT),
    **dict.fromkeys(events.UPDATE_ROWS, UPDATE),
    **dict.fromkeys(events.DELETE_ROWS, DELETE),
}
"""What the rows of each kind of event do."""

_NO_TABLE = b"\xff\xff\xff\x00\x00\x00"
"""The table id of an empty event that only ends a statement."""


@dataclass(slots=True)
class StreamCounts:
    """What a reader has seen since it was made; rows are those of captured tables."""

    events: int = 0
    transactions: int = 0
    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    last_event: float | None = None
    """Wall clock of the last packet from the source, heartbeats included."""

    def add_rows(self, operation: int, count: int) -> None:
        """So many rows of one operation were seen."""
        if operation == INSERT:
            self.inserts += count
        elif operation == UPDATE:
            self.updates += count
        else:
            self.deletes += count

    def __add__(self, later: StreamCounts) -> StreamCounts:
        """What this reader and a `later` one have seen."""
        return StreamCounts(
            self.events + later.events,
            self.transactions + later.transactions,
            self.inserts + later.inserts,
            self.updates + later.updates,
            self.deletes + later.deletes,
            later.last_event or self.last_event,
        )


class Located(NamedTuple):
    """Whose rows an event holds (None: of no concern), and where its images begin.

    `first` and `last` say which columns the images before and after a change have: `full` is all. `cascading`: they can
    change rows of other tables that are not logged.
    """

    target: Target | None
    pos: int
    first: bytes
    last: bytes
    full: bool
    cascading: bool


_NOTHING = Located(None, 0, b"", b"", full=True, cascading=False)


class RowEvents:
    """Puts the rows of captured tables into their buffers; those of other tables are passed over."""

    __slots__ = ("_batcher", "_by_id", "_cascades", "_counts", "_transaction")

    def __init__(
        self,
        targets: Targets,
        batcher: Batcher,
        transaction: OpenTransaction,
        counts: StreamCounts,
        cascades: Cascades,
    ) -> None:
        self._cascades = cascades
        self._by_id = targets.by_id
        self._batcher = batcher
        self._transaction = transaction
        self._counts = counts

    def locate(self, kind: int, buffer: bytes, body: int) -> Located:
        """Looks at what stands before the images in a rows event whose body begins at `body`. Raises BinlogError."""
        try:
            target = self._by_id[buffer[body : body + 6]]
        except KeyError:
            if buffer[body : body + 6] == _NO_TABLE:
                return _NOTHING
            raise BinlogError(
                "rows without a TABLE_MAP",
                hint="the position is not a transaction boundary: copy again with POST /sync/full",
            ) from None
        if target is None:
            return _NOTHING
        pos = body + 8
        if kind in events.ROWS_V2:
            pos += buffer[pos] | buffer[pos + 1] << 8
        pos += 1 if buffer[pos] < 251 else 3  # the number of columns, known from the TABLE_MAP
        width = len(target.present[0])
        first = last = buffer[pos : pos + width]
        pos += width
        if kind in events.UPDATE_ROWS:
            last = buffer[pos : pos + width]
            pos += width
        full = first in target.present and last in target.present
        cascading = (
            kind not in events.INSERT_ROWS
            and bool(self._cascades)
            and sets_off(self._cascades, target.key, kind, buffer[body + 6])
        )
        return Located(target, pos, first, last, full, cascading)

    def add(self, kind: int, buffer: bytes, body: int, end: int) -> bool:
        """Takes in a rows event between `body` (behind its header) and `end`; True if rows were added.

        Raises BinlogError; it names the table where the fault lies in its rows.
        """
        target, pos, first, last, full, cascading = self.locate(kind, buffer, body)
        if target is None:
            return False
        try:
            if pos > end:
                raise IndexError
            if kind in events.COMPRESSED_ROWS:
                buffer = uncompressed(buffer, pos, end)
                pos, end = 0, len(buffer)
            if full and kind != events.PARTIAL_UPDATE_ROWS:
                rows = self._batcher.buffer(target.key, target.table_map, target.layout)
                self._transaction.marks.append((rows, len(rows)))
                count = rows.add(OPERATIONS[kind], (buffer[pos:end],))
                if cascading and count:
                    self._add_parents(target, kind, rows, buffer, pos, end)
            else:
                count = self._add_mixed(target, kind, (first, last), buffer, pos, end)
                if cascading:
                    self._add_parent_images(target, kind, (first, last), buffer, pos, end)
        except (BinlogError, IndexError) as error:
            raise BinlogError(
                f"rows of table {target.table} can't be read",
                hint="the source's binary log may be damaged",
                table=target.table,
            ) from error
        self._counts.add_rows(OPERATIONS[kind], count)
        batch = self._batcher.batch
        batch.rows += count
        batch.bytes += end - pos
        return True

    def _add_parents(self, target: Target, kind: int, rows: Rows, buffer: bytes, pos: int, end: int) -> None:
        """Rows that others refer to: what became of those stands in no event."""
        cascades, table_map, layout = self._cascades, target.table_map, target.layout
        if not rows.last_removes_keys() and not refers_beyond_key(cascades, target.key, table_map, layout):
            return  # updates that left the keys alone
        changes = self._batcher.parent_changes(cascades)
        self._transaction.marks.append((changes, len(changes)))
        changes.add(target.key, kind, table_map, layout, buffer, pos, end)

    def _add_parent_images(
        self, target: Target, kind: int, bitmaps: tuple[bytes, bytes], buffer: bytes, pos: int, end: int
    ) -> None:
        """As `_add_parents`, for images that lack columns."""
        changes = self._batcher.parent_changes(self._cascades)
        self._transaction.marks.append((changes, len(changes)))
        images = changes.images(target.key, target.table_map)
        first, last = (_columns(bitmap, target.layout.column_count) for bitmap in bitmaps)
        if kind in events.UPDATE_ROWS:
            partial = kind == events.PARTIAL_UPDATE_ROWS
            images.add_images(UPDATE, first, last, buffer, pos, end, partial_json=partial)
        else:
            images.add_images(DELETE, first, None, buffer, pos, end)

    def _add_mixed(
        self, target: Target, kind: int, bitmaps: tuple[bytes, bytes], buffer: bytes, pos: int, end: int
    ) -> int:
        """Images that lack columns, or hold diffs of JSON documents; returns how many rows."""
        rows = self._batcher.mixed_buffer(target.key, target.table_map)
        self._transaction.marks.append((rows, len(rows)))
        first, last = (_columns(bitmap, target.layout.column_count) for bitmap in bitmaps)
        operation, partial = OPERATIONS[kind], kind == events.PARTIAL_UPDATE_ROWS
        before = None if operation == INSERT else first
        after = None if operation == DELETE else last
        return rows.add_images(operation, before, after, buffer, pos, end, partial_json=partial)


def _columns(bitmap: bytes, count: int) -> tuple[int, ...]:
    bits = int.from_bytes(bitmap, "little")
    return tuple(i for i in range(count) if bits >> i & 1)
