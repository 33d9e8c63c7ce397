"""Source and copy, each as it is at one place of the binary log, while both may be written to.

The stream is held at a transaction boundary for as long as it takes to open a snapshot of the source and to
come to the snapshot's own place. There the copy is read in a transaction of its own; what is committed later
neither side sees. Then the stream goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import duckdb
import pymysql
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError, SnapshotError
from cdc.position import Position
from cdc.replica import state
from cdc.replica.duckdb_errors import translate
from cdc.replica.state import TableRecord
from cdc.runs import Run
from cdc.schema import Table
from cdc.source.server import binlog_end, server_facts
from cdc.source.snapshot import Snapshot
from cdc.stream_loop import StreamLoop

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Moment:
    """`snapshot` and `cursor` read both sides; `records` are the tables as the copy's transaction has them.

    `position` is the place of both, None where no stream ties them together: then they are a moment apart.
    """

    snapshot: Snapshot
    cursor: duckdb.DuckDBPyConnection
    records: dict[str, TableRecord]
    position: Position | None


@contextmanager
def one_moment(
    engine: Engine, stream: StreamLoop | None, tables: Sequence[Table], run: Run
) -> Iterator[Moment]:
    """Both sides of `tables`. Without `stream` they are opened one after the other.

    On MySQL the snapshot is opened under a read lock on the tables, held for milliseconds once it is had.
    When `run` is cancelled, statements that are under way end at once. Raises SourceError, ReplicaError,
    ConflictError where the stream is not connected, RunCancelledError.
    """
    with (
        engine.replica.grant.serving(),
        closing(engine.replica.cursor()) as cursor,
        _opened(engine, stream, tables, run) as opened,
    ):
        snapshot, held = opened
        run.on_cancel(lambda: _interrupt(cursor))
        try:
            try:
                # What the stream handed on until here is committed once this has had its turn.
                run.wait_for(engine.writer.settle())
                cursor.execute("BEGIN TRANSACTION READ ONLY")
                records = state.load_tables(cursor)
                if held is not None:
                    check_position(cursor, engine.id, held.position)
            finally:
                if held is not None:
                    held.release()
            yield Moment(snapshot, cursor, records, held.position if held is not None else None)
        except duckdb.Error as error:
            run.check_cancelled()
            raise translate(error) from error
        except DucklingError:
            run.check_cancelled()
            raise


@contextmanager
def held_moment(
    engine: Engine, stream: StreamLoop, tables: Sequence[Table], run: Run
) -> Iterator[tuple[Snapshot, Position]]:
    """A snapshot of the source, and the stream held at its place until the end of the block.

    Meanwhile the writer gets nothing from the stream: rows read from the snapshot and written in the block
    are neither older nor newer than what surrounds them. Raises as `one_moment` does.
    """
    with _opened(engine, stream, tables, run) as (snapshot, held):
        assert held is not None
        try:
            yield snapshot, held.position
        finally:
            held.release()


class MovedOnError(SnapshotError):
    """The copy is not at the place where the stream was held: the stream was lost, stopped or made anew."""

    retryable = True


def check_position(cursor: duckdb.DuckDBPyConnection, database_id: str, position: Position) -> None:
    """Raises MovedOnError unless `position` is what the cursor's transaction has as committed."""
    there = state.load_position(cursor, database_id)
    if there is None or (there.file, there.offset) != (position.file, position.offset):
        raise MovedOnError("the stream did not stand still while both sides were opened", hint="try again")


@dataclass(frozen=True, slots=True)
class _Held:
    position: Position
    _release: threading.Event

    def release(self) -> None:
        """Lets the stream go on."""
        self._release.set()


@contextmanager
def _opened(
    engine: Engine, stream: StreamLoop | None, tables: Sequence[Table], run: Run
) -> Iterator[tuple[Snapshot, _Held | None]]:
    settings = engine.settings
    snapshot = Snapshot(
        engine.endpoint,
        tables,
        max_rows=settings.piece_rows,
        max_bytes=settings.batch_bytes,
        exact=stream is not None,
        logged=stream is not None,
    )
    run.check_cancelled()
    with _ended_by(run, snapshot, engine):
        if stream is None:
            with snapshot:
                yield snapshot, None
            return
        # Come near first, so that the stream is held no longer than it takes to read the last bit.
        run.wait_for(stream.meet(_source_end(engine)).reached)
        first = stream.meet(None, hold=True)
        second = None
        try:
            run.wait_for(first.reached)
            with snapshot:
                second = stream.meet(snapshot.mark, hold=True)
                first.release.set()
                yield snapshot, _Held(run.wait_for(second.reached), second.release)
        finally:
            first.release.set()
            if second is not None:
                second.release.set()


def _source_end(engine: Engine) -> Position:
    with closing(engine.endpoint.connect(purpose="validation")) as connection:
        facts = server_facts(connection)
        file, offset, gtid = binlog_end(connection, facts)
    return Position(facts.flavor, facts.server_uuid, file, offset, gtid)


@contextmanager
def _ended_by(run: Run, snapshot: Snapshot, engine: Engine) -> Iterator[None]:
    """Cancelling `run` aborts the snapshot, and keeps the server from computing on for nobody."""
    run.on_cancel(snapshot.abort)
    try:
        yield
    except DucklingError:
        if run.cancelled:
            _kill(engine, snapshot)
        run.check_cancelled()  # the session that was lost is not the reason
        raise


def _interrupt(cursor: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):  # it has been closed meanwhile
        cursor.interrupt()


def _kill(engine: Engine, snapshot: Snapshot) -> None:
    if snapshot.session_id is None:
        return
    try:
        with closing(engine.endpoint.connect(purpose="validation")) as other, other.cursor() as cursor:
            cursor.execute(f"KILL {snapshot.session_id}")
    except pymysql.err.OperationalError:
        log.debug("validation.session_gone", database=engine.id)  # it has ended by itself
    except DucklingError as error:
        log.warning("validation.session_left", database=engine.id, error=error.message)
