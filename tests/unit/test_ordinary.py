"""Transactions taken many at a time, beside the same ones taken event by event: the same outcome, whatever comes."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import DucklingError
from cdc.position import Flavor, Position
from cdc.schema import Column, NameCase, Table
from cdc.source.batcher import Batch, Batcher
from cdc.source.binlog import Stretch
from cdc.source.cascades import Cascades, CascadingKey, ParentChanges, ParentRows
from cdc.source.mixed_rows import MixedRows
from cdc.source.ordinary import OrdinaryTransactions
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

    def rows_event(self, operation: int, rest: bytes, number: int = 70) -> None:
        kinds = {INSERT: 30, UPDATE: 31, DELETE: 32}
        extra = b"\2\0" if self.flavor == "mysql" else b""
        kind = kinds[operation] - (0 if self.flavor == "mysql" else 7)
        self.add(kind, number.to_bytes(6, "little") + b"\1\0" + extra + b"\1" + rest)


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
            id(each): buffer.image_table(each, TABLES["t"])[0].to_pylist() for each in buffer.images.values()
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
        assert isinstance(run, ParentRows)
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
) -> Outcome:
    """Reads all of them, and stops behind the last one."""
    outcome = Outcome()
    script = Script(stretches)
    reader = BinlogReader(
        script,  # type: ignore[arg-type]
        Position(flavor, "a-server", "binlog.000001", offset),
        Batcher(outcome.take, lambda: False, max_rows=max_rows, max_bytes=1 << 20, max_age=60.0),
        schema="shop",
        tables=TABLES,
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


def ways(events: list[bytes], cuts: list[int]) -> tuple[list[Stretch], list[Stretch]]:
    """The events one by one, and in stretches that end at `cuts`."""
    bounds = [0, *sorted(cut % len(events) for cut in cuts), len(events)]
    many = [joined(events[start:stop]) for start, stop in pairwise(bounds) if start < stop]
    return [joined([event]) for event in events], many


Statement = tuple[str, int, list[int], int]
"""A table, what happens to its rows, their ids, and the number that its TABLE_MAP gives it."""
_IDS = st.lists(st.integers(1, 9), min_size=1, max_size=3)
_STATEMENT = st.tuples(
    st.sampled_from(["t", "u", "other"]), st.sampled_from([INSERT, UPDATE, DELETE]), _IDS, st.integers(70, 72)
)
_USUAL = st.tuples(st.just("rows"), st.lists(_STATEMENT, min_size=1, max_size=3))
_UNUSUAL = st.sampled_from(
    [
        "schema change", "savepoint", "rollback", "commit as a statement", "some columns", "another source", "a gap",
        "no GTID", "elsewhere", "a table that is created and filled", "a rows query", "an empty event",
    ]
)  # fmt: skip
_DAMAGE = st.sampled_from(["none", "none", "checksum", "image", "no table map", "size", "kind", "names"])


def write(log: CheckedLog, action: str, statements: list[Statement]) -> None:
    """One transaction."""
    mysql = log.flavor == "mysql"
    if action == "schema change":
        log.begin(statement="ALTER TABLE t ADD COLUMN more INT", alone=True)
        return
    if action == "a table that is created and filled":
        create = "CREATE TABLE copied (id INT)"
        log.begin(statement=f"{create} START TRANSACTION" if mysql else create, alone=True)
        if not mysql:
            log.begin()
    else:
        log.begin(
            source=2 if action == "another source" else 1,
            gap=3 if action == "a gap" else 0,
            anonymous=action == "no GTID",
        )
    if action == "savepoint":
        log.rows("t", INSERT, [1])
        log.query("SAVEPOINT s")
        log.rows("u", INSERT, [2])
        log.query("ROLLBACK TO s")
    for table, operation, ids, number in statements:
        if action == "a rows query":
            log.add(29 if mysql else 160, b"a comment")
        log.rows(
            table, operation, ids, schema="elsewhere" if action == "elsewhere" else "shop", number=number
        )
    if action == "some columns":
        log.table_map("t")
        log.rows_event(UPDATE, b"\xfe\xff" + b"\xfe" + struct.pack("<i", 7))
    elif action == "an empty event":
        log.rows_event(INSERT, b"\xff", number=0xFFFFFF)
    if action == "rollback":
        log.query("ROLLBACK")
    elif action == "commit as a statement":
        log.query("COMMIT")
    else:
        log.xid()


def damage(events: list[bytes], how: str, where: int) -> None:
    """Breaks one event, with a checksum that fits where it is not the checksum that is broken."""
    kinds = {"image": (23, 24, 25, 30, 31, 32), "no table map": (19,), "kind": (19,), "names": (19,)}.get(how)
    chosen = [i for i, event in enumerate(events) if kinds is None or event[4] in kinds]
    if how == "none" or not chosen:
        return
    at = chosen[where % len(chosen)]
    event = events[at]
    if how == "checksum":
        events[at] = event[:-1] + bytes([event[-1] ^ 1])
        return
    if how == "no table map":
        event = event[:19] + b"\x63" + event[20:]
    elif how == "image":
        event = event[:9] + struct.pack("<I", len(event) - 1) + event[13:-5] + bytes(4)
    elif how == "size":
        event = event[:9] + struct.pack("<I", len(event) + 1) + event[13:]
    elif how == "kind":
        event = event[:4] + b"\xf0" + event[5:]
    else:  # a TABLE_MAP without the names of columns
        event = event[:9] + struct.pack("<I", len(event) - 5) + event[13:-9] + bytes(4)
    events[at] = event[:-4] + struct.pack("<I", crc32(event[:-4]))


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
@given(
    usual=st.lists(_USUAL, min_size=8, max_size=30),
    unusual=st.lists(st.tuples(st.integers(0, 40), _UNUSUAL, st.lists(_STATEMENT, max_size=2)), max_size=3),
    broken=_DAMAGE,
    where=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 200), max_size=2),
    max_rows=st.sampled_from([1, 7, 50, 1000]),
    cascading=st.booleans(),
    meetings=st.lists(st.integers(0, 6000), max_size=2),
    offset=st.sampled_from([4, (1 << 32) - 3000]),
)
@settings(deadline=None)
def test_many_at_a_time_are_read_as_one_by_one(
    flavor: Flavor,
    usual: list[tuple[str, list[Statement]]],
    unusual: list[tuple[int, str, list[Statement]]],
    broken: str,
    where: int,
    cuts: list[int],
    max_rows: int,
    cascading: bool,
    meetings: list[int],
    offset: int,
) -> None:
    actions = list(usual)
    for at, action, statements in unusual:
        actions.insert(at % (len(actions) + 1), (action, statements))
    log = CheckedLog(flavor, offset)
    for action, statements in actions:
        write(log, action, statements)
    damage(log.events, broken, where)
    keys = [CascadingKey("k", "u", ("id",), "t", ("id",), "CASCADE", "CASCADE")] if cascading else []
    one_by_one, many = ways(log.events, cuts)
    plain, fast = (
        read(flavor, way, offset=offset, max_rows=max_rows, cascades=Cascades(keys), meetings=tuple(meetings))
        for way in (one_by_one, many)
    )
    if max_rows < 1000:  # a full batch is handed on behind its transaction, not in the middle of it
        if "ROLLED_BACK_PART" in plain.error + fast.error:
            return
        assert plain.error or plain.rows() == fast.rows()
        plain.batches = fast.batches = []
    assert fast == plain


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_ordinary_transactions_do_go_the_short_way(flavor: Flavor, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    plainly = OrdinaryTransactions.take

    def take(self: OrdinaryTransactions, stretch: Stretch, first: int, last: int, *, checksum: bool) -> int:
        taken.append(plainly(self, stretch, first, last, checksum=checksum))
        return taken[-1]

    monkeypatch.setattr(OrdinaryTransactions, "take", take)
    log = CheckedLog(flavor)
    for i in range(100):
        write(log, "a rows query" if i % 2 else "rows", [("t", INSERT, [i], 70), ("u", UPDATE, [i, i], 71)])
        if i == 50:
            write(log, "schema change", [])
    outcome = read(flavor, [joined(log.events)])
    assert len(taken) == 2
    assert sum(taken) == len(log.events) - 2
    assert outcome.counts[:3] == (len(log.events), 101, 100)
