"""The pieces in which a copy is read, joined to the row groups in which DuckDB stores a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

ROW_GROUP = 122_880
"""Rows of a full row group. A transaction that appends one or more of them to a table puts them into the file itself,
with no copy of them in the write-ahead log (DuckDB 2.0)."""


def in_groups(pieces: Iterable[pa.Table], *, rows: int, size: int) -> Iterator[pa.Table]:
    """The rows of `pieces`, in their order, `rows` of them at a time.

    Fewer at the end, and where a group would have more than `size` bytes with one piece more.
    """
    group = _Group(rows)
    for piece in pieces:
        if group.count and group.bytes + piece.nbytes > size:
            yield group.take()
        group.add(piece)
        while group.count >= rows:
            yield group.take()
    if group.count:
        yield group.take()


class _Group:
    """What is held. Nothing of a group is kept here once it was taken, but for a piece that it shares with the next."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._held: list[pa.Table] = []
        self.count = 0
        self.bytes = 0

    def add(self, piece: pa.Table) -> None:
        self._held.append(piece)
        self.count += len(piece)
        self.bytes += piece.nbytes

    def take(self) -> pa.Table:
        """The first rows: as many as a group has, or all that there are."""
        joined = pa.concat_tables(self._held)
        self._held, self.count, self.bytes = [], 0, 0
        if len(joined) > self._rows:
            self.add(joined.slice(self._rows))
        return joined.slice(0, self._rows)
