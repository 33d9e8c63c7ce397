"""The pieces in which a copy is read, joined to the row groups in which DuckDB stores a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

ROW_GROUP = 122_880
"""Rows of a full row group. A transaction that appends one or more of them to a table puts them into the file itself,
with no copy of them in the write-ahead log (DuckDB 2.0)."""


def in_groups(pieces: Iterable[pa.Table], *, rows: int, size: int) -> Iterator[pa.Table]:
    """The rows of `pieces`, in their order, `rows` of them at a time.

    Fewer at the end, and where more than `size` bytes would be held.
    """
    held: list[pa.Table] = []
    count = bytes_held = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        bytes_held += piece.nbytes
        while count >= rows or bytes_held >= size:
            joined = pa.concat_tables(held)
            yield joined.slice(0, rows)
            rest = joined.slice(rows)
            held = [rest] if len(rest) else []
            count, bytes_held = len(rest), rest.nbytes
    if held:
        yield pa.concat_tables(held)
