"""XA transactions: rows that are prepared at one place of the log and committed, or not, at another.

The verdict may come much later, in another file, after a restart of ours. So the events of a prepared
transaction are kept as they are: they go with the batch into the copy's bookkeeping, in the DuckDB
transaction that moves the position past them, and are read again when the source commits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from cdc.schema import NameCase
from cdc.source import events
from cdc.source.batcher import Batcher
from cdc.source.binlog import Stretch
from cdc.source.compressed_events import cut_events

_CHUNK_BYTES = 1 << 20
_KEPT_BYTES = 16 << 20
"""Prepared transactions of this size together are kept in memory too: most are committed at once."""
_NAME = re.compile(r"XA\s+\w+\s+X'([0-9a-f]*)'(?:\s*,\s*X'([0-9a-f]*)')?(?:\s*,\s*(\d+))?", re.IGNORECASE)


def xid_of_statement(statement: str) -> str:
    """The transaction that an XA statement of the log names, in the one spelling that we use.

    Raises ValueError where it names none.
    """
    found = _NAME.match(statement)
    if found is None:
        raise ValueError("XA")
    return _xid(found[1], found[2] or "", int(found[3] or 1))


def xid_of_gtid(body: bytes) -> str:
    """The transaction that MariaDB's GTID event names (flag FL_PREPARED_XA), behind its header.

    Layout: MariaDB's sql/log_event.cc, Gtid_log_event.
    """
    pos = 13 + (8 if body[12] & events.MARIADB_GROUP_COMMIT else 0)
    number = int.from_bytes(body[pos : pos + 4], "little")
    first, second = body[pos + 4], body[pos + 5]
    data = body[pos + 6 : pos + 6 + first + second]
    return _xid(data[:first].hex(), data[first:].hex(), number)


def _xid(first: str, second: str, number: int) -> str:
    return f"{first.lower()}.{second.lower()}.{number}"


class XaTransactions:
    """The XA transactions of one reader. While `recording`, its events are kept instead of applied.

    `load` gives the chunks of a prepared transaction that is in the bookkeeping, or None. Chunks are whole
    events, one behind another, without checksums.
    """

    def __init__(
        self,
        batcher: Batcher,
        *,
        schema: str,
        names: NameCase,
        load: Callable[[str], Iterable[bytes] | None],
    ) -> None:
        self.recording: str | None = None
        self._batcher = batcher
        self._schema = names.key(schema)
        self._names = names
        self._load = load
        self._chunk = bytearray()
        self._part = 0
        self._tables: set[bytes] = set()
        self._kept: dict[str, list[bytes]] = {}

    def begin(self, xid: str) -> None:
        """The events that follow belong to `xid`."""
        self.recording = xid
        self._chunk.clear()
        self._part = 0
        self._tables.clear()
        self._kept.pop(xid, None)
        self._kept[xid] = []

    def record(self, kind: int, body: bytes, timestamp: int, server_id: int) -> bool:
        """Keeps an event, if it concerns our schema; True where a chunk of them is full and was handed over."""
        if kind == events.TABLE_MAP:
            length = body[8]
            if self._names.key(body[9 : 9 + length].decode()) != self._schema:
                self._tables.discard(body[:6])
                return False
            self._tables.add(body[:6])
        elif kind in events.ROWS and body[:6] not in self._tables:
            return False
        size = events.HEADER_BYTES + len(body)
        self._chunk += events.HEADER.pack(timestamp, kind, server_id, size, 0, 0)
        self._chunk += body
        if len(self._chunk) < _CHUNK_BYTES:
            return False
        self._hand_over()
        return True

    def _hand_over(self) -> None:
        xid = self.recording
        assert xid is not None
        chunk = bytes(self._chunk)
        self._chunk.clear()
        self._batcher.prepare(xid, self._part, chunk)
        self._part += 1
        if xid in self._kept:
            self._kept[xid].append(chunk)
            while sum(len(each) for chunks in self._kept.values() for each in chunks) > _KEPT_BYTES:
                del self._kept[next(iter(self._kept))]

    def end(self) -> None:
        """It is prepared. One without events of ours is kept as well: its commit must not look unknown."""
        self._hand_over()
        self.recording = None

    def abandon(self) -> None:
        """The source died before it was prepared."""
        if self.recording is not None:
            xid, self.recording = self.recording, None
            self.decide(xid)

    def decide(self, xid: str) -> None:
        """Committed or rolled back: it is kept no longer."""
        self._kept.pop(xid, None)
        self._batcher.prepare(xid, 0, None)

    def events(self, xid: str, flush: Callable[[], None]) -> Iterator[Stretch] | None:
        """The events of a prepared transaction; None where none of that name is known.

        `flush` hands on what the open batch holds, and is called where the bookkeeping must be asked.
        """
        chunks: Iterable[bytes] | None = self._kept.get(xid)
        if chunks is None:
            flush()
            chunks = self._load(xid)
        return None if chunks is None else _events(list(chunks) if isinstance(chunks, list) else chunks)


def _events(chunks: Iterable[bytes]) -> Iterator[Stretch]:
    for chunk in chunks:
        yield from cut_events(pa.BufferReader(chunk))
