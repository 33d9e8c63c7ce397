"""Micro-batches: whole transactions gathered until the writer is free, or a bound is met."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from cdc.position import Position
from cdc.source.cascades import Cascades, ParentChanges
from cdc.source.mixed_rows import MixedRows
from cdc.source.row_layout import RowLayout
from cdc.source.rows import RowBuffer
from cdc.source.table_map import TableMap

MAX_BUFFERS = 32
"""Tables in one batch, at the next boundary: each keeps 2 MB of DuckDB's memory until it is committed."""

_PATIENCE = 4
"""A full batch waits for the end of its transaction until it has this part more than it may hold: parts of a
transaction are applied by replacing, which takes longer, and what rolls it back in part has it read again."""


class FlushReason(StrEnum):
    """Why a batch was closed."""

    IDLE = "idle"
    """The source has nothing more to send and the writer is free."""
    AGE = "age"
    ROWS = "rows"
    BYTES = "bytes"
    TABLES = "tables"
    BARRIER = "barrier"
    """Someone waits for everything up to here."""
    SCHEMA = "schema"
    POSITION = "position"
    """No row of ours, but the position must not stay behind."""


Rows = RowBuffer | MixedRows
Buffered = Rows | ParentChanges


@dataclass(frozen=True, slots=True)
class Prepared:
    """A part of a prepared XA transaction (`part` counts from 0); without `events` it is decided."""

    xid: str
    part: int
    events: bytes | None


@dataclass(slots=True)
class Batch:
    """Rows of whole transactions, or of a part of one that is too large for one batch.

    `position` is the boundary behind the last transaction; None marks a part that more parts follow.
    `buffers` are to be applied in order; one table has more than one where its columns changed. `prepared` is
    what changes among the prepared XA transactions, in order.
    """

    buffers: list[tuple[str, Buffered]] = field(default_factory=list)
    prepared: list[Prepared] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    transactions: int = 0
    position: Position | None = None
    reason: FlushReason = FlushReason.IDLE
    opened_at: float | None = None


class Batcher:
    """The open batch of one stream, and when to hand it on.

    `deliver` takes a closed batch and blocks while the writer is behind: that is what slows the reader
    down. `hungry` tells whether the writer has nothing to do. A batch closes at a transaction boundary
    when the writer is hungry and either nothing more waits to be read or the batch is `max_age` old; or
    when it holds very many tables; or when it holds `max_rows` or `max_bytes`. In the middle of a transaction
    it closes where it holds a quarter more. `growth` is asked with each new batch, which may hold so many times
    `max_rows`.
    """

    def __init__(
        self,
        deliver: Callable[[Batch], None],
        hungry: Callable[[], bool],
        *,
        max_rows: int,
        max_bytes: int,
        max_age: float,
        growth: Callable[[], float] = lambda: 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deliver = deliver
        self._hungry = hungry
        self._usual_rows = max_rows
        self._growth = growth
        self._max_rows = int(max_rows * growth())
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._clock = clock
        self.batch = Batch()
        self.parts = 0
        """Parts of the open transaction that are already handed on."""

    def buffer(self, table: str, table_map: TableMap, layout: RowLayout) -> Rows:
        """The buffer that takes `table`'s full row images now."""
        if self.batch.opened_at is None:
            self.batch.opened_at = self._clock()
        for name, buffer in reversed(self.batch.buffers):
            if isinstance(buffer, ParentChanges):
                if buffer.blocks(table):
                    break
            elif name == table:
                if buffer.table_map is table_map:
                    return buffer
                break
        fresh = RowBuffer(table_map, layout)
        self.batch.buffers.append((table, fresh))
        return fresh

    def mixed_buffer(self, table: str, table_map: TableMap) -> MixedRows:
        """The buffer that takes `table`'s row images of any columns; full ones go there too from now on."""
        if self.batch.opened_at is None:
            self.batch.opened_at = self._clock()
        for name, buffer in reversed(self.batch.buffers):
            if isinstance(buffer, ParentChanges):
                if buffer.blocks(table):
                    break
            elif name == table:
                if buffer.table_map is table_map and isinstance(buffer, MixedRows):
                    return buffer
                break
        fresh = MixedRows(table_map)
        self.batch.buffers.append((table, fresh))
        return fresh

    def parent_changes(self, cascades: Cascades) -> ParentChanges:
        """What takes a change of a parent's row now: behind all rows that its cascade may concern."""
        for name, buffer in reversed(self.batch.buffers):
            if isinstance(buffer, ParentChanges):
                return buffer
            if name in cascades.children:
                break
        fresh = ParentChanges(cascades.frozen())
        self.batch.buffers.append(("", fresh))
        return fresh

    def prepare(self, xid: str, part: int, events: bytes | None) -> None:
        """Keeps a part of a prepared XA transaction; without `events`, forgets the transaction."""
        if self.batch.opened_at is None:
            self.batch.opened_at = self._clock()
        self.batch.prepared.append(Prepared(xid, part, events))
        self.batch.bytes += len(events) if events is not None else 0

    def room(self) -> tuple[int, int, set[str]]:
        """How many rows and bytes the open batch lacks before it is full, and the tables that it has."""
        tables = {name for name, _ in self.batch.buffers}
        return self._max_rows - self.batch.rows, self._max_bytes - self.batch.bytes, tables

    def full(self) -> FlushReason | None:
        """The bound that the open batch has met, if any."""
        return self._past(self._max_rows, self._max_bytes)

    def overfull(self) -> FlushReason | None:
        """The bound that the open batch has passed so far that the end of its transaction is not waited for, if any."""
        return self._past(
            self._max_rows + self._max_rows // _PATIENCE, self._max_bytes + self._max_bytes // _PATIENCE
        )

    def _past(self, rows: int, size: int) -> FlushReason | None:
        if self.batch.rows >= rows:
            return FlushReason.ROWS
        if self.batch.bytes >= size:
            return FlushReason.BYTES
        return None

    def due(self, *, drained: bool) -> FlushReason | None:
        """Why the open batch should be handed on at this transaction boundary; None if it should not."""
        if self.parts:
            return FlushReason.ROWS  # the last part of a large transaction: commit it
        if self.batch.opened_at is None:
            return None
        full = self.full()
        if full is not None:
            return full
        if len(self.batch.buffers) >= MAX_BUFFERS:
            return FlushReason.TABLES
        if not drained and self._clock() - self.batch.opened_at < self._max_age:
            return None
        if not self._hungry():
            return None
        return FlushReason.IDLE if drained else FlushReason.AGE

    def flush_part(self, reason: FlushReason) -> None:
        """Hand on a part of the open transaction; more parts follow."""
        self.parts += 1
        self._close(None, reason)

    def flush(self, position: Position, reason: FlushReason) -> None:
        """Hand on everything up to the boundary `position`."""
        self.parts = 0
        self._close(position, reason)

    def _close(self, position: Position | None, reason: FlushReason) -> None:
        batch, self.batch = self.batch, Batch()
        batch.position, batch.reason = position, reason
        self._deliver(batch)
        self._max_rows = int(self._usual_rows * self._growth())
