"""An incremental sync while the stream runs: wait until all is applied that the source has committed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pymysql

from cdc.backoff import Backoff
from cdc.engine import Engine
from cdc.errors import DucklingError
from cdc.position import Position
from cdc.runs import Run
from cdc.source.kept_session import KeptSession
from cdc.source.server import ServerFacts, binlog_end, server_facts
from cdc.status import SyncResult, TableResult
from cdc.stream_loop import StreamLoop

_LONGEST_PAUSE = 1.0
"""Seconds between two attempts to meet a stream that is being made anew."""


class LogEnd:
    """Where the source's log ends, asked on a session that is kept from one sync to the next."""

    def __init__(self, engine: Engine) -> None:
        self._session = KeptSession(
            engine.endpoint, purpose="incremental sync", read_timeout=engine.settings.connect_timeout
        )
        self._facts: ServerFacts | None = None

    def position(self) -> Position:
        """Everything that is committed by now lies before it. Raises SourceError."""
        return self._session.ask(self._position)

    def _position(self, connection: pymysql.Connection, new: bool) -> Position:
        if new or self._facts is None:
            self._facts = server_facts(connection)
        facts = self._facts
        file, offset, gtid = binlog_end(connection, facts)
        return Position(facts.flavor, facts.server_uuid, file, offset, gtid)

    def close(self) -> None:
        """Ends the session."""
        self._session.close()


def catch_up_with_source(
    engine: Engine,
    stream: StreamLoop,
    log_end: LogEnd,
    run: Run,
    *,
    wait_streaming: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> SyncResult:
    """Returns when everything is applied and readable that the source had committed before the call.

    `wait_streaming` returns when the stream runs and no copy is due, or raises what stands in the way. Raises
    its errors, SourceUnavailableError, or RunCancelledError once the run is cancelled.
    """
    started = clock()
    before = stream.counts()
    wait_streaming()
    backoff = Backoff(_LONGEST_PAUSE)
    while not _applied(engine, stream, _met(stream, log_end, run), run):
        run.pause(backoff.pause())  # its connection was lost, or a batch refused: another reader comes
        wait_streaming()
    wait_streaming()  # tables that changed on the way are copied again
    after = stream.counts()
    records = (after.inserts + after.updates + after.deletes) - (
        before.inserts + before.updates + before.deletes
    )
    duration = round((clock() - started) * 1000)
    results = tuple(
        TableResult(table.name, 0, duration, "success", "micro-batch") for table in stream.tables.values()
    )
    run.expect("*", 0).rows = records
    return SyncResult(
        results, duration, micro_batches=after.transactions - before.transactions, records=records
    )


def _met(stream: StreamLoop, log_end: LogEnd, run: Run) -> Position | None:
    """The boundary at or behind the log's end of now that the stream has come to, and handed on all before it;
    None where its connection was lost before."""
    end = log_end.position()
    reader = stream.reader
    if reader is not None and reader.place.server != end.server:
        # A failover: the kept session still answers, on the old server.
        log_end.close()
        end = log_end.position()
    try:
        return run.wait_for(stream.meet(end).reached)
    except DucklingError as error:
        log_end.close()
        if error.retryable or error.code == "STREAM_NOT_RUNNING":
            return None
        raise


def _applied(engine: Engine, stream: StreamLoop, boundary: Position | None, run: Run) -> bool:
    """Whether everything before `boundary` is committed, once the writer has done what it was given."""
    if boundary is None:
        return False
    if not _reached(stream.applied, boundary):
        run.wait_for(engine.writer.settle())
    return _reached(stream.applied, boundary)


def _reached(applied: Position | None, boundary: Position) -> bool:
    return applied is not None and applied.server == boundary.server and applied.reached(boundary)
