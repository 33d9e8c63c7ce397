"""The transaction boundaries of a reader: where it hands on what it read, keeps appointments, and may stop."""

from __future__ import annotations

from collections.abc import Callable

from cdc.errors import SourceUnavailableError, StoppedError
from cdc.position import Position
from cdc.source.batcher import Batcher, FlushReason
from cdc.source.ddl import SchemaChange
from cdc.source.meetings import Meetings
from cdc.source.place import Place
from cdc.source.row_events import StreamCounts
from cdc.source.targets import Targets
from cdc.source.transaction import OpenTransaction, WholeTransactions


class Boundaries:
    """Ends the transactions that are read, and does what is due behind each.

    A batch goes with the boundary as its position; where no row of ours comes by, the position goes alone, at
    most once in `position_interval` seconds. `on_schema_change` gets the changes that stand before a boundary,
    and that boundary. `committed` tells whether the copy has the first place as it stands, `whole` which transactions
    must not be handed on in parts.
    """

    def __init__(
        self,
        place: Place,
        transaction: OpenTransaction,
        batcher: Batcher,
        targets: Targets,
        meetings: Meetings,
        counts: StreamCounts,
        *,
        on_schema_change: Callable[[list[SchemaChange], Position], None],
        position_interval: float,
        clock: Callable[[], float],
        committed: bool,
        whole: WholeTransactions,
    ) -> None:
        self.stopping = False
        """Whether the stream is to end at the next boundary; set by any thread."""
        self._place = place
        self._transaction = transaction
        self._batcher = batcher
        self._targets = targets
        self._meetings = meetings
        self._counts = counts
        self._on_schema_change = on_schema_change
        self._position_interval = position_interval
        self._clock = clock
        self._changes: list[SchemaChange] = []
        self._flushed = (place.file, place.offset) if committed else ("", 0)
        """File and offset of the position that was handed on last."""
        self._flushed_at = clock()
        self._whole = whole

    def settled(self, applied: Position) -> bool:
        """Whether `applied` is all that was read, and nothing is open; from any thread."""
        return (
            not self._transaction.is_open
            and not self._place.gtid_is_open
            and self._batcher.batch.opened_at is None
            and self._flushed == (applied.file, applied.offset)
        )

    # Inside a transaction ----------------------------------------------------------------------------

    def hand_on_part(self, reason: FlushReason) -> None:
        """The open transaction is too large for one batch. Raises StoppedError where the stream is to end."""
        if self.stopping:
            raise _stopped_inside()
        if self._whole.wanted(self._place.without_gtids):
            return
        self._transaction.hand_on_part(reason)

    def flush_before(self, reason: FlushReason) -> None:
        """Hands on what the open batch holds, with the boundary before what is being read as its position."""
        self._flush(reason, self._place.last_boundary)

    def abandon_transaction(self) -> None:
        """The source died inside the open transaction: its log ends there, and the GTID was never used.

        Raises SourceUnavailableError where parts of it were handed on.
        """
        if self._batcher.parts:
            raise SourceUnavailableError(
                "the source died inside a transaction of which parts were handed on",
                hint="they are rolled back, and the stream is read again from the committed position",
            )
        self._transaction.roll_back()
        self._place.forget_gtid()

    def expect(self, change: SchemaChange) -> None:
        """A change of the schema, announced at the next boundary; what came before it is handed on now."""
        if not self._changes and not self._batcher.parts:
            self.flush_before(FlushReason.SCHEMA)
        self._changes.append(change)

    # At a boundary -----------------------------------------------------------------------------------

    def conclude(self, timestamp: int) -> bool:
        """A transaction ends: its rows count, and the position may stand here. True ends the stream."""
        self._place.commit(timestamp)
        self._transaction.commit()
        self._counts.transactions += 1
        return self._arrive(drained=False)

    def passed(self) -> bool:
        """Transactions have ended, the last one here, that were taken all at once. True ends the stream."""
        return self._arrive(drained=False)

    def clear_until(self, log_pos: int) -> bool:
        """Whether this is a boundary, and nothing is to be done from here to that end position of an event."""
        place = self._place
        return not (
            self._transaction.is_open
            or place.gtid_is_open
            or self._changes
            or self._batcher.parts
            or self.stopping
            or not self._meetings.none_until(place, place.offset_of(log_pos))
        )

    def idle(self) -> bool:
        """Nothing more to read now. True ends the stream.

        Raises StoppedError where it is to end, and parts of a transaction were handed on.
        """
        place = self._place
        if self._transaction.is_open or place.gtid_is_open or not place.known:
            if self.stopping and self._batcher.parts:
                raise _stopped_inside()
            return self.stopping  # what is unfinished comes again after the next start
        return self._arrive(drained=True)

    def keep_meetings(self) -> bool:
        """Keeps the appointments that are due at this boundary. True ends the stream: it may have been held, and
        stopped meanwhile, with tables that have joined and that it does not know."""
        if self._meetings.keep(self._place, self._flush_for_meeting):
            self._targets.clear()
        return self._ends()

    def _arrive(self, *, drained: bool) -> bool:
        """At a boundary: flushes what is due, keeps appointments. True ends the stream."""
        if self._changes:
            self._announce_changes()
        reason = self._batcher.due(drained=drained)
        if reason is not None:
            self._flush(reason)
        elif self._batcher.batch.opened_at is None and self._position_due(drained=drained):
            self._flush(FlushReason.POSITION)
        return self.keep_meetings() if self._meetings else self._ends()

    def _ends(self) -> bool:
        if self.stopping:
            self._flush(FlushReason.BARRIER)
        return self.stopping

    def _announce_changes(self) -> None:
        changes, self._changes = self._changes, []
        self._on_schema_change(changes, self._place.position)
        self._flushed = (self._place.file, self._place.offset)
        self._targets.clear()

    def _position_due(self, *, drained: bool) -> bool:
        if (self._place.file, self._place.offset) == self._flushed:
            return False
        interval = self._position_interval if drained else 2 * self._position_interval
        return self._clock() - self._flushed_at >= interval

    def _flush(self, reason: FlushReason, position: Position | None = None) -> None:
        position = position or self._place.position
        self._flushed = (position.file, position.offset)
        self._flushed_at = self._clock()
        self._batcher.flush(position, reason)

    def _flush_for_meeting(self) -> None:
        """Hands on all before this boundary, and the boundary, unless that has been done."""
        if (self._place.file, self._place.offset) != self._flushed:
            self._flush(FlushReason.BARRIER)


def _stopped_inside() -> StoppedError:
    return StoppedError("the stream was stopped inside a transaction", hint="it comes again")
