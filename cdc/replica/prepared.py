"""Prepared XA transactions in the bookkeeping: their events, until the source commits or rolls back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import duckdb

from cdc.replica.database import ReplicaDatabase
from cdc.source.batcher import Prepared

CREATE = """
CREATE TABLE IF NOT EXISTS _duckling.prepared_transactions (
    owner VARCHAR, xid VARCHAR, part BIGINT, events BLOB);
"""

STREAM, COPY = "stream", "copy"
"""Owners: the stream, and the second reader of a copy, which reads a piece of the same log."""


def save(cursor: duckdb.DuckDBPyConnection, owner: str, changes: Sequence[Prepared]) -> None:
    """Takes in what a batch says, in the caller's transaction. The first part replaces an older transaction."""
    for change in changes:
        if change.part == 0:
            cursor.execute(
                "DELETE FROM _duckling.prepared_transactions WHERE owner = ? AND xid = ?", [owner, change.xid]
            )
        if change.events is not None:
            cursor.execute(
                "INSERT INTO _duckling.prepared_transactions VALUES (?, ?, ?, ?)",
                [owner, change.xid, change.part, change.events],
            )


def load(replica: ReplicaDatabase, owner: str, xid: str) -> Iterator[bytes] | None:
    """The parts of a transaction, one at a time; None where there is none of that name.

    It is read beside the writer, who may be in the midst of applying it when the next part is wanted.
    """

    def count(cursor: duckdb.DuckDBPyConnection) -> int:
        found = cursor.execute(
            "SELECT count(*) FROM _duckling.prepared_transactions WHERE owner = ? AND xid = ?", [owner, xid]
        ).fetchall()
        return int(found[0][0])

    def part(cursor: duckdb.DuckDBPyConnection, number: int) -> bytes:
        found = cursor.execute(
            "SELECT events FROM _duckling.prepared_transactions WHERE owner = ? AND xid = ? AND part = ?",
            [owner, xid, number],
        ).fetchall()
        return bytes(found[0][0])

    parts = replica.read(count)
    if not parts:
        return None
    return (replica.read(partial(part, number=number)) for number in range(parts))


def forget(cursor: duckdb.DuckDBPyConnection, owner: str) -> None:
    """Forgets all transactions of `owner`."""
    cursor.execute("DELETE FROM _duckling.prepared_transactions WHERE owner = ?", [owner])


def adopt(cursor: duckdb.DuckDBPyConnection) -> None:
    """The stream starts where the copy's reader ended: what that one knows as prepared is the stream's now."""
    forget(cursor, STREAM)
    cursor.execute("UPDATE _duckling.prepared_transactions SET owner = ? WHERE owner = ?", [STREAM, COPY])
