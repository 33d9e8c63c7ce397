"""Staging tables that follow the binary log until they meet the stream.

A second reader follows the log from the snapshot's place on and applies what it finds to the staging tables;
once it has passed the last place that the snapshot can reach, they are a state that the source had. Where a
stream runs, it is held at a transaction boundary and the second reader follows to that very boundary. Both
read the same files, so a boundary of one is a boundary of the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

import duckdb
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError, ReplicaError, ReplicaFatalError, SnapshotError
from cdc.log_reader import open_reader
from cdc.position import Position
from cdc.replica import prepared, state, tables
from cdc.replica.target import BatchTarget
from cdc.runs import Run
from cdc.schema import Table
from cdc.source.binlog import BinlogDump
from cdc.source.cascades import Cascades
from cdc.source.ddl import SchemaChange
from cdc.source.server import binlog_end, server_facts
from cdc.source.stream import BinlogReader
from cdc.stream_loop import StreamLoop

log = structlog.get_logger(__name__)


class CatchUp:
    """The second reader of one copy. Use as a context manager around `join`.

    `copied` are the tables in staging, by the key of their name. A statement that changes one of them takes
    it out: `lost` is told, with the place. `other` is told of tables that nobody else will hear of, since
    the stream starts behind the statement.
    """

    def __init__(
        self,
        engine: Engine,
        stream: StreamLoop,
        run: Run,
        copied: dict[str, Table],
        low: Position,
        *,
        lost: Callable[[Table, Position], None],
        other: Callable[[list[str]], None],
        cascades: Cascades,
    ) -> None:
        self._cascades = cascades
        self._engine = engine
        self._stream = stream
        self._run = run
        self._following = dict(copied)
        self._low = low
        self._lost = lost
        self._other = other
        self._target = BatchTarget(dict(copied), name_of=tables.staging_name, overlap=True)
        self._reader: BinlogReader
        self._dump: BinlogDump
        self._thread: threading.Thread
        self._held_at: Position | None = None

    def __enter__(self) -> CatchUp:
        engine = self._engine
        engine.writer.submit(lambda cursor: prepared.forget(cursor, prepared.COPY)).result()
        self._reader, self._dump = open_reader(
            engine,
            self._low,
            self._target,
            self._following,
            self._on_schema_change,
            server_id=engine.server_id ^ 1,
            purpose="catching up",
            cascades=self._cascades,
        )
        self._thread = threading.Thread(target=self._read, name=f"catch-up-{engine.id}", daemon=True)
        self._thread.start()
        self._run.on_cancel(self._reader.stop)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._reader.stop()
        self._thread.join()
        self._engine.writer.detach(self._target)
        try:
            self._engine.writer.discard(self._target, SnapshotError("the catch-up has ended"))
        finally:
            self._dump.close()

    @property
    def transactions(self) -> int:
        """Transactions that were read so far."""
        return self._reader.counts.transactions

    def _read(self) -> None:
        try:
            self._reader.run()
        except DucklingError as error:  # whoever waits for a meeting has got it too
            log.info("copy.catch_up_ended", database=self._engine.id, code=error.code, error=error.message)

    def join(self, high: Position, go_live: Callable[[Position | None], dict[str, Table]]) -> None:
        """Calls `go_live` once the staging tables are at one boundary with the stream.

        It calls `check_joined` in the transaction in which they go live. It gets None where a stream runs
        (held meanwhile, at its committed position), else the boundary, which becomes the position to start
        from; it returns the tables that are live now.
        """
        if not self._stream.running:
            go_live(self._reader.meet(high, hold=True).reached.result())
            return
        # Come near first, so that the stream is held no longer than it takes to read the last bit.
        self._reader.meet(high).reached.result()
        self._reader.meet(self._source_end(high)).reached.result()
        waiting = self._reader.meet(None, hold=True)
        passed = waiting.reached.result()
        self._stream.wait_connected(self._engine.settings.connect_timeout)
        held = self._stream.meet(passed, hold=True)
        try:
            there = held.reached.result()
            meeting = self._reader.meet(there, hold=True)
            waiting.release.set()
            here = meeting.reached.result()
            if (here.file, here.offset) != (there.file, there.offset):
                raise SnapshotError(
                    f"the copy and the stream did not meet ({here} and {there})", hint="it is tried again"
                )
            self._held_at = there
            self._stream.tables.update(go_live(None))
        finally:
            waiting.release.set()
            held.release.set()

    def check_joined(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """For the transaction of `go_live`: raises unless all is written that either side had handed on before.

        The error is the one of the batch that failed, or SnapshotError where the stream's has.
        """
        error = self._target.error
        if isinstance(error, ReplicaFatalError):  # not of this transaction: the file was opened again since
            raise ReplicaError(error.message, hint=error.hint) from error
        if error is not None:
            raise error
        there = self._held_at
        if there is not None:
            committed = state.load_position(cursor, self._engine.id)
            if committed is None or (committed.file, committed.offset) != (there.file, there.offset):
                raise SnapshotError(
                    "the stream failed when the copy was to join it", hint="see lastError in GET /cdc/status"
                )

    def _source_end(self, high: Position) -> Position:
        with closing(self._engine.endpoint.connect(purpose="catching up")) as connection:
            file, offset, gtid = binlog_end(connection, server_facts(connection))
        return Position(high.flavor, high.server, file, offset, gtid)

    def _on_schema_change(self, changes: list[SchemaChange], position: Position) -> None:
        for change in changes:
            names = list(self._following) if change.kind == "drop_database" else list(change.tables)
            # Rows that refer to such a table can't be kept without it.
            key = self._engine.names.key
            ours = {key(name) for name in names} & self._following.keys()
            names += sorted(self._cascades.dependents(ours) & self._following.keys())
            for name in names:
                table = self._following.pop(self._engine.names.key(name), None)
                if table is not None:
                    self._lost(table, position)
                elif not self._stream.running:
                    self._other([name])
