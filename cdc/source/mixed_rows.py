"""Rows of one table whose images don't all hold all columns, in the order of the binlog.

A session can choose at any time that its row images hold the changed columns only (binlog_row_image =
MINIMAL or NOBLOB), or of a JSON document what changed in it (binlog_row_value_options = PARTIAL_JSON).
Nothing is completed here: what is missing is in the copy, or in an earlier row (`replica/completion`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from cdc.errors import BinlogError
from cdc.schema import Table
from cdc.source.row_layout import RowLayout
from cdc.source.rows import DELETE, INSERT, UPDATE, RowBuffer
from cdc.source.table_map import TableMap, read_lenenc
from cdc.values.binlog_column import FieldType

Columns = tuple[int, ...]
"""Which columns an image holds, as indexes into its TABLE_MAP."""

_PARTIAL_JSON = 1
"""Bit of the value options before the after image of a PARTIAL_UPDATE_ROWS event."""


@dataclass(frozen=True, slots=True)
class Image:
    """One row image: the buffer that holds it, and its row there."""

    buffer: RowBuffer
    row: int


@dataclass(frozen=True, slots=True)
class MixedRow:
    """One change; `diffs` are JSON diffs by column, for columns whose value in `after` means nothing."""

    operation: int
    before: Image | None
    after: Image | None
    diffs: dict[int, bytes] | None = None


class MixedRows:
    """As a RowBuffer, with images of any columns. `rows` are the changes, `images` the buffers of a column set.

    `add` takes full images, `add_images` any.
    """

    def __init__(self, table_map: TableMap) -> None:
        self.table_map = table_map
        self.ops = bytearray()
        self.lost_dates = 0
        """As RowBuffer's: dates that became NULL when `image_table` was called."""
        self.rows: list[MixedRow] = []
        self.images: dict[Columns, RowBuffer] = {}
        self._all = tuple(range(len(table_map.columns)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_count(self) -> int:
        """How many rows were added."""
        return len(self.rows)

    def truncate(self, length: int) -> None:
        """Forget all rows behind the first `length`: a transaction or savepoint was rolled back."""
        del self.rows[length:], self.ops[length:]

    def add(self, operation: int, spans: Sequence[bytes]) -> int:
        """Takes the full images of rows events, as `RowBuffer.add` does."""
        before = None if operation == INSERT else self._all
        after = None if operation == DELETE else self._all
        return sum(self.add_images(operation, before, after, span, 0, len(span)) for span in spans)

    def last_removes_keys(self) -> bool:
        """As `RowBuffer.last_removes_keys`; not looked at closely here, since only its cost depends on it."""
        return True

    def add_images(
        self,
        operation: int,
        before: Columns | None,
        after: Columns | None,
        buffer: bytes,
        pos: int,
        end: int,
        *,
        partial_json: bool = False,
    ) -> int:
        """Takes the images between `pos` and `end`, which hold the columns `before` and `after`.

        Returns how many rows there were. Raises BinlogError where the images don't end at `end`.
        """
        if not before and not after:
            raise _misfit()  # nothing would ever move `pos`
        old = self._image(before) if before is not None else None
        new = self._image(after) if after is not None else None
        count = 0
        while pos < end:
            old_image = new_image = None
            diffs: dict[int, bytes] | None = None
            if old is not None:
                old_image = Image(old, len(old))
                pos = old.add_image(UPDATE, buffer, pos)
            if new is not None:
                assert after is not None
                new_image = Image(new, len(new))
                if partial_json:
                    rewritten, diffs, pos = self._without_diffs(after, buffer, pos, end)
                    new.add_image(UPDATE, rewritten, 0)
                else:
                    pos = new.add_image(UPDATE, buffer, pos)
            self.rows.append(MixedRow(operation, old_image, new_image, diffs))
            self.ops.append(operation)
            count += 1
        if pos != end:
            raise _misfit()
        return count

    def _image(self, columns: Columns) -> RowBuffer:
        """The buffer for images of these columns."""
        found = self.images.get(columns)
        if found is None:
            part = replace(self.table_map, columns=tuple(self.table_map.columns[i] for i in columns))
            found = self.images[columns] = RowBuffer(part, RowLayout.of(part, ()))
        return found

    def _without_diffs(
        self, after: Columns, buffer: bytes, pos: int, end: int
    ) -> tuple[bytes, dict[int, bytes] | None, int]:
        """An after image of a PARTIAL_UPDATE_ROWS event with NULL in the place of JSON diffs; and the diffs.

        Layout: MySQL source documentation, mysql::binlog::event::Rows_event, "value_options" and
        "partial_bits": there is a bit for each JSON column of the table, in the image or not.
        """
        options, pos = read_lenenc(buffer, pos)
        columns = self.table_map.columns
        partial: set[int] = set()
        if options & _PARTIAL_JSON:
            documents = [i for i, column in enumerate(columns) if column.type_code == FieldType.JSON]
            width = (len(documents) + 7) // 8
            bits = int.from_bytes(buffer[pos : pos + width], "little")
            pos += width
            partial = {column for at, column in enumerate(documents) if bits >> at & 1}
        null_bytes = (len(after) + 7) // 8
        nulls = int.from_bytes(buffer[pos : pos + null_bytes], "little")
        pos += null_bytes
        values: list[bytes] = []
        diffs: dict[int, bytes] = {}
        for at, i in enumerate(after):
            if nulls >> at & 1:
                continue
            column = columns[i]
            start = pos
            if column.length_bytes:
                size = int.from_bytes(buffer[pos : pos + column.length_bytes], "little")
                pos += column.length_bytes + size
            else:
                pos += column.width
            if pos > end:
                raise _misfit()
            if i in partial:
                diffs[i] = buffer[start + column.length_bytes : pos]
                nulls |= 1 << at
            else:
                values.append(buffer[start:pos])
        return b"".join([nulls.to_bytes(null_bytes, "little"), *values]), diffs or None, pos

    def image_table(self, buffer: RowBuffer, table: Table) -> tuple[pa.Table, list[int]]:
        """All images of one buffer in Arrow, and which of `table`'s columns they hold, in that order.

        Columns that the copy does not have (hidden ones of the source) are left out. Raises as
        RowBuffer.to_arrow.
        """
        present = {column.name.casefold() for column in buffer.table_map.columns}
        places = [i for i, column in enumerate(table.columns) if column.name.casefold() in present]
        part = replace(table, columns=tuple(table.columns[i] for i in places), primary_key=())
        found = buffer.to_arrow(part)
        self.lost_dates += buffer.lost_dates
        return found, places

    def operations(self) -> np.ndarray:
        """What each row does: DELETE, INSERT or UPDATE, as uint8."""
        return np.frombuffer(bytes(self.ops), np.uint8)


def _misfit() -> BinlogError:
    return BinlogError(
        "the row images of an event don't end where the event ends",
        hint="the event is damaged or of a kind that is not known; see the position in the status",
    )
