"""Binlog events outside the hot path, read from their bytes; and the codes of all kinds that are known.

Layouts: MySQL source documentation, "Binlog Events" (mysql::binlog::event), and MariaDB's knowledge base,
"Replication Protocol".
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from functools import lru_cache

from pymysqlreplication.constants import BINLOG

HEADER = struct.Struct("<IBIIIH")
"""timestamp, kind, server id, size, log position of the next event, flags."""
HEADER_BYTES = 19
CHECKSUM_BYTES = 4

ARTIFICIAL = 0x20
"""Flag: made up by the sender, not in the log."""
IGNORABLE = 0x80
"""Flag: whoever doesn't know the kind may ignore the event."""

QUERY: int = BINLOG.QUERY_EVENT
STOP: int = BINLOG.STOP_EVENT
ROTATE: int = BINLOG.ROTATE_EVENT
FORMAT_DESCRIPTION: int = BINLOG.FORMAT_DESCRIPTION_EVENT
XID: int = BINLOG.XID_EVENT
TABLE_MAP: int = BINLOG.TABLE_MAP_EVENT
HEARTBEAT: int = BINLOG.HEARTBEAT_LOG_EVENT
GTID: int = BINLOG.GTID_LOG_EVENT
ANONYMOUS_GTID: int = BINLOG.ANONYMOUS_GTID_LOG_EVENT
MARIADB_GTID: int = BINLOG.MARIADB_GTID_EVENT
MARIADB_GTID_LIST: int = BINLOG.MARIADB_GTID_GTID_LIST_EVENT

XA_PREPARE: int = BINLOG.XA_PREPARE_EVENT
PARTIAL_UPDATE_ROWS: int = BINLOG.PARTIAL_UPDATE_ROWS_EVENT
TRANSACTION_PAYLOAD = 40
"""MySQL: a transaction's events, compressed."""
GTID_TAGGED = 42
EXECUTE_LOAD_QUERY: int = BINLOG.EXECUTE_LOAD_QUERY_EVENT
"""LOAD DATA as a statement."""
QUERY_COMPRESSED = 165
"""MariaDB, as are the kinds 166 to 171: compressed rows events, of version 1 and 2."""
COMPRESSED_ROWS = frozenset({166, 167, 168, 169, 170, 171})

INSERT_ROWS: frozenset[int] = frozenset({BINLOG.WRITE_ROWS_EVENT_V1, BINLOG.WRITE_ROWS_EVENT_V2, 166, 169})
UPDATE_ROWS: frozenset[int] = frozenset(
    {BINLOG.UPDATE_ROWS_EVENT_V1, BINLOG.UPDATE_ROWS_EVENT_V2, 167, 170, PARTIAL_UPDATE_ROWS}
)
DELETE_ROWS: frozenset[int] = frozenset({BINLOG.DELETE_ROWS_EVENT_V1, BINLOG.DELETE_ROWS_EVENT_V2, 168, 171})
ROWS = INSERT_ROWS | UPDATE_ROWS | DELETE_ROWS
ROWS_V2: frozenset[int] = frozenset(
    {
        BINLOG.WRITE_ROWS_EVENT_V2,
        BINLOG.UPDATE_ROWS_EVENT_V2,
        BINLOG.DELETE_ROWS_EVENT_V2,
        PARTIAL_UPDATE_ROWS,
        169,
        170,
        171,
    }
)
"""Rows events whose fixed part is followed by data of a length given there."""

FILE_HEAD: frozenset[int] = frozenset(
    {
        FORMAT_DESCRIPTION,
        BINLOG.PREVIOUS_GTIDS_LOG_EVENT,
        MARIADB_GTID_LIST,
        BINLOG.MARIADB_BINLOG_CHECKPOINT_EVENT,
        BINLOG.MARIADB_START_ENCRYPTION_EVENT,
    }
)
"""What stands at the head of every file."""

PLACELESS = frozenset({ROTATE, HEARTBEAT})
"""Whose end position is not one of the file that is being read, or not an event's."""

HARMLESS: frozenset[int] = frozenset(
    {
        STOP,
        # Values for a statement that follows, which is judged itself.
        BINLOG.INTVAR_EVENT,
        BINLOG.RAND_EVENT,
        BINLOG.USER_VAR_EVENT,
        # The file of a LOAD DATA statement.
        BINLOG.BEGIN_LOAD_QUERY_EVENT,
        BINLOG.APPEND_BLOCK_EVENT,
        BINLOG.DELETE_FILE_EVENT,
        BINLOG.IGNORABLE_LOG_EVENT,
        # The statement's text, as a comment.
        BINLOG.ROWS_QUERY_LOG_EVENT,
        BINLOG.MARIADB_ANNOTATE_ROWS_EVENT,
        BINLOG.PREVIOUS_GTIDS_LOG_EVENT,
        MARIADB_GTID_LIST,
        BINLOG.MARIADB_BINLOG_CHECKPOINT_EVENT,
        # The source decrypts what it sends.
        BINLOG.MARIADB_START_ENCRYPTION_EVENT,
        36,  # TRANSACTION_CONTEXT, group replication
        37,  # VIEW_CHANGE, group replication
        41,  # HEARTBEAT_V2
        100,  # Aurora's own
        101,  # Aurora's own
    }
)
"""Kinds that change no row and no schema. A kind that is in no list here stops the stream."""

NAMES: dict[int, str] = {
    BINLOG.INCIDENT_EVENT: "INCIDENT: the source says that its binary log lost events",
}
"""Kinds that we know and don't decode."""


@dataclass(frozen=True, slots=True)
class Query:
    """A statement in the log, as the session sent it; `schema` is the session's default database.

    `collation` is the id of the session's character_set_client, in which the statement's bytes are; None
    where the event does not say. `sql_mode` holds the session's modes as bits.
    """

    schema: str
    statement: bytes
    collation: int | None = None
    sql_mode: int = 0


# Status variables of a QUERY event that stand before the character sets, with their lengths in bytes;
# None: a length byte and that many bytes (MySQL source documentation, Query_event, "Status variables").
_BEFORE_CHARSET: dict[int, int | None] = {0: 4, 1: 8, 2: None, 3: 4, 6: None}
_SQL_MODE = 1
_CHARSET = 4


def read_query(body: bytes) -> Query:
    """A QUERY event behind its header."""
    schema_length = body[8]
    at = 13 + int.from_bytes(body[11:13], "little")
    schema = body[at : at + schema_length].decode("utf-8", "replace")
    sql_mode, collation = _session(body[13:at])
    return Query(schema, body[at + schema_length + 1 :], collation, sql_mode)


def _session(variables: bytes) -> tuple[int, int | None]:
    """The session's sql_mode and the collation of its character_set_client, where they are told."""
    at = sql_mode = 0
    while at < len(variables):
        code = variables[at]
        if code == _CHARSET:
            return sql_mode, int.from_bytes(variables[at + 1 : at + 3], "little")
        if code not in _BEFORE_CHARSET:
            break
        if code == _SQL_MODE:
            sql_mode = int.from_bytes(variables[at + 1 : at + 9], "little")
        length = _BEFORE_CHARSET[code]
        if length is None:
            # The oldest form of the catalogue's name (code 2) ends with a zero as well.
            length = 1 + variables[at + 1] + (1 if code == 2 else 0)
        at += 1 + length
    return sql_mode, None


def is_begin(buffer: bytes, body: int, end: int) -> bool:
    """Whether the QUERY event between `body` (behind its header) and `end` is the statement BEGIN."""
    at = body + 14 + buffer[body + 8] + (buffer[body + 11] | buffer[body + 12] << 8)
    return end - at == 5 and buffer[at:end] == b"BEGIN"


def read_rotate(body: bytes) -> tuple[str, int]:
    """The file that follows, and where in it the next event begins."""
    return body[8:].decode(), int.from_bytes(body[:8], "little")


def read_gtid(body: bytes) -> tuple[str, int, float | None]:
    """Source UUID, transaction number, and when it was committed there (seconds since 1970, to the µs)."""
    when = None
    if len(body) >= 49:
        micros = int.from_bytes(body[42:49], "little") & ~(1 << 55)
        when = micros / 1e6
    return _uuid_text(body[1:17]), int.from_bytes(body[17:25], "little"), when


@lru_cache(maxsize=256)
def _uuid_text(source: bytes) -> str:
    return str(uuid.UUID(bytes=source))


MARIADB_GROUP_COMMIT = 2
"""Flag of MariaDB's GTID event: the number of a group commit stands in it."""
_XA = 64 | 128
_ALTER_NOT_YET = 2 | 8
"""FL_START_ALTER_E1, FL_ROLLBACK_ALTER_E1."""


@dataclass(frozen=True, slots=True)
class MariadbGtid:
    """MariaDB's GTID event: it opens a transaction, or stands before a single statement."""

    domain: int
    sequence: int
    flags: int
    alters: bool = True
    """False for an ALTER that only begins or is rolled back (binlog_alter_two_phase)."""

    @property
    def standalone(self) -> bool:
        """A single statement follows, with no end of its own."""
        return bool(self.flags & 1)

    @property
    def prepares_xa(self) -> bool:
        """The rows of an XA transaction follow, whose verdict stands elsewhere."""
        return bool(self.flags & 64)


def read_mariadb_gtid(body: bytes) -> MariadbGtid:
    """A MariaDB GTID event behind its header."""
    flags = body[12]
    # Behind the number of a group commit come flags again; those of an XA transaction, which has no ALTER, stand
    # elsewhere (Gtid_log_event in MariaDB's log_event.h).
    at = 21 if flags & MARIADB_GROUP_COMMIT else 13
    alters = bool(flags & _XA) or len(body) <= at or not body[at] & _ALTER_NOT_YET
    return MariadbGtid(
        int.from_bytes(body[8:12], "little"), int.from_bytes(body[:8], "little"), flags, alters
    )


_GTID_LIST_ENTRY = struct.Struct("<IIQ")


def read_gtid_list(body: bytes) -> list[tuple[int, int, int]]:
    """Domain, server and sequence of every entry of MariaDB's GTID_LIST, which stands at a file's head."""
    count = int.from_bytes(body[:4], "little") & 0x0FFFFFFF
    entries = body[4 : 4 + count * _GTID_LIST_ENTRY.size]
    return list(_GTID_LIST_ENTRY.iter_unpack(entries))


def has_checksums(format_description: bytes) -> bool:
    """Whether the events after this FORMAT_DESCRIPTION (header left off, checksum kept) carry a CRC32."""
    return format_description[-CHECKSUM_BYTES - 1] == 1
