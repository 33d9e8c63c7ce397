"""The replication protocol: ask a source for its binary log, and cut what it sends into events.

PyMySQL makes the connection and the handshake; from the dump command on the socket is ours: one receive
buffer, no copy of an event, no object per packet. See the MySQL source documentation, "Replication
Protocol", and MariaDB's knowledge base, "Replication Protocol".
"""

from __future__ import annotations

import os
import select
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pymysql

from cdc.errors import (
    BinlogError,
    PositionLostError,
    SourceError,
    SourceMismatchError,
    SourceUnavailableError,
)
from cdc.position import GtidSet, Position
from cdc.source.connection import translate

_COM_BINLOG_DUMP = 0x12
_COM_REGISTER_SLAVE = 0x15
_COM_BINLOG_DUMP_GTID = 0x1E
_THROUGH_GTID = 0x04
_PACKET_HEAD = struct.Struct("<I")
"""A packet's length in three bytes, and its number in one."""
_FULL_PACKET = 0xFFFFFF
_RECEIVE_BYTES = 1 << 18
_MISSED_HEARTBEATS = 3


class Stretch(NamedTuple):
    """Whole events that lie in one buffer, in order: where their headers begin, and where their last bytes end."""

    buffer: bytes
    begins: list[int]
    ends: list[int]


class BinlogDump:
    """One running dump of a source's binary log from `position` on.

    `server_id` is ours as a replica. The source sends a heartbeat after `heartbeat` seconds of silence;
    when three are missed, the connection counts as lost, whatever TCP believes.
    """

    def __init__(
        self,
        connection: Any,
        position: Position,
        *,
        server_id: int,
        heartbeat: float,
        gtid: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._silence = heartbeat * _MISSED_HEARTBEATS
        try:
            self.checksum = self._prepare(position, server_id, heartbeat, gtid)
            self._request(position, server_id, gtid)
        except pymysql.MySQLError as error:
            raise translate(error, doing="asking for the binary log") from error
        self._socket: Any = connection._sock
        self._socket.setblocking(False)
        self._encrypted = isinstance(self._socket, ssl.SSLSocket)
        self._bell_lock = threading.Lock()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)
        self._heard = clock()

    def _prepare(self, position: Position, server_id: int, heartbeat: float, gtid: bool) -> bool:
        """Sets what a replica says of itself; returns whether events begin with a checksum."""
        with self._connection.cursor() as cursor:
            nanoseconds = int(heartbeat * 1e9)
            cursor.execute(
                "SET @master_heartbeat_period = %s, @source_heartbeat_period = %s", (nanoseconds, nanoseconds)
            )
            cursor.execute(
                "SET @master_binlog_checksum = @@global.binlog_checksum,"
                " @source_binlog_checksum = @@global.binlog_checksum"
            )
            cursor.execute("SELECT @master_binlog_checksum")
            algorithm = cursor.fetchone()[0]
            if position.flavor == "mariadb":
                cursor.execute("SET @mariadb_slave_capability = 4")
                if gtid:
                    cursor.execute(
                        "SET @slave_connect_state = %s, @slave_gtid_strict_mode = 0,"
                        " @slave_gtid_ignore_duplicates = 0",
                        (position.gtid,),
                    )
            else:
                # The source ends an older dump of the same replica, our own zombie after a network fault.
                name = str(uuid.uuid5(uuid.NAMESPACE_OID, f"duckling-{server_id}"))
                cursor.execute("SET @slave_uuid = %s, @replica_uuid = %s", (name, name))
        return str(algorithm).upper() == "CRC32"

    def _request(self, position: Position, server_id: int, gtid: bool) -> None:
        connection = self._connection
        connection._execute_command(_COM_REGISTER_SLAVE, struct.pack("<IBBBHII", server_id, 0, 0, 0, 0, 0, 0))
        connection._read_packet()
        if gtid and position.flavor == "mysql":
            encoded = GtidSet.parse(position.gtid).encode()
            body = struct.pack("<HIIQI", _THROUGH_GTID, server_id, 0, 4, len(encoded)) + encoded
            connection._execute_command(_COM_BINLOG_DUMP_GTID, body)
            return
        file, offset = ("", 4) if gtid else (position.file, position.offset)
        if offset > 0xFFFFFFFF:
            raise PositionLostError(
                f"position {file}:{offset} is beyond 4 GiB, where a dump without GTIDs can't start",
                hint="switch GTIDs on at the source and copy again: POST /sync/full",
            )
        connection._execute_command(
            _COM_BINLOG_DUMP, struct.pack("<IHI", offset, 0, server_id) + file.encode()
        )

    def stretches(self, patience: float = 1.0) -> Iterator[Stretch | None]:
        """Events in order, as many at a time as have come; None each time that there is nothing to read now.

        After a None the next call waits for data, `patience` seconds at most. Raises
        SourceUnavailableError when the connection is lost or silent, PositionLostError when the source no
        longer has what was asked for, BinlogError for anything else that it refuses.
        """
        unpack = _PACKET_HEAD.unpack_from
        buffer, pos = b"", 0
        while True:
            begins: list[int] = []
            ends: list[int] = []
            size, missing, length = len(buffer), 0, 0
            while size - pos > _PACKET_HEAD.size:
                (head,) = unpack(buffer, pos)
                length = head & _FULL_PACKET
                stop = pos + _PACKET_HEAD.size + length
                if stop > size:
                    missing = stop - size
                    break
                if length == _FULL_PACKET or not length or buffer[pos + 4]:
                    break
                begins.append(pos + 5)
                ends.append(stop)
                pos = stop
            else:
                missing = pos + _PACKET_HEAD.size + 1 - size
            if begins:
                yield Stretch(buffer, begins, ends)
            if missing <= 0:
                if length != _FULL_PACKET:
                    raise self._ended(buffer[pos + 4 : pos + 4 + length])
                buffer, pos = self._join_packets(buffer, pos)
                yield Stretch(buffer, [1], [pos])
                continue
            parts = [buffer[pos:]]
            while missing > 0:
                if data := self._receive():
                    parts.append(data)
                    missing -= len(data)
                else:
                    yield None
                    self._wait(patience)
            buffer, pos = b"".join(parts), 0

    def _join_packets(self, buffer: bytes, pos: int) -> tuple[bytes, int]:
        """An event larger than one packet: its packets' contents joined at the front of a new buffer.

        Returns the buffer and where the event ends in it; what was received behind it follows.
        """
        parts: list[bytes] = []
        while True:
            while len(buffer) - pos < 4:
                buffer, pos = self._more(buffer[pos:], 4 - (len(buffer) - pos)), 0
            length = int.from_bytes(buffer[pos : pos + 3], "little")
            missing = pos + 4 + length - len(buffer)
            if missing > 0:
                buffer, pos = self._more(buffer[pos:], missing), 0
            if not parts and buffer[pos + 4]:
                raise self._ended(buffer[pos + 4 : pos + 4 + length])
            parts.append(buffer[pos + 4 : pos + 4 + length])
            pos += 4 + length
            if length < _FULL_PACKET:
                end = sum(map(len, parts))
                return b"".join([*parts, buffer[pos:]]), end

    def _receive(self) -> bytes:
        """What has come, about _RECEIVE_BYTES at most; nothing where nothing has.

        One read of an encrypted socket gives one TLS record, 16 KiB at most: several make a buffer.
        """
        parts: list[bytes] = []
        size = 0
        while size < _RECEIVE_BYTES:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                raise SourceUnavailableError(
                    f"the connection to the source broke ({error.__class__.__name__})",
                    hint="it is made anew from the last committed position",
                ) from error
            if not data:
                if parts:
                    break  # the next read says it again
                raise SourceUnavailableError(
                    "the source closed the connection",
                    hint="it is made anew from the last committed position",
                )
            parts.append(data)
            size += len(data)
            if not self._encrypted:
                break
        if parts:
            self._heard = self._clock()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _wait(self, timeout: float) -> None:
        """Returns when there is something to read, at a `wake`, or after `timeout` seconds."""
        ready = [descriptor for descriptor, _ in self._poll.poll(timeout * 1000)]
        if self._bell in ready:
            os.eventfd_read(self._bell)
        elif not ready:
            silent = self._clock() - self._heard
            if silent > self._silence:
                raise SourceUnavailableError(
                    f"the source sent nothing for {silent:.0f} s, not even a heartbeat",
                    hint="the connection is taken as lost and made anew",
                )

    def _more(self, rest: bytes, missing: int) -> bytes:
        """`rest` and at least `missing` further bytes."""
        if missing <= 0:
            return rest
        parts = [rest]
        while missing > 0:
            if data := self._receive():
                parts.append(data)
                missing -= len(data)
            else:
                self._wait(1.0)
        return b"".join(parts)

    def _ended(self, packet: bytes) -> SourceError:
        """The error that an EOF or ERR packet in place of an event means."""
        if packet[:1] == b"\xfe":
            return SourceUnavailableError(
                "the source ended the dump", hint="it is asked again from the last committed position"
            )
        if packet[:1] != b"\xff":
            return BinlogError(
                f"the source sent a packet of unknown kind 0x{packet[:1].hex()}",
                hint="report the source's version",
            )
        code = int.from_bytes(packet[1:3], "little")
        text = packet[3:].decode("utf-8", "replace")
        text = text[6:] if text.startswith("#") else text
        return dump_error(code, text)

    def wake(self) -> None:
        """Ends a wait for data early: `stretches` yields None at once. For other threads, also after `close`."""
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Ends the dump and its connection, once the reading thread is done with them."""
        self._connection._force_close()
        with self._bell_lock:
            if self._bell >= 0:
                os.close(self._bell)
            self._bell = -1


# What error 1236 says, in the wordings of MySQL 5.7 to 9.7 and MariaDB 10 and 11.
_LOST = (
    "could not find first log file",
    "purged required binary logs",
    "could not find gtid state requested",
    "could not open log file",
    "a slave connected with gtid",
)
_AHEAD = (
    "has more gtids than",
    "not in the master's binlog",
    "not in the primary's binlog",
    "which is not in the",
)
_CLASH = ("same server_uuid/server_id", "same server_id", "same server_uuid")


def dump_error(code: int, text: str) -> SourceError:
    """The error of ours for an error packet that ended a dump."""
    lower = text.lower()
    if any(words in lower for words in _CLASH):
        return SourceUnavailableError(
            "another replica with our server id is connected to the source",
            hint="give each replica its own SERVER_ID",
            code="SERVER_ID_CLASH",
        )
    if any(words in lower for words in _AHEAD):
        return SourceMismatchError(
            f"the source lacks transactions that the copy has ({text[:200]})",
            hint="it lags behind or was reset: point to the right server, or copy again with POST /sync/full",
        )
    if any(words in lower for words in _LOST):
        return PositionLostError(
            f"the source no longer has the binary log at our position ({text[:200]})",
            hint="copy again: POST /sync/full; keep binary logs longer (binlog_expire_logs_seconds)",
        )
    if code == 1236:
        return BinlogError(
            f"the source can't send the binary log from our position ({text[:200]})",
            hint="copy again: POST /sync/full",
        )
    return translate(pymysql.err.OperationalError(code, text), doing="reading the binary log")
