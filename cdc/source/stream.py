"""The reader: events of one dump into transactions, and transactions into micro-batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from zlib import crc32

from cdc.errors import BinlogError, DucklingError, SchemaMismatchError, SourceUnavailableError, StoppedError
from cdc.position import GtidPosition, GtidSet, Position
from cdc.schema import NameCase, Table
from cdc.source import events
from cdc.source.batcher import Batcher, FlushReason
from cdc.source.binlog import BinlogDump
from cdc.source.ddl import SchemaChange, read_statement
from cdc.source.rows import RowBuffer, RowLayout
from cdc.source.table_map import TableMap, read_table_map
from cdc.values.charsets import decoder

_MAX_KNOWN_TABLES = 20_000
_HALF_WRAP = 1 << 31
"""A position that falls by more than this went past 4 GiB."""


@dataclass(slots=True)
class _Target:
    """A captured table as one TABLE_MAP describes it."""

    key: str
    table: str
    table_map: TableMap
    layout: RowLayout
    present: tuple[bytes, bytes]
    """The columns-present bitmaps of a full row image: bits beyond the last column as zeros, and as ones."""


@dataclass(slots=True)
class StreamCounts:
    """What a reader has seen since it was made; rows are those of captured tables."""

    events: int = 0
    transactions: int = 0
    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    last_event: float | None = None
    """Wall clock of the last packet from the source, heartbeats included."""


@dataclass(slots=True)
class Meeting:
    """A wish of another thread: flush at the first transaction boundary at or behind `target`.

    `reached` gets that boundary; the reader then waits for `release`, if `hold` is set.
    """

    target: Position | None
    hold: bool
    reached: Future[Position] = field(default_factory=Future)
    release: threading.Event = field(default_factory=threading.Event)


class BinlogReader:
    """Reads one dump until it is stopped or an error ends it.

    `tables` are the captured tables by the key that `names` makes of their name; they may be exchanged while
    the reader is held at a meeting. Rows of other tables and schemas are passed over; their transactions
    still move the position. `on_schema_change` is called at the boundary behind statements that may change a
    table of `schema`, with that boundary, after all before it was flushed with a position before it: who
    takes it carries the change out and moves the position in one transaction.

    Positions (`position`) are transaction boundaries only: whoever resumes there misses nothing.
    """

    def __init__(
        self,
        dump: BinlogDump,
        position: Position,
        batcher: Batcher,
        *,
        schema: str,
        tables: Mapping[str, Table],
        names: NameCase,
        collations: Mapping[int, str],
        on_schema_change: Callable[[list[SchemaChange], Position], None],
        position_interval: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.counts = StreamCounts()
        self._dump = dump
        self._batcher = batcher
        self._schema = schema
        self._names = names
        self._collations = collations
        self._on_schema_change = on_schema_change
        self._position_interval = position_interval
        self._clock = clock
        self._wall_clock = wall_clock
        self._flavor = position.flavor
        self._server = position.server
        self._file, self._offset = position.file, position.offset
        self._gtids = position.gtid_state()
        self._timestamp = position.timestamp
        self._checksum = dump.checksum
        self._commit_gtid: Callable[[], None] | None = None
        self._commit_time: float | None = None
        self._in_transaction = False
        self._marks: list[tuple[RowBuffer, int]] = []
        self._savepoints: dict[str, tuple[int, list[tuple[RowBuffer, int]]]] = {}
        self._changes: list[SchemaChange] = []
        self._maps: dict[bytes, _Target | None] = {}
        self._known: dict[bytes, _Target | None] = {}
        self._boundary_at = (self._file, self._offset)
        """File and offset of the last transaction boundary."""
        self._flushed_offset = (self._file, self._offset)
        self._flushed_at = clock()
        self._meetings: list[Meeting] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._failure: DucklingError | None = None
        self._ended: DucklingError | None = None
        self.tables = tables
        self.drained = False
        """Whether the source had nothing more to send when last asked."""

    # For other threads -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ends `run` at the next transaction boundary, everything up to there flushed."""
        self._stopping = True
        with self._lock:
            meetings = list(self._meetings)
        for meeting in meetings:
            meeting.release.set()
        self._dump.wake()

    def fail(self, error: DucklingError) -> None:
        """Ends `run` with `error` as soon as it waits for data: the writer refused a batch."""
        self._failure = error
        self._dump.wake()

    def meet(self, target: Position | None, *, hold: bool = False) -> Meeting:
        """Asks for a flush at the first boundary at or behind `target` (None: the next one)."""
        meeting = Meeting(target, hold)
        with self._lock:
            if self._ended is not None:
                meeting.reached.set_exception(self._ended)
                return meeting
            self._meetings.append(meeting)
        self._dump.wake()
        return meeting

    @property
    def position(self) -> Position:
        """The last boundary that was read. Exact only in the reader's own thread or while it is held."""
        return Position(
            self._flavor, self._server, self._file, self._offset, str(self._gtids), self._timestamp
        )

    # The loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Reads until `stop`; raises the DucklingError that ends the stream otherwise.

        When it raises, rows of an unfinished transaction may have been handed on as parts: the writer must
        roll them back.
        """
        try:
            self._loop()
        except DucklingError as error:
            self._fail_meetings(error)
            raise
        except Exception as error:
            failure = self._unreadable(f"an event can't be read ({error.__class__.__name__})")
            self._fail_meetings(failure)
            raise failure from error
        self._fail_meetings(StoppedError("the stream was stopped", hint="start it again: POST /cdc/start"))

    def _fail_meetings(self, error: DucklingError) -> None:
        with self._lock:
            self._ended = error
            meetings, self._meetings = self._meetings, []
        for meeting in meetings:
            if not meeting.reached.done():
                meeting.reached.set_exception(error)

    def _loop(self) -> None:
        unpack = events.HEADER.unpack_from
        header_bytes = events.HEADER_BYTES
        rows, table_map = events.ROWS, events.TABLE_MAP
        counts = self.counts
        for event in self._dump.events():
            if event is None:
                if self._failure is not None:
                    raise self._failure
                self.drained = True
                if self._idle():
                    return
                continue
            self.drained = False
            buffer, start, end = event
            timestamp, kind, server_id, size, log_pos, flags = unpack(buffer, start)
            if size != end - start:
                raise self._unreadable(f"an event says {size} bytes and has {end - start}")
            counts.events += 1
            counts.last_event = self._wall_clock()
            if kind == events.FORMAT_DESCRIPTION:
                self._format(buffer[start + header_bytes : end], flags)
                end -= events.CHECKSUM_BYTES
            elif self._checksum:
                end -= events.CHECKSUM_BYTES
                if crc32(buffer[start:end]) != int.from_bytes(buffer[end : end + 4], "little"):
                    raise SourceUnavailableError(
                        f"an event before {self._file}:{log_pos} fails its checksum",
                        hint="it is read again; if that fails too, the source's binary log is damaged",
                    )
            if log_pos and not flags & events.ARTIFICIAL and kind not in (events.ROTATE, events.HEARTBEAT):
                self._advance(log_pos, kind)
            body = start + header_bytes
            if kind in rows:
                self._rows(kind, buffer, body, end)
            elif kind == table_map:
                self._table_map(buffer, body, end)
            elif kind == events.XID:
                self._commit(timestamp)
                if self._boundary(drained=False):
                    return
            elif kind == events.QUERY and events.is_begin(buffer, body, end):
                self._in_transaction = True
            elif self._control(kind, buffer[body:end], timestamp, server_id, log_pos, flags):
                return
            elif self._meetings and not self._in_transaction and self._commit_gtid is None:
                self._keep_meetings()

    def _advance(self, log_pos: int, kind: int) -> None:
        """Takes over an event's end position; headers say its low 32 bits only.

        A dump that starts inside a file sends that file's head first: that does not lead back.
        """
        low = self._offset & 0xFFFFFFFF
        if log_pos >= low:
            self._offset += log_pos - low
        elif low - log_pos > _HALF_WRAP and kind not in events.FILE_HEAD:
            self._offset += (1 << 32) + log_pos - low

    def _control(
        self, kind: int, body: bytes, timestamp: int, server_id: int, log_pos: int, flags: int
    ) -> bool:
        """Events that are neither rows nor their TABLE_MAP. True ends the loop."""
        if kind == events.GTID:
            sid, number, self._commit_time = events.read_gtid(body)
            gtids = self._gtids
            assert isinstance(gtids, GtidSet)
            self._commit_gtid = lambda: gtids.add(sid, number)
        elif kind == events.QUERY:
            return self._query(events.read_query(body), timestamp)
        elif kind == events.MARIADB_GTID:
            self._mariadb_gtid(events.read_mariadb_gtid(body), server_id)
        elif kind == events.HEARTBEAT:
            if body.decode() == self._file and not self._in_transaction and log_pos:
                low = self._offset & 0xFFFFFFFF
                if log_pos > low:
                    self._offset += log_pos - low
        elif kind == events.ROTATE:
            self._rotate(body)
        elif kind in (events.FORMAT_DESCRIPTION, events.ANONYMOUS_GTID) or kind in events.HARMLESS:
            pass
        elif not flags & events.IGNORABLE:
            name = events.NAMES.get(kind, "unknown")
            raise BinlogError(
                f"the binary log holds an event of kind {kind} ({name}) before {self._file}:{self._offset}",
                hint="it can't be skipped without losing changes; switch the feature off at the source"
                " and copy again: POST /sync/full",
            )
        return False

    def _format(self, body: bytes, flags: int) -> None:
        """A new file begins (or the dump does): checksums, and what a crash of the source left open."""
        self._checksum = events.has_checksums(body)
        if self._in_transaction and not flags & events.ARTIFICIAL:
            if self._batcher.parts:
                raise SourceUnavailableError(
                    "the source died inside a transaction of which parts were handed on",
                    hint="they are rolled back, and the stream is read again from the committed position",
                )
            # The source died inside a transaction: its log ends there, and the GTID was never used.
            self._rollback()
            self._commit_gtid = None
        self._maps.clear()

    def _rotate(self, body: bytes) -> None:
        file, offset = events.read_rotate(body)
        if file != self._file:
            self._file, self._offset = file, offset

    def _mariadb_gtid(self, gtid: events.MariadbGtid, server_id: int) -> None:
        if gtid.xa:
            raise self._xa()
        gtids = self._gtids
        assert isinstance(gtids, GtidPosition)
        self._commit_gtid = lambda: gtids.advance(gtid.domain, server_id, gtid.sequence)
        self._commit_time = None
        self._in_transaction = not gtid.standalone

    # Transactions ------------------------------------------------------------------------------------

    def _query(self, query: events.Query, timestamp: int) -> bool:
        if query.statement == b"BEGIN":
            self._in_transaction = True
            return False
        statement = self._statement(query)
        word = statement[:9].upper().rstrip(" ;")
        if word == "COMMIT":
            self._commit(timestamp)
            return self._boundary(drained=False)
        if word == "ROLLBACK":
            if statement.rstrip(" ;").upper() == "ROLLBACK":
                self._rollback()
                self._commit(timestamp)
                return self._boundary(drained=False)
            self._rollback_to(statement)
            return False
        if word == "SAVEPOINT":
            lengths = [(buffer, len(buffer)) for _, buffer in self._batcher.batch.buffers]
            self._savepoints[_savepoint_name(statement)] = (self._batcher.parts, lengths)
            return False
        if word[:3] == "XA ":
            raise self._xa()
        change = read_statement(statement, query.schema, self._schema, self._names)
        if change is not None and change.is_data:
            raise BinlogError(
                f"a statement that changes rows stands in the binary log before {self._file}:{self._offset}:"
                " some session writes with binlog_format STATEMENT or MIXED",
                hint="set binlog_format = ROW for every session and copy again: POST /sync/full",
            )
        if change is not None:
            if not self._changes and not self._batcher.parts:
                self._flush(FlushReason.SCHEMA, self._last_boundary())
            self._changes.append(change)
            if change.opens_transaction:
                self._in_transaction = True
        if self._in_transaction:
            return False
        self._commit(timestamp)
        return self._boundary(drained=False)

    def _statement(self, query: events.Query) -> str:
        """The statement as text; it stands in the log in the character set of the session that sent it."""
        character_set = self._collations.get(query.collation) if query.collation is not None else None
        if character_set is None or character_set == "binary":
            return query.statement.decode("utf-8", "replace")
        return decoder(character_set)(query.statement)

    def _commit(self, timestamp: int) -> None:
        """The end of a transaction: its rows count, and the position may stand here."""
        if self._commit_gtid is not None:
            self._commit_gtid()
            self._commit_gtid = None
        self._timestamp = self._commit_time or float(timestamp)
        self._in_transaction = False
        self._boundary_at = (self._file, self._offset)
        if self._marks:
            self._batcher.batch.transactions += 1
            self._marks.clear()
        if self._savepoints:
            self._savepoints.clear()
        self.counts.transactions += 1

    def _rollback(self) -> None:
        if self._batcher.parts:
            raise self._rollback_of_part()
        for buffer, length in reversed(self._marks):
            buffer.truncate(length)
        self._recount()
        self._marks.clear()
        self._savepoints.clear()
        self._in_transaction = False

    def _rollback_to(self, statement: str) -> None:
        parts, lengths = self._savepoints.get(_savepoint_name(statement), (-1, []))
        if parts != self._batcher.parts:
            raise self._rollback_of_part()
        kept = {id(buffer): length for buffer, length in lengths}
        for _, buffer in self._batcher.batch.buffers:
            buffer.truncate(kept.get(id(buffer), 0))
        self._recount()

    def _recount(self) -> None:
        self._batcher.batch.rows = sum(len(buffer) for _, buffer in self._batcher.batch.buffers)

    # Rows --------------------------------------------------------------------------------------------

    def _table_map(self, buffer: bytes, body: int, end: int) -> None:
        content = buffer[body + 6 : end]
        try:
            target = self._known[content]
        except KeyError:
            target = self._known_target(content)
        self._maps[buffer[body : body + 6]] = target

    def _known_target(self, content: bytes) -> _Target | None:
        """What a TABLE_MAP that was not seen before means for us."""
        if len(self._known) > _MAX_KNOWN_TABLES:
            self._known.clear()
        length = content[2]
        target: _Target | None = None
        schema = content[3 : 3 + length].decode()
        if self._names.key(schema) == self._names.key(self._schema):
            at = 3 + length + 1
            name = content[at + 1 : at + 1 + content[at]].decode()
            key = self._names.key(name)
            table = self.tables.get(key)
            if table is not None:
                target = self._target(key, table, read_table_map(content, self._collations, _member_text))
        self._known[content] = target
        return target

    def _target(self, key: str, table: Table, table_map: TableMap) -> _Target:
        if not table_map.named:
            raise BinlogError(
                f"the source writes no column names for table {table.name}",
                hint="SET GLOBAL binlog_row_metadata = FULL, then POST /sync/table/" + table.name,
                table=table.name,
                code="ROW_METADATA",
            )
        ours = {column.name.casefold() for column in table.columns}
        theirs = {column.name.casefold() for column in table_map.columns if not _is_hidden(column.name)}
        if ours != theirs:
            odd = min(ours ^ theirs)
            raise SchemaMismatchError(
                f"column {odd!r} of table {table.name} is on one side only: its definition changed",
                hint=f"the table is copied again; by hand: POST /sync/table/{table.name}",
                table=table.name,
            )
        layout = RowLayout.of(table_map, table.primary_key)
        return _Target(
            key, table.name, table_map, layout, (layout.columns_bitmap, b"\xff" * layout.null_bytes)
        )

    def _rows(self, kind: int, buffer: bytes, body: int, end: int) -> None:
        try:
            target = self._maps[buffer[body : body + 6]]
        except KeyError:
            if buffer[body : body + 6] == b"\xff\xff\xff\x00\x00\x00":
                return  # an empty event that only ends a statement
            raise BinlogError(
                f"rows without a TABLE_MAP before {self._file}:{self._offset}",
                hint="the position is not a transaction boundary: copy again with POST /sync/full",
            ) from None
        if target is None:
            return
        pos = body + 8
        if kind in events.ROWS_V2:
            pos += buffer[pos] | buffer[pos + 1] << 8
        pos += 1 if buffer[pos] < 251 else 3  # the number of columns, known from the TABLE_MAP
        width = target.layout.null_bytes
        images = 2 if kind in events.UPDATE_ROWS else 1
        for _ in range(images):
            if buffer[pos : pos + width] not in target.present:
                raise BinlogError(
                    f"a row image of table {target.table} lacks columns (binlog_row_image is not FULL)",
                    hint="set binlog_row_image = FULL for every session, then POST /sync/table/"
                    + target.table,
                    table=target.table,
                    code="ROW_IMAGE",
                )
            pos += width
        batcher = self._batcher
        rows = batcher.buffer(target.key, target.table_map, target.layout)
        self._marks.append((rows, len(rows)))
        try:
            if kind in events.INSERT_ROWS:
                count = rows.insert(buffer, pos, end)
                self.counts.inserts += count
            elif images == 2:
                count = rows.update(buffer, pos, end)
                self.counts.updates += count
            else:
                count = rows.delete(buffer, pos, end)
                self.counts.deletes += count
        except (BinlogError, IndexError) as error:
            failure = self._unreadable(f"rows of table {target.table} can't be read")
            failure.table = target.table
            raise failure from error
        batch = batcher.batch
        batch.rows += count
        batch.bytes += end - pos
        reason = batcher.full()
        if reason is not None and self._in_transaction:
            if self._stopping:
                raise self._stopped_inside()
            batcher.flush_part(reason)
            self._marks = [(rows, 0)]

    # Boundaries --------------------------------------------------------------------------------------

    def _idle(self) -> bool:
        """Nothing more to read now. True ends the loop."""
        if self._in_transaction or self._commit_gtid is not None:
            if self._stopping and self._batcher.parts:
                raise self._stopped_inside()
            return self._stopping  # what is unfinished comes again after the next start
        return self._boundary(drained=True)

    def _boundary(self, *, drained: bool) -> bool:
        """At a transaction boundary: flush what is due, keep appointments. True ends the loop."""
        if self._changes:
            self._announce_changes()
        reason = self._batcher.due(drained=drained)
        if reason is not None:
            self._flush(reason)
        elif self._batcher.batch.opened_at is None and self._position_due(drained=drained):
            self._flush(FlushReason.POSITION)
        if self._meetings:
            self._keep_meetings()
        if self._stopping:
            self._flush(FlushReason.BARRIER)
            return True
        return False

    def _announce_changes(self) -> None:
        changes, self._changes = self._changes, []
        self._on_schema_change(changes, self.position)
        self._flushed_offset = (self._file, self._offset)
        self._known.clear()
        self._maps.clear()

    def _position_due(self, *, drained: bool) -> bool:
        if (self._file, self._offset) == self._flushed_offset:
            return False
        interval = self._position_interval if drained else 2 * self._position_interval
        return self._clock() - self._flushed_at >= interval

    def _last_boundary(self) -> Position:
        """The boundary before the transaction that is being read; its GTID is not in the set yet."""
        file, offset = self._boundary_at
        return replace(self.position, file=file, offset=offset)

    def _flush(self, reason: FlushReason, position: Position | None = None) -> None:
        position = position or self.position
        self._flushed_offset = (position.file, position.offset)
        self._flushed_at = self._clock()
        self._batcher.flush(position, reason)

    def _keep_meetings(self) -> None:
        """Keeps all that are due here, those asked for while the reader was held here among them."""
        if not any(map(self._may_be_due, self._meetings)):
            return
        here = self.position
        flushed = False
        while True:
            with self._lock:
                due = [m for m in self._meetings if _is_due(m, here)]
                self._meetings = [m for m in self._meetings if m in due or not m.reached.done()]
            if not due:
                return
            if not flushed:
                self._flush(FlushReason.BARRIER)
                flushed = True
            # It stays in the list until it is over, so that stop() releases it and an error reaches it.
            meeting = due[0]
            meeting.reached.set_result(here)
            if meeting.hold:
                meeting.release.wait()
                self._known.clear()
                self._maps.clear()
            with self._lock:
                self._meetings.remove(meeting)

    def _may_be_due(self, meeting: Meeting) -> bool:
        """False for a target further on in the file that is read: the cheap test for each transaction."""
        target = meeting.target
        return (
            target is None
            or target.offset <= self._offset
            or target.file != self._file
            or target.server != self._server
        )

    # Errors ------------------------------------------------------------------------------------------

    def _unreadable(self, what: str) -> BinlogError:
        return BinlogError(
            f"{what}, before {self._file}:{self._offset}", hint="the source's binary log may be damaged"
        )

    def _stopped_inside(self) -> StoppedError:
        return StoppedError("the stream was stopped inside a transaction", hint="it comes again")

    def _xa(self) -> BinlogError:
        return BinlogError(
            f"an XA transaction stands in the binary log before {self._file}:{self._offset}",
            hint="XA transactions are not followed yet: end them at the source and copy again",
        )

    def _rollback_of_part(self) -> BinlogError:
        return BinlogError(
            f"a transaction before {self._file}:{self._offset} was rolled back after a part of it was applied",
            hint="raise BATCH_SIZE so that the transaction fits one batch",
        )


def _is_due(meeting: Meeting, here: Position) -> bool:
    """Whether `here` is where the meeting was wanted, or behind; an impossible wish is told so."""
    try:
        return meeting.target is None or here.reached(meeting.target)
    except BinlogError as error:
        meeting.reached.set_exception(error)
        return False


def _member_text(member: bytes, character_set: str | None) -> str:
    """A member of an ENUM or SET, which stands in the log in its column's character set."""
    if character_set in (None, "binary"):
        return member.decode("utf-8", "replace")
    return decoder(character_set)(member)


def _savepoint_name(statement: str) -> str:
    return statement.rstrip(" ;").split()[-1].strip("`")


def _is_hidden(column: str) -> bool:
    """MariaDB's invisible helper of a long UNIQUE key, in the log but not in the catalogue."""
    return column.startswith("DB_ROW_HASH_")
