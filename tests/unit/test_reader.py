"""The reader, fed with bytes: boundaries, names, damage, appointments."""

from __future__ import annotations

import struct
import threading
from concurrent.futures import Future

import pytest

from cdc.errors import (
    BinlogError,
    DucklingError,
    ReplicaError,
    SchemaMismatchError,
    SourceUnavailableError,
    StoppedError,
)
from cdc.position import Position
from cdc.schema import Column, Table
from cdc.source.batcher import Batch
from cdc.source.binlog import BinlogDump
from cdc.source.ddl import SchemaChange
from cdc.source.place import Place
from cdc.source.rows import INSERT, UPDATE
from tests.unit.checked_log import CheckedLog, joined, read
from tests.unit.wire import SID, START, START_OF_DUMP, WAIT, Log, Reading, Wire, event


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


@pytest.mark.parametrize(
    "elsewhere",
    [
        Position("mysql", "another-server", "binlog.000001", 4),
        Position("mysql", "a-server", "a file without a number", 4),
    ],
    ids=["another server", "a file without a number"],
)
def test_a_meeting_at_a_place_that_can_not_be_compared_fails_by_itself_and_the_stream_goes_on(
    elsewhere: Position,
) -> None:
    log = Log()
    with Reading() as reading:
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


def test_a_full_batch_waits_for_the_end_of_its_transaction_but_not_for_that_of_a_large_one() -> None:
    log = CheckedLog("mysql")
    for rows in (9,) * 12 + (300,):
        log.begin()
        for row in range(rows):
            log.rows("t", INSERT, [row])
        log.xid()
    batches = read("mysql", [joined(log.events)], max_rows=100).batches
    sizes = [(rows, position == "None") for position, _, rows, *_ in batches if rows]
    assert sizes == [(108, False), (125, True), (125, True), (50, False)]


def test_a_batch_counts_an_update_once_also_behind_a_rollback() -> None:
    log = CheckedLog("mysql")
    log.begin()
    log.rows("t", UPDATE, [2, 4, 6])
    log.xid()
    log.begin()
    log.rows("t", INSERT, [9])
    log.query("ROLLBACK")
    [(_, _, rows, *_)] = read("mysql", [joined(log.events)]).batches
    assert rows == 3
