"""The reader: events of one dump into transactions, and transactions into micro-batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from zlib import crc32

from cdc.errors import BinlogError, DucklingError, RolledBackPartError, SourceUnavailableError, StoppedError
from cdc.position import Position
from cdc.schema import NameCase, Table
from cdc.source import events
from cdc.source.batcher import Batcher
from cdc.source.binlog import BinlogDump, Stretch
from cdc.source.boundaries import Boundaries
from cdc.source.cascades import Cascades
from cdc.source.compressed_events import payload_events, uncompressed_query
from cdc.source.ddl import SchemaChange
from cdc.source.event_run import EventRun
from cdc.source.logged_statements import load_query
from cdc.source.meetings import Meeting, Meetings
from cdc.source.ordinary import OrdinaryTransactions
from cdc.source.place import Place
from cdc.source.query_events import QueryEvents
from cdc.source.row_events import RowEvents, StreamCounts
from cdc.source.tagged_gtid import read_tagged_gtid
from cdc.source.targets import Targets
from cdc.source.transaction import OpenTransaction, WholeTransactions
from cdc.source.xa import XaTransactions, xid_of_gtid
from cdc.source.xa_events import XaEvents


class BinlogReader:
    """Reads one dump until it is stopped or an error ends it.

    `tables` are the captured tables by the key that `names` makes of their name; they may be exchanged while
    the reader is held at a meeting. Rows of other tables and schemas are passed over; their transactions
    still move the position. `on_schema_change` is called at the boundary behind statements that may change a
    table of `schema`, with that boundary, after all before it was flushed with a position before it: who
    takes it carries the change out and moves the position in one transaction.

    Positions (`position`) are transaction boundaries only: whoever resumes there misses nothing. `committed`
    tells whether the copy has the first one as it stands, by file and offset.
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
        committed: bool = True,
        whole: WholeTransactions | None = None,
        cascades: Cascades | None = None,
        load_prepared: Callable[[str], Iterable[bytes] | None] = lambda _xid: None,
        reach: Callable[[frozenset[str]], Iterable[str] | None] = lambda _words: None,
    ) -> None:
        self.counts = StreamCounts()
        self.tables = tables
        self.drained = False
        """Whether the source had nothing more to send when last asked."""
        self._dump = dump
        self._batcher = batcher
        self._wall_clock = wall_clock
        self._meetings = Meetings()
        self._whole = whole or WholeTransactions()
        self._place = place = Place(position, known=committed)
        self._transaction = transaction = OpenTransaction(batcher)
        self._targets = targets = Targets(
            lambda: self.tables, schema=schema, names=names, collations=collations
        )
        self._rows = RowEvents(targets, batcher, transaction, self.counts, cascades or Cascades())
        self._boundaries = boundaries = Boundaries(
            place,
            transaction,
            batcher,
            targets,
            self._meetings,
            self.counts,
            on_schema_change=on_schema_change,
            position_interval=position_interval,
            clock=clock,
            committed=committed,
            whole=self._whole,
        )
        self._ordinary = OrdinaryTransactions(place, targets, self._rows, batcher, self.counts)
        self._prepared = XaTransactions(batcher, schema=schema, names=names, load=load_prepared)
        self._xa = XaEvents(self._prepared, transaction, batcher, boundaries, targets, self._replay)
        self._queries = QueryEvents(
            transaction,
            boundaries,
            self._xa,
            targets,
            schema=schema,
            names=names,
            collations=collations,
            reach=reach,
        )
        self._checksum = dump.checksum
        self._failure: DucklingError | None = None

    # For other threads -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ends `run` at the next transaction boundary, everything up to there flushed."""
        self._boundaries.stopping = True
        self._meetings.release()
        self._dump.wake()

    def fail(self, error: DucklingError) -> None:
        """Ends `run` with `error` as soon as it waits for data: the writer refused a batch."""
        self._failure = error
        self._dump.wake()

    def meet(self, target: Position | None, *, hold: bool = False) -> Meeting:
        """Asks for a flush at the first boundary at or behind `target` (None: the next one)."""
        meeting = Meeting(target, hold)
        if self._meetings.ask(meeting):
            self._dump.wake()
        return meeting

    @property
    def position(self) -> Position:
        """The last boundary that was read. Exact only in the reader's own thread or while it is held."""
        return self._place.position

    @property
    def place(self) -> Position:
        """How far it has read, GTIDs left out; from any thread, and never further than it is."""
        return self._place.without_gtids

    def settled(self, applied: Position) -> bool:
        """Whether `applied` is all that was read, and nothing more waits; from any thread."""
        return self.drained and self._boundaries.settled(applied)

    # The loop ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Reads until `stop`; raises the DucklingError that ends the stream otherwise.

        When it raises, rows of an unfinished transaction may have been handed on as parts: the writer must
        roll them back.
        """
        try:
            self._read(self._dump.stretches())
        except DucklingError as error:
            if isinstance(error, RolledBackPartError):
                self._whole.until = self.place
            self._locate(error)
            self._meetings.end(error)
            raise
        except Exception as error:
            failure = self._unreadable(f"an event can't be read ({error.__class__.__name__})")
            self._meetings.end(failure)
            raise failure from error
        self._meetings.end(StoppedError("the stream was stopped", hint="start it again: POST /cdc/start"))

    def _read(self, source: Iterable[Stretch | None]) -> bool:
        """Reads all of `source`. True ends the stream."""
        boundaries, ordinary = self._boundaries, self._ordinary
        for stretch in source:
            if stretch is None:
                if self._failure is not None:
                    raise self._failure
                self.drained = True
                if boundaries.idle():
                    return True
                continue
            self.drained = False
            self.counts.last_event = self._wall_clock()
            at = 0
            for first, last in ordinary.find(stretch):
                if self._take(stretch, at, first):
                    return True
                at = first
                run = EventRun.of(stretch, first, last, checksum=self._checksum)
                while run and self._prepared.recording is None and boundaries.clear_until(run.end):
                    taken = ordinary.take(run)
                    if not taken:
                        break
                    at += taken
                    if boundaries.passed():
                        return True
                    run = run.after(taken)
            if self._take(stretch, at, len(stretch.begins)):
                return True
        return False

    def _take(self, stretch: Stretch, first: int, last: int, *, inside: bool = False) -> bool:
        """Takes the events from `first` up to `last`, one by one. True ends the stream. `inside`: out of another event.

        Those have no checksum, and no place of their own.
        """
        unpack = events.HEADER.unpack_from
        header_bytes = events.HEADER_BYTES
        rows, table_map, begins = self._hot_kinds()
        format_description, xid, payload = events.FORMAT_DESCRIPTION, events.XID, events.TRANSACTION_PAYLOAD
        placeless, artificial, checksum_bytes = events.PLACELESS, events.ARTIFICIAL, events.CHECKSUM_BYTES
        counts, place, transaction, boundaries = self.counts, self._place, self._transaction, self._boundaries
        add_rows, add_table, conclude = self._rows.add, self._targets.add, boundaries.conclude
        recording = self._prepared.recording
        buffer = stretch.buffer
        for start, end in zip(stretch.begins[first:last], stretch.ends[first:last], strict=True):
            if end - start < header_bytes:
                raise self._unreadable(f"an event has {end - start} bytes, fewer than its header")
            timestamp, kind, server_id, size, log_pos, flags = unpack(buffer, start)
            if size != end - start:
                raise self._unreadable(f"an event says {size} bytes and has {end - start}")
            counts.events += 1
            if inside:
                log_pos = 0
            elif kind == format_description:
                self._format(buffer[start + header_bytes : end], flags)
                end -= checksum_bytes
            elif self._checksum:
                end -= checksum_bytes
                if crc32(buffer[start:end]) != int.from_bytes(buffer[end : end + 4], "little"):
                    raise SourceUnavailableError(
                        f"an event before {place.file}:{log_pos} fails its checksum",
                        hint="it is read again; if that fails too, the source's binary log is damaged",
                    )
            if log_pos and not flags & artificial and kind not in placeless:
                place.advance(log_pos, kind)
            body = start + header_bytes
            if kind in rows:
                if add_rows(kind, buffer, body, end) and transaction.is_open:
                    reason = self._batcher.overfull()
                    if reason is not None:
                        boundaries.hand_on_part(reason)
            elif kind == table_map:
                add_table(buffer, body, end)
            elif kind == xid:
                if conclude(timestamp):
                    return True
            elif kind == begins and events.is_begin(buffer, body, end):
                transaction.is_open = True
            elif kind == payload and not inside:
                if self._inside(payload_events(buffer, body, end)):
                    return True
                recording = self._prepared.recording
                rows, table_map, begins = self._hot_kinds()
            elif self._control(kind, buffer[body:end], timestamp, server_id, log_pos, flags):
                return True
            elif recording is not self._prepared.recording:
                recording = self._prepared.recording
                rows, table_map, begins = self._hot_kinds()
            elif (
                self._meetings
                and not transaction.is_open
                and not place.gtid_is_open
                and boundaries.keep_meetings()
            ):
                return True
        return False

    def _inside(self, source: Iterable[Stretch]) -> bool:
        """Takes events that come out of another one. True ends the stream."""
        return any(self._take(stretch, 0, len(stretch.begins), inside=True) for stretch in source)

    def _hot_kinds(self) -> tuple[frozenset[int], int, int]:
        """The kinds that the loop takes by itself: rows, TABLE_MAP, QUERY. In an XA transaction none of them."""
        if self._prepared.recording is not None:
            return frozenset(), -1, -1
        return events.ROWS, events.TABLE_MAP, events.QUERY

    def _control(
        self, kind: int, body: bytes, timestamp: int, server_id: int, log_pos: int, flags: int
    ) -> bool:
        """Events that are neither rows nor their TABLE_MAP; in an XA transaction, those too. True ends the loop."""
        if self._prepared.recording is not None and self._xa.keeps(kind, body, timestamp, server_id):
            return False
        if kind == events.GTID:
            self._place.begin(*events.read_gtid(body))
        elif kind == events.GTID_TAGGED:
            self._place.begin(*read_tagged_gtid(body))
        elif kind == events.QUERY:
            return self._queries.take(body, timestamp)
        elif kind == events.QUERY_COMPRESSED:
            return self._queries.take(uncompressed_query(body), timestamp)
        elif kind == events.EXECUTE_LOAD_QUERY:
            return self._queries.take(load_query(body), timestamp)
        elif kind == events.MARIADB_GTID:
            self._mariadb_gtid(body, server_id)
        elif kind == events.HEARTBEAT:
            if log_pos and not self._transaction.is_open:
                self._place.heard(body.decode(), log_pos)
        elif kind == events.ROTATE:
            self._place.rotate(*events.read_rotate(body))
        elif kind == events.XA_PREPARE:
            return self._xa.prepared(body, timestamp)
        elif kind in (events.FORMAT_DESCRIPTION, events.ANONYMOUS_GTID) or kind in events.HARMLESS:
            pass
        elif not flags & events.IGNORABLE:
            name = events.NAMES.get(kind, "unknown")
            raise BinlogError(
                f"the binary log holds an event of kind {kind} ({name})",
                hint="it can't be skipped without losing changes; switch the feature off at the source"
                " and copy again: POST /sync/full",
            )
        return False

    def _format(self, body: bytes, flags: int) -> None:
        """A new file begins (or the dump does): checksums, and what a crash of the source left open."""
        self._checksum = events.has_checksums(body)
        if self._transaction.is_open and not flags & events.ARTIFICIAL:
            self._boundaries.abandon_transaction()
            self._prepared.abandon()
        self._targets.by_id.clear()

    def _mariadb_gtid(self, body: bytes, server_id: int) -> None:
        gtid = events.read_mariadb_gtid(body)
        self._place.begin_mariadb(gtid.domain, server_id, gtid.sequence)
        self._transaction.is_open = not gtid.standalone
        self._queries.alters = gtid.alters
        if gtid.prepares_xa:
            self._prepared.begin(xid_of_gtid(body))

    def _replay(self, source: Iterable[Stretch]) -> bool:
        """Reads events that were kept, as if they stood here. True ends the stream."""
        ends = self._inside(source)
        self._targets.by_id.clear()
        return ends

    # Errors ------------------------------------------------------------------------------------------

    def _locate(self, error: DucklingError) -> None:
        """Says where in the log it was, once."""
        if isinstance(error, BinlogError) and " before " not in error.message:
            error.message += f", before {self._place.file}:{self._place.offset}"

    def _unreadable(self, what: str) -> BinlogError:
        return BinlogError(
            f"{what}, before {self._place.file}:{self._place.offset}",
            hint="the source's binary log may be damaged",
        )
