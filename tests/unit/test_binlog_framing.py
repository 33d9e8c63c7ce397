"""The dump protocol, fed with bytes: framing and ends."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing

import pytest

from cdc.errors import (
    DucklingError,
    PositionLostError,
    SourceUnavailableError,
)
from cdc.source.binlog import BinlogDump
from tests.unit.wire import FULL, START, WAIT, Wire, event, packets


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.hang_up()


def _dump(wire: Wire) -> BinlogDump:
    return BinlogDump(wire, START, server_id=1, heartbeat=60.0, gtid=True)


def _bodies(dump: BinlogDump, count: int) -> list[bytes]:
    found = []
    for each in dump.stretches():
        if each is not None:
            found += [each.buffer[begin:end] for begin, end in zip(each.begins, each.ends, strict=True)]
            if len(found) >= count:
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
