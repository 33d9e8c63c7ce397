"""The transaction that is being read: what of it lies in the open batch, for the case that it is undone."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.errors import RolledBackPartError
from cdc.position import Position
from cdc.source.batcher import Batcher, Buffered, FlushReason

Marks = list[tuple[Buffered, int]]
"""Buffers and how many rows they had."""


@dataclass(slots=True)
class WholeTransactions:
    """Up to which place, that one included, no transaction is handed on in parts, for all readers of one log.

    Rows that came packed into one event, or are replayed, all stand at its end.
    """

    until: Position | None = None

    def wanted(self, here: Position) -> bool:
        """Whether the transaction that is read `here` must be kept whole, however large it is."""
        until = self.until
        return until is not None and here.server == until.server and until.reached(here)


class OpenTransaction:
    """Whether a transaction is open, and where its rows begin in the buffers of `batcher`.

    `marks` gets a buffer and its length before rows are added. Nothing of it outlasts a commit.
    """

    __slots__ = ("_batcher", "_savepoints", "is_open", "marks")

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._savepoints: dict[str, tuple[int, Marks]] = {}
        self.is_open = False
        self.marks: Marks = []

    def commit(self) -> None:
        """Its rows count."""
        self.is_open = False
        if self.marks:
            self._batcher.batch.transactions += 1
            self.marks.clear()
        if self._savepoints:
            self._savepoints.clear()

    def hand_on_part(self, reason: FlushReason) -> None:
        """Its rows so far go to the writer, who keeps them in an open transaction too."""
        self._batcher.flush_part(reason)
        self.marks = [(rows, 0) for rows, _ in self.marks[-1:]]

    def roll_back(self) -> None:
        """All its rows are undone. Raises RolledBackPartError where a part of them was handed on."""
        if self._batcher.parts:
            raise _part_is_applied()
        for buffer, length in reversed(self.marks):
            buffer.truncate(length)
        self._recount()
        self.marks.clear()
        self._savepoints.clear()
        self.is_open = False

    def set_savepoint(self, statement: str) -> None:
        """SAVEPOINT name: remembers what the batch holds."""
        lengths = [(buffer, len(buffer)) for _, buffer in self._batcher.batch.buffers]
        self._savepoints[_savepoint_name(statement)] = (self._batcher.parts, lengths)

    def roll_back_to(self, statement: str) -> None:
        """ROLLBACK TO name: undoes what came behind it. Raises RolledBackPartError where that was handed on."""
        parts, lengths = self._savepoints.get(_savepoint_name(statement), (-1, []))
        if parts != self._batcher.parts:
            raise _part_is_applied()
        kept = {id(buffer): length for buffer, length in lengths}
        for _, buffer in self._batcher.batch.buffers:
            buffer.truncate(kept.get(id(buffer), 0))
        self._recount()

    def _recount(self) -> None:
        self._batcher.batch.rows = sum(buffer.row_count for _, buffer in self._batcher.batch.buffers)


def _savepoint_name(statement: str) -> str:
    return statement.rstrip(" ;").split()[-1].strip("`")


def _part_is_applied() -> RolledBackPartError:
    return RolledBackPartError(
        "a transaction undoes rows of which a part was handed on",
        hint="it is read again and handed on whole; a BATCH_SIZE that it fits into saves that",
    )
