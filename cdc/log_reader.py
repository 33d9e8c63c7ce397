"""A reader of the source's log, made for one place and one target: its session, the server's identity, its batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from cdc.engine import Engine
from cdc.errors import SourceMismatchError
from cdc.position import Position
from cdc.replica import prepared
from cdc.replica.target import BatchTarget
from cdc.schema import Table
from cdc.source.batcher import Batcher
from cdc.source.binlog import BinlogDump
from cdc.source.cascades import Cascades
from cdc.source.ddl import SchemaChange
from cdc.source.logged_statements import reach
from cdc.source.server import collation_names, has_transactions, server_facts
from cdc.source.stream import BinlogReader


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
        committed = facts.server_uuid == position.server
        if not committed:
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
        growth=lambda: target.growth,
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
        committed=committed,
        whole=engine.whole,
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
    engine.writer.settle().result()
    return prepared.load(engine.replica, target.owner, xid)
