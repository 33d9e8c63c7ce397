"""The stream of one database: a reader at work, made anew after every loss from the committed position."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime

import duckdb
import structlog

from cdc.backoff import Backoff
from cdc.cascades import CascadesKeptInStep, settle, source_cascades
from cdc.engine import Engine
from cdc.errors import (
    ConflictError,
    DivergenceError,
    DucklingError,
    PositionLostError,
    ReplicaError,
    SchemaMismatchError,
    SourceMismatchError,
    StoppedError,
)
from cdc.lag import Progress
from cdc.position import Position
from cdc.replica import prepared, state
from cdc.replica.target import BatchTarget
from cdc.schema import Table
from cdc.schema_changes import SchemaChanges
from cdc.source.batcher import Batcher
from cdc.source.binlog import BinlogDump
from cdc.source.cascades import Cascades
from cdc.source.ddl import SchemaChange
from cdc.source.logged_statements import reach
from cdc.source.meetings import Meeting
from cdc.source.row_events import StreamCounts
from cdc.source.server import collation_names, has_transactions, server_facts
from cdc.source.stream import BinlogReader
from cdc.status import PipelineState, TableState

log = structlog.get_logger(__name__)


def open_reader(
    engine: Engine,
    position: Position,
    target: BatchTarget,
    tables: dict[str, Table],
    schema_changes: Callable[[list[SchemaChange], Position], None],
    *,
    server_id: int,
    purpose: str,
    cascades: Cascades,
) -> tuple[BinlogReader, BinlogDump]:
    """A reader from `position` that feeds `target` with the rows of `tables` (by the key of their name).

    A position without GTIDs is good for the server it came from only; with GTIDs any server that has all
    of them will do. Raises SourceError.
    """
    settings = engine.settings
    connection = engine.endpoint.connect(purpose=purpose)
    try:
        facts = engine.learn(server_facts(connection))
        collations = collation_names(connection)
        by_gtid = facts.gtid_mode and bool(position.gtid)
        if facts.flavor != position.flavor or (not by_gtid and facts.server_uuid != position.server):
            raise SourceMismatchError(
                "the source is another server than the one that the copy follows, and its positions mean"
                " nothing there",
                hint="point to the old server, or copy again: POST /sync/full",
            )
        if facts.server_uuid != position.server:
            if facts.flavor == "mysql" and not has_transactions(connection, position.gtid):
                raise SourceMismatchError(
                    "the source is another server now, and it lacks transactions that the copy has",
                    hint="when it has caught up: POST /cdc/start; if it never will: POST /sync/full",
                )
            position = Position(
                position.flavor, facts.server_uuid, position.file, 4, position.gtid, position.timestamp
            )
        dump = BinlogDump(
            connection,
            position,
            server_id=server_id,
            heartbeat=settings.heartbeat_seconds,
            gtid=by_gtid,
        )
    except BaseException:
        connection._force_close()
        raise
    batcher = Batcher(
        lambda batch: engine.writer.deliver(target, batch),
        engine.writer.hungry,
        max_rows=settings.batch_size,
        max_bytes=settings.batch_bytes,
        max_age=settings.batch_age,
    )
    reader = BinlogReader(
        dump,
        position,
        batcher,
        schema=engine.endpoint.database,
        tables=tables,
        names=engine.names,
        collations=collations,
        on_schema_change=schema_changes,
        position_interval=settings.position_interval,
        wall_clock=engine.lag.clock,
        cascades=cascades,
        reach=lambda words: _reach(engine, words),
        load_prepared=lambda xid: _prepared_parts(engine, target, xid),
    )
    target.on_error, target.on_idle = reader.fail, dump.wake
    engine.writer.attach(target)
    return reader, dump


def _reach(engine: Engine, words: frozenset[str]) -> Iterable[str] | None:
    """Tables that a logged statement with these words may have changed; None for any."""
    with closing(
        engine.endpoint.connect(purpose="looking for what a logged statement may change")
    ) as connection:
        return reach(connection, engine.endpoint.database, words, engine.names)


def _prepared_parts(engine: Engine, target: BatchTarget, xid: str) -> Iterator[bytes] | None:
    """A prepared XA transaction out of the bookkeeping, once all that was delivered is in it."""
    engine.writer.submit(lambda _: None).result()
    return prepared.load(engine.replica, target.owner, xid)


class StreamLoop:
    """Keeps a reader running in a thread of its own; `state` says how that goes.

    `tables` are those that stream, by the key of their name (`NameCase`). They change in the reader's own
    thread (a table that fails or changes leaves) or while the reader is held (a copied table joins).
    """

    def __init__(
        self,
        engine: Engine,
        *,
        needs_copy: Callable[[list[str]], None],
    ) -> None:
        self._engine = engine
        self._needs_copy = needs_copy
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._connected = threading.Event()
        self._reader: BinlogReader | None = None
        self._target: BatchTarget | None = None
        self._past = StreamCounts()
        self.tables: dict[str, Table] = {}
        self.state = PipelineState.STOPPED
        self.connected_at: datetime | None = None
        self.last_error: DucklingError | None = None
        self.errors = 0
        self.reconnects = 0
        engine.lag.follow(self.progress, silence=2 * engine.settings.heartbeat_seconds)

    # For other threads -------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts streaming from the committed position; starting twice is fine."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._stop.clear()
            self.state = PipelineState.STARTING
            self._thread = threading.Thread(target=self._run, name=f"stream-{self._engine.id}", daemon=True)
            self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Ends the stream at a transaction boundary, all rows before it handed on; True if it has ended."""
        self._stop.set()
        with self._lock:
            reader, thread = self._reader, self._thread
        if reader is not None:
            reader.stop()
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether the thread lives: it streams, or tries to."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def reader(self) -> BinlogReader | None:
        """The reader at work, if connected."""
        return self._reader

    @property
    def applied(self) -> Position | None:
        """The last boundary that this run of the stream has committed."""
        target = self._target
        return target.applied if target is not None else None

    def meet(self, target: Position | None, *, hold: bool = False) -> Meeting:
        """See `BinlogReader.meet`. Raises ConflictError where no reader is at work."""
        with self._lock:
            if self._reader is None:
                raise ConflictError(
                    "the stream is not connected to the source",
                    hint="see lastError in GET /cdc/status, or POST /cdc/start",
                    code="STREAM_NOT_RUNNING",
                )
            return self._reader.meet(target, hold=hold)

    def wait_connected(self, timeout: float) -> None:
        """Returns once a reader is at work, or after `timeout` seconds."""
        self._connected.wait(timeout)

    def counts(self) -> StreamCounts:
        """What this and earlier readers have seen since the service started."""
        total = StreamCounts()
        reader = self._reader
        for counts in [self._past] + ([reader.counts] if reader is not None else []):
            total.events += counts.events
            total.transactions += counts.transactions
            total.inserts += counts.inserts
            total.updates += counts.updates
            total.deletes += counts.deletes
            total.last_event = counts.last_event or total.last_event
        return total

    def lag_seconds(self) -> float | None:
        """See `cdc.lag.Lag.seconds`."""
        return self._engine.lag.seconds()

    def progress(self) -> Progress:
        """Where the stream stands now; from any thread."""
        reader, target = self._reader, self._target
        applied = target.applied if target is not None else None
        if applied is None:
            return Progress()
        if reader is None:
            return Progress(applied, applied.timestamp)
        # In this order: what is read between the lines is not taken for settled.
        heard, place = reader.counts.last_event, reader.place
        connected = self.connected_at.timestamp() if self.connected_at else None
        if reader.settled(applied):
            return Progress(place, place.timestamp, heard, connected)
        return Progress(applied, applied.timestamp, None, connected, pending=True)

    # The thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = Backoff(self._engine.settings.retry_max_seconds)
        try:
            while not self._stop.is_set():
                try:
                    self._stream(backoff)
                except StoppedError:
                    continue
                except DucklingError as error:
                    if not self._survives(error):
                        return
                    self._stop.wait(backoff.pause())
                except Exception as error:
                    log.exception("stream.unexpected", database=self._engine.id)
                    self._give_up(DucklingError(f"the stream failed: {error.__class__.__name__}: {error}"))
                    return
            self.state = PipelineState.STOPPED
        finally:
            self.connected_at = None

    def forgive(self) -> None:
        """A human asks for another start after a failure."""
        if not self.running:
            self.state = PipelineState.STOPPED

    def forget(self) -> None:
        """The copy was cleared: there is no place in it any more. The stream must be stopped."""
        self.tables = {}
        self._target = None
        self.state = PipelineState.STOPPED
        self._engine.lag.forget()

    def _stream(self, backoff: Backoff) -> None:
        engine = self._engine
        engine.ensure_learned()
        cascades = Cascades(source_cascades(engine))
        position, self.tables, left = engine.writer.submit(
            lambda cursor: self._committed(cursor, cascades)
        ).result()
        if left:
            self._needs_copy(left)
        if position is None:
            raise PositionLostError("there is no copy yet", hint="copy first: POST /sync/full")
        target = BatchTarget(
            self.tables,
            save_position=lambda cursor, at: state.save_position(cursor, engine.id, at),
        )
        target.applied = position
        self._target = target
        changes = CascadesKeptInStep(
            engine, cascades, self.tables, SchemaChanges(engine, target, self._needs_copy), self._needs_copy
        )
        reader, dump = open_reader(
            engine,
            position,
            target,
            self.tables,
            changes,
            server_id=engine.server_id,
            purpose="streaming",
            cascades=cascades,
        )
        with self._lock:
            self._reader = reader
        self._connected.set()
        if self._stop.is_set():
            reader.stop()
        if self.last_error is not None:
            self.reconnects += 1
            engine.metrics.reconnected()
        self.connected_at = datetime.fromtimestamp(engine.lag.clock(), UTC)
        engine.lag.look_now.set()
        self.state = PipelineState.STREAMING
        log.info("stream.connected", database=engine.id, position=str(position))
        try:
            reader.run()
        except DucklingError as error:
            engine.lag.observe()
            engine.writer.discard(target, error)
            raise
        finally:
            self._connected.clear()
            engine.writer.detach(target)
            with self._lock:
                self._reader = None
            dump.close()
            if target.applied != position:
                backoff.reset()
            self._keep_counts(reader.counts)

    def _committed(
        self, cursor: duckdb.DuckDBPyConnection, cascades: Cascades
    ) -> tuple[Position | None, dict[str, Table], list[str]]:
        """Position and streaming tables as the file has them, behind all that was delivered before; and the
        tables that must be copied again, since their foreign keys can't be followed from there."""
        position = state.load_position(cursor, self._engine.id)
        live = {
            self._engine.names.key(record.name): record.definition
            for record in state.load_tables(cursor).values()
            if record.state is TableState.STREAMING and record.definition is not None
        }
        return position, live, settle(cursor, self._engine, cascades, live)

    def _survives(self, error: DucklingError) -> bool:
        """Takes note of `error`; False where the stream must wait for a human."""
        engine = self._engine
        self.errors += 1
        self.last_error = error
        engine.metrics.error_met(error.code)
        if error.table is not None and self._engine.names.key(error.table) in self.tables:
            return self._set_aside(error)
        if isinstance(error, PositionLostError):
            self.state = PipelineState.NEEDS_RESYNC
            log.error("stream.needs_resync", database=engine.id, error=error.message, hint=error.hint)
            return False
        if error.retryable or isinstance(error, ReplicaError):
            self.state = PipelineState.RETRYING
            log.warning(
                "stream.retrying", database=engine.id, code=error.code, error=error.message, hint=error.hint
            )
            return True
        self._give_up(error)
        return False

    def _give_up(self, error: DucklingError) -> None:
        self.last_error = error
        self.state = PipelineState.FAILED
        log.error(
            "stream.failed",
            database=self._engine.id,
            code=error.code,
            error=error.message,
            hint=error.hint,
            exc_info=error.__cause__,
        )

    def _set_aside(self, error: DucklingError) -> bool:
        """One table can't go on: it leaves the stream, the others stay. False if even that failed."""
        assert error.table is not None
        name = self.tables[self._engine.names.key(error.table)].name
        again = isinstance(error, SchemaMismatchError | DivergenceError)
        mark = TableState.NEEDS_RESYNC if again else TableState.ERRORED
        log.error(
            "table.set_aside",
            database=self._engine.id,
            table=name,
            state=mark.value,
            code=error.code,
            error=error.message,
            hint=error.hint,
        )
        try:
            self._engine.writer.submit(
                lambda cursor: state.save_table(cursor, name, mark, reason=error.message, hint=error.hint)
            ).result()
        except DucklingError as failure:
            return self._survives(failure)
        if again:
            self._needs_copy([name])
        return True

    def _keep_counts(self, counts: StreamCounts) -> None:
        self._past = StreamCounts(
            self._past.events + counts.events,
            self._past.transactions + counts.transactions,
            self._past.inserts + counts.inserts,
            self._past.updates + counts.updates,
            self._past.deletes + counts.deletes,
            counts.last_event or self._past.last_event,
        )
