"""The dump protocol and the reader, fed with bytes: framing, boundaries, appointments, ends."""

from __future__ import annotations

import socket
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from types import TracebackType
from typing import Self
from zlib import crc32

import pytest

from cdc.errors import (
    BinlogError,
    DucklingError,
    PositionLostError,
    ReplicaError,
    SchemaMismatchError,
    SourceUnavailableError,
    StoppedError,
)
from cdc.position import Position
from cdc.schema import Column, NameCase, Table
from cdc.source.batcher import Batch, Batcher
from cdc.source.binlog import BinlogDump
from cdc.source.ddl import SchemaChange
from cdc.source.place import Place
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


# Framing -----------------------------------------------------------------------------------------------


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.hang_up()


def _dump(wire: Wire) -> BinlogDump:
    return BinlogDump(wire, START, server_id=1, heartbeat=60.0, gtid=True)


def _bodies(dump: BinlogDump, count: int) -> list[bytes]:
    found = []
    for each in dump.events():
        if each is not None:
            buffer, start, end = each
            found.append(buffer[start:end])
            if len(found) == count:
                break
    return found


class Trickle:
    """A socket that gives out a few bytes at a time."""

    def __init__(self, inner: socket.socket, step: int) -> None:
        self._inner = inner
        self._step = step

    def recv(self, size: int) -> bytes:
        return self._inner.recv(min(size, self._step))


@pytest.mark.parametrize("step", [*range(1, 30), 219, 220, 221])
def test_events_come_whole_however_few_bytes_arrive_at_a_time(wire: Wire, step: int) -> None:
    bodies = [struct.pack("<IBIIIH", 1, 29, 1, 19 + n, 0, 0) + bytes(range(n)) for n in (0, 1, 200)]
    with closing(_dump(wire)) as dump:
        dump._socket = Trickle(wire._sock, step)
        wire.send(b"".join(packets(b"\0" + body) for body in bodies))
        assert _bodies(dump, 3) == bodies


@pytest.mark.parametrize("size", [FULL - 2, FULL - 1, FULL, FULL + 1, 2 * FULL - 1, 2 * FULL + 5])
def test_an_event_of_several_packets_is_joined(wire: Wire, size: int) -> None:
    first, second = bytes([7]) * size, b"behind it"
    with closing(_dump(wire)) as dump:
        sender = threading.Thread(target=wire.send, args=(packets(b"\0" + first) + packets(b"\0" + second),))
        sender.start()
        try:
            assert _bodies(dump, 2) == [first, second]
        finally:
            sender.join(WAIT)


def test_an_event_that_ends_with_an_empty_packet_is_given_out_at_once(wire: Wire) -> None:
    """Nothing need follow it: the last bytes of an empty packet's header are all that is missing."""
    data = packets(b"\0" + bytes([7]) * (FULL - 1))
    given: Future[bytes] = Future()
    with closing(_dump(wire)) as dump:

        def read() -> None:
            try:
                given.set_result(_bodies(dump, 1)[0])
            except DucklingError as error:
                given.set_exception(error)

        reading = threading.Thread(target=read)
        reading.start()
        try:
            wire.send(data[:-1])
            wire.send(data[-1:])
            assert len(given.result(WAIT)) == FULL - 1
        finally:
            wire.hang_up()
            reading.join(WAIT)


def test_a_source_that_goes_away_is_unavailable(wire: Wire) -> None:
    with closing(_dump(wire)) as dump:
        wire.send(event(29, b"x")[:-3])
        wire.hang_up()
        with pytest.raises(SourceUnavailableError):
            _bodies(dump, 1)


def test_an_end_of_file_packet_asks_for_a_new_dump(wire: Wire) -> None:
    with closing(_dump(wire)) as dump:
        wire.send(packets(b"\xfe\0\0\0\0"))
        with pytest.raises(SourceUnavailableError):
            _bodies(dump, 1)


def test_an_error_packet_that_says_purged_means_a_lost_position(wire: Wire) -> None:
    text = b"Cannot replicate because the source purged required binary logs."
    with closing(_dump(wire)) as dump:
        wire.send(packets(b"\xff" + struct.pack("<H", 1236) + b"#HY000" + text))
        with pytest.raises(PositionLostError):
            _bodies(dump, 1)


def test_waking_a_dump_that_is_closed_does_nothing(wire: Wire) -> None:
    dump = _dump(wire)
    dump.close()
    dump.wake()
    dump.close()


# Transactions ------------------------------------------------------------------------------------------


def test_rows_are_handed_on_with_the_boundary_behind_their_transaction() -> None:
    log = Log()
    with Reading() as reading:
        reading.wire.send(log.transaction(1, 2))
        at = reading.reader.meet(None).reached.result(WAIT)
        while at.offset < log.offset:
            at = reading.reader.meet(None).reached.result(WAIT)
        assert reading.ids == [1, 2]
        assert reading.batches[-1].position is not None
        assert reading.batches[-1].position.gtid == f"{SID}:1"


def test_no_position_behind_a_schema_change_is_handed_on_before_the_change_is_carried_out() -> None:
    """Else a crash between the two, or a failure of the change, loses a TRUNCATE for good."""
    log = Log()
    before: list[Position | None] = []
    done: Future[Position] = Future()

    def on_change(_: list[SchemaChange], position: Position) -> None:
        before.extend(batch.position for batch in reading.batches)
        done.set_result(position)

    with Reading(on_change=on_change, hungry=lambda: False) as reading:
        reading.wire.send(log.transaction(1) + log.gtid() + log.query("TRUNCATE TABLE t"))
        position = done.result(WAIT)
    assert reading.ids == [1]
    assert [at for at in before if at is not None and at.reached(position)] == []


def test_rows_of_a_schema_whose_name_differs_by_case_are_not_ours() -> None:
    """Where lower_case_table_names is 0, Shop and shop are two schemas."""
    log = Log()
    with Reading() as reading:
        reading.wire.send(log.transaction(1, schema="Shop") + log.transaction(2))
        while reading.reader.meet(None).reached.result(WAIT).offset < log.offset:
            pass
        assert reading.ids == [2]


def test_rows_of_a_table_whose_name_differs_by_case_are_not_ours() -> None:
    """Its twin may be excluded, or stand in another engine: it is another table all the same."""
    log = Log()
    with Reading() as reading:
        reading.wire.send(log.transaction(1, table="T") + log.transaction(2))
        while reading.reader.meet(None).reached.result(WAIT).offset < log.offset:
            pass
        assert reading.ids == [2]


def test_offsets_go_on_beyond_4_gib() -> None:
    place = Place(START)
    place.offset = (1 << 32) - 100
    place.advance(50, 2)
    assert place.offset == (1 << 32) + 50
    place.advance(120, 15)
    assert place.offset == (1 << 32) + 120
    place.offset = (1 << 32) + (3 << 30)
    place.advance(126, 15)  # the file's head, sent again
    assert place.offset == (1 << 32) + (3 << 30)


@pytest.mark.parametrize("kind", [26, 43, 172, 200])
def test_an_event_that_is_not_known_to_be_harmless_ends_the_stream(kind: int) -> None:
    log = Log()
    with Reading() as reading:
        reading.wire.send(log.add(kind, b"xyz"))
        with pytest.raises(BinlogError, match=f"kind {kind} "):
            reading.ended.result(WAIT)


def test_an_unknown_event_that_says_it_may_be_ignored_is_passed_over() -> None:
    log = Log()
    with Reading() as reading:
        reading.wire.send(log.add(200, b"xyz", flags=0x80) + log.transaction(1))
        while reading.reader.meet(None).reached.result(WAIT).offset < log.offset:
            pass
        assert reading.ids == [1]


def test_a_damaged_event_is_read_again() -> None:
    wire = Wire("CRC32")
    reading = Reading()
    reading.wire.hang_up()
    reading.dump.close()
    reading.wire = wire
    reading.dump = reading.reader._dump = BinlogDump(wire, START, server_id=1, heartbeat=60.0, gtid=True)
    reading.reader._checksum = True
    with reading:
        whole = event(29, b"some comment", 100, checksum=True)
        wire.send(whole[:-6] + b"??" + whole[-4:])
        with pytest.raises(SourceUnavailableError, match="checksum"):
            reading.ended.result(WAIT)


def test_rows_of_a_table_that_changed_name_the_table() -> None:
    log = Log()
    other = Table("shop", "t", (Column("id", "int", "int"), Column("x", "int", "int")), ("id",))
    with Reading(tables={"t": other}) as reading:
        reading.wire.send(log.transaction(1))
        with pytest.raises(SchemaMismatchError) as caught:
            reading.ended.result(WAIT)
        assert caught.value.table == "t"


# Appointments and ends ---------------------------------------------------------------------------------


def test_whoever_asks_for_a_meeting_after_the_reader_ended_is_told_so() -> None:
    with Reading() as reading:
        reading.wire.hang_up()
        with pytest.raises(SourceUnavailableError):
            reading.ended.result(WAIT)
        with pytest.raises(DucklingError):
            reading.reader.meet(None).reached.result(WAIT)


def test_whoever_waits_for_a_meeting_is_told_when_the_flush_for_it_fails() -> None:
    def refuse(_: Batch) -> None:
        raise ReplicaError("the writer refused")

    with Reading(deliver=refuse, committed=False) as reading:
        reading.wire.send(START_OF_DUMP)
        meeting = reading.reader.meet(None)
        with pytest.raises(ReplicaError):
            reading.ended.result(WAIT)
        with pytest.raises(ReplicaError):
            meeting.reached.result(WAIT)


def test_stopping_frees_a_reader_that_is_held_even_where_the_stop_came_during_the_flush() -> None:
    flushing, go_on = threading.Event(), threading.Event()

    def slow(_: Batch) -> None:
        flushing.set()
        go_on.wait(WAIT)

    with Reading(deliver=slow, committed=False) as reading:
        reading.wire.send(START_OF_DUMP)
        meeting = reading.reader.meet(None, hold=True)
        try:
            assert flushing.wait(WAIT)
            reading.reader.stop()
            go_on.set()
            reading.ended.result(WAIT)
        finally:
            meeting.release.set()


def test_stopping_frees_a_reader_that_two_hold() -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(_: Batch) -> None:
        entered.set()
        go_on.wait(WAIT)

    with Reading(deliver=slow, committed=False) as reading:
        reading.wire.send(START_OF_DUMP)
        reading.reader.meet(None)
        assert entered.wait(WAIT)
        first, second = reading.reader.meet(None, hold=True), reading.reader.meet(None, hold=True)
        go_on.set()
        try:
            first.reached.result(WAIT)
            reading.reader.stop()
            reading.ended.result(WAIT)
        finally:
            first.release.set()
            second.release.set()


def test_a_meeting_at_a_place_in_another_server_fails_by_itself_and_the_stream_goes_on() -> None:
    log = Log()
    with Reading() as reading:
        elsewhere = Position("mysql", "another-server", "binlog.000001", 4)
        with pytest.raises(BinlogError):
            reading.reader.meet(elsewhere).reached.result(WAIT)
        reading.wire.send(log.transaction(1))
        while reading.reader.meet(None).reached.result(WAIT).offset < log.offset:
            pass
        assert reading.ids == [1]


def test_a_meeting_point_between_transactions_of_two_files_is_met_exactly() -> None:
    """Two readers of one log must agree on a place, whether they were idle there or not."""
    log = Log()
    first = log.transaction(1)
    head = Log()
    rotate = event(4, struct.pack("<Q", 4) + b"binlog.000002", log.offset + 40)
    rest = head.add(29, b"what stands at the head of a file")
    place = Position("mysql", "a-server", "binlog.000002", head.offset)
    then = head.transaction(2)
    with Reading() as busy:
        meeting = busy.reader.meet(place)
        busy.wire.send(first + rotate + rest + then)
        at = meeting.reached.result(WAIT)
    assert (at.file, at.offset) == (place.file, place.offset)


def test_a_reader_that_is_stopped_inside_a_transaction_that_was_handed_on_in_parts_says_so() -> None:
    """Who runs it must roll the parts back; if it ended as usual, the writer would wait for the rest."""
    log = Log()
    part = threading.Event()
    delivered: list[Batch] = []

    def deliver(batch: Batch) -> None:
        delivered.append(batch)
        part.set()

    with Reading(deliver=deliver, max_rows=2) as reading:
        reading.wire.send(log.gtid() + log.query("BEGIN") + log.table_map() + log.insert(1, 2, 3))
        assert part.wait(WAIT)
        assert delivered[0].position is None
        reading.reader.stop()
        with pytest.raises(StoppedError):
            reading.ended.result(WAIT)
