"""Many transactions at once: those that do nothing but change rows, one behind another in one receive buffer.

A small transaction is five events for one row, and to decide what each of them is costs more than the row. Where the
kinds of a stretch's events spell transactions of the ordinary form, what can be told of all of them is told with a few
operations on arrays (`event_run`); a checksum is left for each event, and for each event of rows a look at its table.

It is a short cut and nothing else. What is not entirely ordinary is left to the plain way (`stream`), from its
transaction on: that knows how to deal with it, and where in the log to say that it can't.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from cdc.errors import BinlogError, DucklingError
from cdc.source import events
from cdc.source.batcher import MAX_BUFFERS, Batcher, Buffered
from cdc.source.binlog import Stretch
from cdc.source.event_run import EventRun
from cdc.source.place import Place
from cdc.source.row_events import OPERATIONS, RowEvents, StreamCounts
from cdc.source.targets import Target, Targets

_FEWEST = 8
"""Transactions for which arrays are worth their making."""

# GTID or ANONYMOUS_GTID; QUERY; TABLE_MAP, ROWS_QUERY and rows of version 2; XID.
_MYSQL = rb"[\x21\x22]\x02[\x13\x1d\x1e\x1f\x20]++\x10"
# MariaDB's GTID, which begins a transaction; TABLE_MAP, ANNOTATE_ROWS and rows of version 1; XID.
_MARIADB = rb"\xa2[\x13\xa0\x17\x18\x19]++\x10"
_ORDINARY = re.compile(rb"(?:%b){%d,}+|(?:%b){%d,}+" % (_MYSQL, _FEWEST, _MARIADB, _FEWEST))


class _Rows(NamedTuple):
    """The rows of one event: its number in the run, whose rows, what they do, and their images."""

    event: int
    target: Target
    operation: int
    images: bytes


class OrdinaryTransactions:
    """Takes runs of ordinary transactions, between two boundaries of the stream."""

    def __init__(
        self, place: Place, targets: Targets, rows: RowEvents, batcher: Batcher, counts: StreamCounts
    ) -> None:
        self._place = place
        self._targets = targets
        self._rows = rows
        self._batcher = batcher
        self._counts = counts

    def find(self, stretch: Stretch) -> Iterator[tuple[int, int]]:
        """Where their events begin and end among those of `stretch`, going by the kinds of events alone."""
        buffer = stretch.buffer
        if len(stretch.begins) < 3 * _FEWEST or len(buffer) - stretch.begins[-1] < events.HEADER_BYTES:
            return
        kinds = bytes([buffer[begin + 4] for begin in stretch.begins])
        for found in _ORDINARY.finditer(kinds):
            yield found.span()

    def take(self, run: EventRun) -> int:
        """Takes the transactions of `run`, or the first ones of them.

        Returns how many events these have. Where that is none, nothing has happened; otherwise the stream has arrived
        at a boundary (`Boundaries.passed`), as it must have been at one before.
        """
        if not self._place.leads_to(run.log_positions):
            return 0
        known = dict(self._targets.by_id)
        found, stop = self._find_rows(run)
        if stop < len(run):
            run = run.before(stop)
            found = [each for each in found if each.event < len(run)]
            self._targets.recall(known)
            self._add_tables(run)
        if run.transactions < _FEWEST or not self._add(found):
            self._targets.recall(known)
            return 0
        batch = self._batcher.batch
        batch.bytes += sum(len(each.images) for each in found)
        batch.transactions += run.transactions_with([each.event for each in found])
        self._counts.events += len(run)
        self._counts.transactions += run.transactions
        run.pass_over(self._place)
        return len(run)

    def _find_rows(self, run: EventRun) -> tuple[list[_Rows], int]:
        """The rows of captured tables, and the event that must go the plain way, or the run's length."""
        buffer, locate, add_table = run.buffer, self._rows.locate, self._targets.add
        table_map, operations = events.TABLE_MAP, OPERATIONS
        room, room_bytes, tables = self._batcher.room()
        found: list[_Rows] = []
        for number, kind, body, end in run.rows():
            try:
                if kind == table_map:
                    add_table(buffer, body, end)
                    continue
                target, pos, _, _, full, cascading = locate(kind, buffer, body)
            except (DucklingError, IndexError, ValueError):
                return found, number  # the plain way says what is wrong, and where
            if target is None:
                continue
            if not full or cascading or pos > end:
                return found, number
            if target.key not in tables:
                if len(tables) >= MAX_BUFFERS:
                    return found, number  # the batch is full behind the transaction before
                tables.add(target.key)
            if found and (len(found) >= room or room_bytes <= 0):
                return found, number
            room_bytes -= end - pos
            found.append(_Rows(number, target, operations[kind], buffer[pos:end]))
        return found, len(run)

    def _add_tables(self, run: EventRun) -> None:
        """Takes in the TABLE_MAPs of `run` alone, and not those that were seen ahead of it."""
        for _, kind, body, end in run.rows():
            if kind == events.TABLE_MAP:
                self._targets.add(run.buffer, body, end)

    def _add(self, found: Iterable[_Rows]) -> bool:
        """Puts rows into the batch; or none of them, where some can't be read."""
        marks: list[tuple[Buffered, int]] = []
        added: list[tuple[int, int]] = []
        for target, operation, images in _groups(found):
            rows = self._batcher.buffer(target.key, target.table_map, target.layout)
            marks.append((rows, len(rows)))
            try:
                added.append((operation, rows.add(operation, images)))
            except (BinlogError, IndexError):
                for buffer, length in reversed(marks):
                    buffer.truncate(length)
                return False
        for operation, count in added:
            self._counts.add_rows(operation, count)
            self._batcher.batch.rows += count
        return True


def _groups(found: Iterable[_Rows]) -> list[tuple[Target, int, list[bytes]]]:
    """Images that can be added together: of one table and operation, with no others of that table between them."""
    groups: list[tuple[Target, int, list[bytes]]] = []
    latest: dict[str, tuple[Target, int, list[bytes]]] = {}
    for _, target, operation, images in found:
        group = latest.get(target.key)
        if group is None or group[0] is not target or group[1] != operation:
            group = latest[target.key] = (target, operation, [])
            groups.append(group)
        group[2].append(images)
    return groups
