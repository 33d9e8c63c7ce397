"""A source that is bytes alone: its end of a connection, the events of a log, and a reader of them."""

from __future__ import annotations

import socket
import struct
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self
from zlib import crc32

from cdc.position import Position
from cdc.schema import Column, NameCase, Table
from cdc.source.batcher import Batch, Batcher
from cdc.source.binlog import BinlogDump
from cdc.source.ddl import SchemaChange
from cdc.source.rows import RowBuffer
from cdc.source.stream import BinlogReader

SID = "11111111-1111-1111-1111-111111111111"
WAIT = 3
FULL = 0xFFFFFF


class Wire:
    """The source's end of a connection: answers what a dump asks before it begins, then sends bytes."""

    def __init__(self, checksum: str = "NONE") -> None:
        self._sock, self._source = socket.socketpair()
        self._checksum = checksum
        self.sequence = 0

    def cursor(self) -> Wire:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        pass

    def execute(self, statement: str, values: object = ()) -> None:
        pass

    def fetchone(self) -> tuple[str]:
        return (self._checksum,)

    def _execute_command(self, command: int, body: bytes) -> None:
        pass

    def _read_packet(self) -> None:
        pass

    def _force_close(self) -> None:
        self._sock.close()

    def send(self, data: bytes) -> None:
        self._source.sendall(data)

    def hang_up(self) -> None:
        self._source.close()


def packets(payload: bytes) -> bytes:
    """The payload as MySQL cuts it: packets of 0xFFFFFF bytes, the last one shorter, maybe empty."""
    parts = []
    for at in range(0, len(payload) + 1, FULL):
        piece = payload[at : at + FULL]
        parts.append(len(piece).to_bytes(3, "little") + b"\0" + piece)
    return b"".join(parts)


def event(kind: int, body: bytes, log_pos: int = 0, flags: int = 0, *, checksum: bool = False) -> bytes:
    """One event behind the OK byte, in packets."""
    size = 19 + len(body) + (4 if checksum else 0)
    data = struct.pack("<IBIIIH", 1_700_000_000, kind, 1, size, log_pos, flags) + body
    if checksum:
        data += struct.pack("<I", crc32(data))
    return packets(b"\0" + data)


class Log:
    """Writes the events of one binlog file, each at its place."""

    def __init__(self, offset: int = 4) -> None:
        self.offset = offset
        self._number = 0

    def add(self, kind: int, body: bytes, flags: int = 0) -> bytes:
        self.offset += 19 + len(body)
        return event(kind, body, self.offset & 0xFFFFFFFF, flags)

    def gtid(self) -> bytes:
        self._number += 1
        return self.add(33, b"\1" + uuid.UUID(SID).bytes + struct.pack("<q", self._number) + bytes(17))

    def query(self, statement: str, schema: str = "shop") -> bytes:
        head = struct.pack("<IIBHH", 1, 0, len(schema), 0, 0)
        return self.add(2, head + schema.encode() + b"\0" + statement.encode())

    def table_map(self, table: str = "t", schema: str = "shop", number: int = 70) -> bytes:
        """A table of one column, `id` INT."""
        names = b"\4\3\2id"
        body = number.to_bytes(6, "little") + b"\1\0"
        body += bytes([len(schema)]) + schema.encode() + b"\0" + bytes([len(table)]) + table.encode() + b"\0"
        return self.add(19, body + b"\1\3\0\0" + b"\1\1\0" + names + b"\x08\1\0")

    def insert(self, *ids: int, number: int = 70) -> bytes:
        body = number.to_bytes(6, "little") + b"\1\0" + b"\2\0" + b"\1" + b"\xff"
        return self.add(30, body + b"".join(b"\xfe" + struct.pack("<i", i) for i in ids))

    def xid(self) -> bytes:
        return self.add(16, bytes(8))

    def transaction(self, *ids: int, schema: str = "shop", table: str = "t") -> bytes:
        head = self.gtid() + self.query("BEGIN", schema) + self.table_map(table, schema)
        return head + self.insert(*ids) + self.xid()


T = Table("shop", "t", (Column("id", "int", "int"),), ("id",))
START = Position("mysql", "a-server", "binlog.000001", 4)
START_OF_DUMP = event(4, struct.pack("<Q", 4) + b"binlog.000001", flags=0x20)
"""A rotation that the sender makes up: where it begins."""


class Reading:
    """A reader in a thread of its own, on a wire."""

    def __init__(
        self,
        *,
        deliver: Callable[[Batch], None] | None = None,
        on_change: Callable[[list[SchemaChange], Position], None] = lambda _changes, _position: None,
        max_rows: int = 1000,
        hungry: Callable[[], bool] = lambda: True,
        tables: dict[str, Table] | None = None,
        committed: bool = True,
    ) -> None:
        self.wire = Wire()
        self.batches: list[Batch] = []
        self.dump = BinlogDump(self.wire, START, server_id=1, heartbeat=60.0, gtid=True)
        self.reader = BinlogReader(
            self.dump,
            START,
            Batcher(
                deliver or self.batches.append, hungry, max_rows=max_rows, max_bytes=1 << 30, max_age=60.0
            ),
            schema="shop",
            tables={"t": T} if tables is None else tables,
            names=NameCase(),
            collations={},
            on_schema_change=on_change,
            position_interval=3600.0,
            committed=committed,
        )
        self.ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.reader.run()
        except BaseException as error:  # noqa: BLE001 - for the test to see
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    def start(self) -> Self:
        self._thread.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.reader.stop()
        self.wire.hang_up()
        self._thread.join(WAIT)
        self.dump.close()
        assert not self._thread.is_alive()

    @property
    def ids(self) -> list[int]:
        """The ids of all rows that were handed on."""
        found: list[int] = []
        for _, rows in (buffered for batch in self.batches for buffered in batch.buffers):
            assert isinstance(rows, RowBuffer)
            found += rows.to_arrow(T)["c0"].to_pylist()
        return found
