"""A binary log with checksums, as either server writes it, and all that a reader makes of it."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from zlib import crc32

from cdc.errors import DucklingError
from cdc.position import Flavor, Position
from cdc.schema import Column, NameCase, Table
from cdc.source.batcher import Batch, Batcher
from cdc.source.binlog import Stretch
from cdc.source.cascades import Cascades, ParentChanges, ParentImages
from cdc.source.mixed_rows import MixedRows
from cdc.source.rows import DELETE, INSERT, UPDATE, RowBuffer
from cdc.source.stream import BinlogReader
from tests.unit.wire import SID, Log

TABLES = {name: Table("shop", name, (Column("id", "int", "int"),), ("id",)) for name in ("t", "u")}
SECOND_SID = "22222222-2222-2222-2222-222222222222"
_PACKET = 5


class CheckedLog(Log):
    """A log whose events carry checksums, as a server of `flavor` writes it."""

    def __init__(self, flavor: Flavor, offset: int = 4) -> None:
        super().__init__(offset)
        self.flavor = flavor
        self.events: list[bytes] = []

    def add(self, kind: int, body: bytes, flags: int = 0) -> bytes:
        event = super().add(kind, body + bytes(4), flags)[_PACKET:-4]
        self.events.append(event + struct.pack("<I", crc32(event)))
        return event

    def begin(
        self,
        source: int = 1,
        *,
        gap: int = 0,
        anonymous: bool = False,
        statement: str = "BEGIN",
        alone: bool = False,
    ) -> None:
        self._number += 1 + gap
        if self.flavor == "mariadb":
            self.add(162, struct.pack("<qIB", self._number, source, int(alone)) + bytes(6))
            if statement != "BEGIN":
                self.query(statement)
            return
        if anonymous:
            self.add(34, bytes(42))
        else:
            sid = uuid.UUID(SID if source == 1 else SECOND_SID).bytes
            commit = struct.pack("<q", 1_700_000_000_000_000 + self._number)[:7]
            self.add(33, b"\1" + sid + struct.pack("<q", self._number) + b"\2" + bytes(16) + commit)
        self.query(statement)

    def rows(
        self, table: str, operation: int, ids: list[int], *, schema: str = "shop", number: int = 70
    ) -> None:
        self.table_map(table, schema, number)
        images = [b"\xfe" + struct.pack("<i", i) for i in ids]
        if operation == UPDATE:
            images = [
                b"\xfe" + struct.pack("<i", i - i % 2) + image for i, image in zip(ids, images, strict=True)
            ]
        self.rows_event(operation, b"\xff" * (2 if operation == UPDATE else 1) + b"".join(images), number)

    def rows_event(self, operation: int, rest: bytes, number: int = 70, *, flags: int = 1) -> None:
        kinds = {INSERT: 30, UPDATE: 31, DELETE: 32}
        extra = b"\2\0" if self.flavor == "mysql" else b""
        kind = kinds[operation] - (0 if self.flavor == "mysql" else 7)
        self.add(kind, number.to_bytes(6, "little") + struct.pack("<H", flags) + extra + b"\1" + rest)


class Script:
    """A dump of given stretches, instead of a socket's."""

    checksum = True

    def __init__(self, stretches: list[Stretch]) -> None:
        self._stretches = stretches
        self.at_end: Callable[[], None] = lambda: None

    def stretches(self) -> Iterator[Stretch | None]:
        yield from self._stretches
        self.at_end()
        yield None

    def wake(self) -> None:
        """Nobody waits."""


def joined(events: list[bytes]) -> Stretch:
    """The events behind each other in one buffer, as packets bring them."""
    buffer, begins, ends = b"", [], []
    for event in events:
        begins.append(len(buffer) + _PACKET)
        buffer += bytes(_PACKET) + event
        ends.append(len(buffer))
    return Stretch(buffer, begins, ends)


@dataclass
class Outcome:
    """All that a reader did: the batches and schema changes, the counts, where it was, how it ended."""

    batches: list[tuple[object, ...]] = field(default_factory=list)
    counts: tuple[int, ...] = ()
    position: str = ""
    timestamp: float | None = None
    error: str = ""
    met: list[str] = field(default_factory=list)

    def take(self, batch: Batch) -> None:
        """Keeps what a batch holds."""
        contents = [(name, _content(buffer)) for name, buffer in batch.buffers]
        self.batches.append(
            (str(batch.position), batch.reason, batch.rows, batch.bytes, batch.transactions, contents)
        )

    def rows(self) -> dict[str, list[object]]:
        """What all batches hold, by table."""
        found: dict[str, list[object]] = {}
        for *_, contents in self.batches:
            for name, rows in contents if isinstance(contents, list) else []:
                found.setdefault(name, []).extend(rows)
        return found


def _content(buffer: RowBuffer | MixedRows | ParentChanges) -> list[object]:
    if isinstance(buffer, RowBuffer):
        table = buffer.to_arrow(TABLES["t"])["c0"].to_pylist()
        return list(zip(buffer.operations().tolist(), table, strict=True))
    if isinstance(buffer, MixedRows):
        values = {
            id(each): buffer.image_table(each, TABLES["t"])[0].to_pylist() or [{}] * len(each)
            for each in buffer.images.values()
        }
        return [
            (
                row.operation,
                *(image and values[id(image.buffer)][image.row] for image in (row.before, row.after)),
            )
            for row in buffer.rows
        ]
    found: list[object] = []
    for run in buffer.runs:
        if isinstance(run, ParentImages):
            found += [(run.table, "images", each) for each in _content(run.rows)]
            continue
        after = iter(_content(run.after))
        for operation, before in zip(run.before.ops, _content(run.before), strict=True):
            found.append((run.table, before, next(after) if operation == UPDATE else None))
    return found


def read(
    flavor: Flavor,
    stretches: list[Stretch],
    *,
    offset: int = 4,
    max_rows: int = 1000,
    cascades: Cascades | None = None,
    meetings: tuple[int, ...] = (),
    tables: Mapping[str, Table] = TABLES,
) -> Outcome:
    """Reads all of them, and stops behind the last one."""
    outcome = Outcome()
    script = Script(stretches)
    reader = BinlogReader(
        script,  # type: ignore[arg-type]
        Position(flavor, "a-server", "binlog.000001", offset),
        Batcher(outcome.take, lambda: False, max_rows=max_rows, max_bytes=1 << 20, max_age=60.0),
        schema="shop",
        tables=tables,
        names=NameCase(),
        collations={},
        on_schema_change=lambda changes, at: outcome.batches.append((str(changes), str(at))),
        position_interval=3600.0,
        cascades=cascades,
    )
    script.at_end = reader.stop
    met = [reader.meet(Position(flavor, "a-server", "binlog.000001", offset + at)) for at in meetings]
    try:
        reader.run()
    except DucklingError as error:
        outcome.error = f"{error.code} {error}"
    counts = reader.counts
    outcome.counts = (counts.events, counts.transactions, counts.inserts, counts.updates, counts.deletes)
    outcome.position, outcome.timestamp = str(reader.position), reader.position.timestamp
    for meeting in met:
        outcome.met.append(str(meeting.reached.exception() or meeting.reached.result()))
    return outcome
