"""The stream of one database: a reader at work, made anew after every loss from the committed position."""

from __future__ import annotations

import threading
from collections.abc import Callable
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
    StoppedError,
    as_duckling,
)
from cdc.lag import Progress
from cdc.log_reader import open_reader
from cdc.position import Position
from cdc.replica import state
from cdc.replica.target import BatchTarget
from cdc.schema import Table
from cdc.schema_changes import SchemaChanges
from cdc.source.cascades import Cascades
from cdc.source.meetings import Meeting
from cdc.source.row_events import StreamCounts
from cdc.source.stream import BinlogReader
from cdc.status import PipelineState, TableState

log = structlog.get_logger(__name__)


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
        with self._lock:
            reader = self._reader
            return self._past + reader.counts if reader is not None else self._past

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
                    self._give_up(as_duckling(error, "the stream"))
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
                self._past += reader.counts
            dump.close()
            if target.applied != position:
                backoff.reset()

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
