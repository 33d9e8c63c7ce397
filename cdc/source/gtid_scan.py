"""MariaDB's GTID position at a place in its binary log, read from the log itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from cdc.errors import SnapshotError
from cdc.position import GtidPosition, Position
from cdc.source import events
from cdc.source.binlog import BinlogDump

_HEARTBEAT = 5.0


def gtid_position_at(connection: Any, place: Position, *, server_id: int) -> str:
    """What BINLOG_GTID_POS(file, offset) should say, and doesn't where an event exceeds max_allowed_packet.

    Every file begins with the position before it (GTID_LIST), and every transaction says its own. Reads the
    file up to `place`, a transaction boundary; the connection is used up. Raises SourceError.
    """
    start = Position(place.flavor, place.server, place.file, 4)
    position = GtidPosition()
    with closing(
        BinlogDump(connection, start, server_id=server_id, heartbeat=_HEARTBEAT, gtid=False)
    ) as dump:
        for buffer, begin, end in _events(dump):
            _, kind, origin, _, log_pos, flags = events.HEADER.unpack_from(buffer, begin)
            body = buffer[begin + events.HEADER_BYTES : end]
            if kind == events.MARIADB_GTID:
                gtid = events.read_mariadb_gtid(body)
                position.advance(gtid.domain, origin, gtid.sequence)
            elif kind == events.MARIADB_GTID_LIST:
                for domain, server, sequence in events.read_gtid_list(body):
                    position.advance(domain, server, sequence)
            if log_pos >= place.offset and not flags & events.ARTIFICIAL and kind != events.ROTATE:
                return str(position)
    raise SnapshotError(
        f"the binary log ended before {place.file}:{place.offset}", hint="the copy is tried again"
    )


def _events(dump: BinlogDump) -> Iterator[tuple[bytes, int, int]]:
    for stretch in dump.stretches():
        if stretch is not None:
            for begin, end in zip(stretch.begins, stretch.ends, strict=True):
                yield stretch.buffer, begin, end
