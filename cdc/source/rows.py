"""Rows of the binary log as they came, until their batch closes: then they become columns, all at once."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import pyarrow as pa

from cdc.errors import SchemaMismatchError, ValueDecodeError
from cdc.schema import Table
from cdc.source.row_images import FixedCut, RowImages
from cdc.source.row_layout import RowLayout
from cdc.source.row_walk import walk_of
from cdc.source.table_map import TableMap
from cdc.types import row_schema
from cdc.values.arrays import Bytes, Ints
from cdc.values.binlog import fixed_column, prefixed_column
from cdc.values.raw_bytes import PADDING, RawBytes
from cdc.values.zero_dates import lost_dates

DELETE, INSERT, UPDATE = 0, 1, 2
"""What a buffered row does: remove its key, put a row whose key is new, put a row whose key exists."""

_BEFORE = 3
"""The image before an update, and before the one that is marked UPDATE: a row only where the key moves."""
_PAIR = bytes([_BEFORE, UPDATE])
_MOST_BYTES = (1 << 31) - 1


class RowBuffer:
    """Row images of one table in the order of the binlog. Its length is their number: an update has two."""

    __slots__ = (
        "_chunks",
        "_counts",
        "_raw",
        "_rows",
        "_starts",
        "_walk",
        "layout",
        "lost_dates",
        "ops",
        "table_map",
    )

    def __init__(self, table_map: TableMap, layout: RowLayout) -> None:
        self.table_map = table_map
        self.layout = layout
        self.ops = bytearray()
        """What each image stands for; of the image before an update only `operations` tells whether it is a row."""
        self.lost_dates = 0
        """Dates that the calendar lacks and that became NULL when `to_arrow` was called last."""
        self._walk = walk_of(layout)
        self._chunks: list[bytes] = []
        self._counts: list[int] = []
        """How many images each chunk has."""
        self._starts = array("I")
        """Where each image begins in its chunk."""
        self._raw: RawBytes | None = None
        self._rows: tuple[Ints, Bytes] | None = None

    def __len__(self) -> int:
        return len(self.ops)

    @property
    def row_count(self) -> int:
        """How many rows were added: an update is one."""
        return len(self.ops) - self.ops.count(_BEFORE)

    def add(self, operation: int, spans: Sequence[bytes]) -> int:
        """Takes the images of rows events, all of one `operation`; returns how many rows they hold.

        Raises BinlogError or IndexError where the images of one don't end with it.
        """
        if len(spans) == 1:
            [chunk] = spans
            bounds = [(0, len(chunk))]
        else:
            chunk = b"".join(spans)
            bounds = list(pairwise(accumulate(map(len, spans), initial=0)))
        first = next((start for start, end in bounds if start < end), None)
        if first is None:
            return 0
        known = len(self._starts)
        walk = self._walk.pairs if operation == UPDATE else self._walk.images
        walk(chunk, bounds, first, self._starts.append)
        count = len(self._starts) - known
        self._keep(chunk, count)
        if operation != UPDATE:
            self.ops += bytes([operation]) * count
            return count
        self.ops += _PAIR * (count // 2)
        return count // 2

    def add_image(self, operation: int, buffer: bytes, pos: int) -> int:
        """Takes the image that begins at `pos` as a row; returns where it ends. Errors as in `add`."""
        stop = self._walk.step(buffer, pos)
        if stop > len(buffer):
            raise IndexError
        self._starts.append(0)
        self._keep(buffer[pos:stop], 1)
        self.ops.append(operation)
        return stop

    def _keep(self, chunk: bytes, count: int) -> None:
        self._chunks.append(chunk)
        self._counts.append(count)
        self._raw = self._rows = None

    def truncate(self, length: int) -> None:
        """Forget all images behind the first `length`: a transaction or savepoint was rolled back."""
        excess = len(self.ops) - length
        del self.ops[length:], self._starts[length:]
        while excess > 0:
            last = min(excess, self._counts[-1])
            self._counts[-1] -= last
            excess -= last
            if not self._counts[-1]:
                del self._counts[-1], self._chunks[-1]
        self._raw = self._rows = None

    def last_removes_keys(self) -> bool:
        """Whether what was added last removes a key: as a delete, or as an update that moves it."""
        count = self._counts[-1]
        raw = RawBytes(self._chunks[-1] + bytes(PADDING))
        starts = np.array(self._starts[-count:], np.int64)
        return bool((_rows(self.layout, raw, starts, self.ops[-count:])[1] == DELETE).any())

    def images(self) -> RowImages:
        """The rows' images."""
        return RowImages(self.layout, self._joined(), self._resolved()[0])

    def operations(self) -> Bytes:
        """What each row does: DELETE, INSERT or UPDATE."""
        return self._resolved()[1]

    def to_arrow(self, table: Table) -> pa.Table:
        """All rows as an Arrow table of `row_schema(table)`, in the order of `operations`.

        Raises SchemaMismatchError where the rows lack one of the columns, ValueDecodeError where a value
        can't be converted.
        """
        self.lost_dates = 0
        targets = {column.name.casefold(): column for column in table.columns}
        sources = self.table_map.columns
        wanted = {
            i: targets[c.name.casefold()] for i, c in enumerate(sources) if c.name.casefold() in targets
        }
        arrays: dict[str, pa.Array] = {}
        for cut in self.images().cut(wanted):
            source, target = sources[cut.column], wanted[cut.column]
            if isinstance(cut, FixedCut):
                converted = fixed_column(target, source, cut.cells, cut.valid)
                nulls = 0 if cut.valid is None else int(np.count_nonzero(~cut.valid))
                self.lost_dates += lost_dates(target, converted, nulls)
            else:
                converted = prefixed_column(target, source, cut.cells)
            arrays[target.name] = converted
        missing = [column.name for column in table.columns if column.name not in arrays]
        if missing:
            raise SchemaMismatchError(
                f"rows of {table.name} in the binlog have no column {missing[0]!r}",
                hint=f"copy the table again: POST /sync/table/{table.name}",
                table=table.name,
            )
        return pa.Table.from_arrays([arrays[c.name] for c in table.columns], schema=row_schema(table))

    def _joined(self) -> RawBytes:
        """All chunks behind each other, which take the place of the single ones."""
        if self._raw is None:
            bases = np.repeat([*accumulate(map(len, self._chunks), initial=0)][:-1], self._counts)
            content = b"".join([*self._chunks, bytes(PADDING)])
            if len(content) > _MOST_BYTES:
                raise ValueDecodeError(
                    "The rows of one table in one batch exceed 2 GiB.",
                    hint="lower BATCH_BYTES; or, where one transaction undoes a part of itself, make it smaller",
                )
            starts = np.frombuffer(self._starts, np.uint32) + bases.astype(np.uint32)
            self._chunks, self._counts = [content], [len(starts)]
            self._starts = array("I", starts.tobytes())
            self._raw = RawBytes(content)
        return self._raw

    def _resolved(self) -> tuple[Ints, Bytes]:
        """Where the rows begin, and what they do."""
        raw = self._joined()
        if self._rows is None:
            starts = np.frombuffer(self._starts, np.uint32).astype(np.int64)
            self._rows = _rows(self.layout, raw, starts, self.ops)
        return self._rows


def _rows(layout: RowLayout, raw: RawBytes, starts: Ints, ops: bytearray) -> tuple[Ints, Bytes]:
    """Which of the images at `starts` are rows, and what these do."""
    operations = np.frombuffer(bytes(ops), np.uint8)
    before = np.flatnonzero(operations == _BEFORE)
    if not len(before):
        return starts, operations
    moves = np.ones(len(before), np.bool_)
    if layout.key:
        pairs = np.column_stack((starts[before], starts[before + 1])).reshape(-1)
        moves = RowImages(layout, raw, pairs).pairs_differ(layout.key)
    operations = operations.copy()
    operations[before] = DELETE
    operations[before[moves] + 1] = INSERT
    is_row = np.ones(len(operations), np.bool_)
    is_row[before[~moves]] = False
    return starts[is_row], operations[is_row]
