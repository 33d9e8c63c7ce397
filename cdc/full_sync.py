"""Copies of tables: one consistent snapshot into staging tables, which then catch up and join the stream.

The snapshot lies between two places of the binary log (`source/snapshot`). The staging tables follow the log
from the first of them until they are at one boundary with the stream (`catch_up`); then all of them become
tables in one transaction, and from the next event on the stream serves them. Where no stream runs, that
boundary becomes the position at which it will start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Protocol

import duckdb
import structlog

from cdc.cascades import record_keys
from cdc.catch_up import CatchUp
from cdc.copy_choice import CatalogueChangedError, CopyChoice
from cdc.engine import Engine
from cdc.errors import DucklingError
from cdc.position import Position
from cdc.replica import state
from cdc.runs import Run
from cdc.schema import Table
from cdc.source.server import binlog_end, server_facts
from cdc.source.snapshot import Snapshot
from cdc.status import SyncResult
from cdc.stream_loop import StreamLoop
from cdc.table_copies import TableCopies

log = structlog.get_logger(__name__)

_TRIES = 5
"""How often a copy begins anew because the catalogue changed while it began."""


class CopyMarks(Protocol):
    """What is noted of the source as a copy finds it, for syncs that follow no log."""

    def take(self, snapshot: Snapshot, chosen: Sequence[Table]) -> None:
        """Looks at the tables in the snapshot that they are about to be copied from."""

    def before(self) -> None:
        """Looks at the source before the snapshot is opened."""

    def save(self, cursor: duckdb.DuckDBPyConnection, live: Sequence[Table]) -> None:
        """Records what belongs to these tables, in the transaction in which they go live."""


class FullSync:
    """Copies the tables of one run. `stream` is joined if it runs; `needs_copy` is told what must come again.

    With no table named (in the run, or in `only`), all of the source's are copied; a table that is gone there is
    dropped here. Without `logged` no binary log is looked at: the tables stay as the snapshot has them, and no
    position is left to stream from.
    """

    def __init__(
        self,
        engine: Engine,
        run: Run,
        stream: StreamLoop,
        *,
        needs_copy: Callable[[list[str]], None],
        clock: Callable[[], float] = time.monotonic,
        logged: bool = True,
        marks: CopyMarks | None = None,
        only: Sequence[str] | None = None,
    ) -> None:
        self._engine = engine
        self._run = run
        self._stream = stream
        self._needs_copy = needs_copy
        self._clock = clock
        self._logged = logged
        self._marks = marks
        self._copies = TableCopies(engine, run, logged=logged, clock=clock)
        wanted = run.tables if only is None else tuple(only)
        self._choice = CopyChoice(engine, stream, self._copies, wanted, logged=logged)
        self._micro_batches = 0

    def carry_out(self) -> SyncResult:
        """Runs to the end. Raises DucklingError where nothing could be copied; then nothing has changed.

        A table that fails by itself is set aside and reported in the result, the others are copied.
        """
        started = self._clock()
        for attempt in range(1, _TRIES + 1):
            chosen = self._choice.tables()
            try:
                self._copy_all(chosen)
            except CatalogueChangedError:
                if attempt == _TRIES:
                    raise
            else:
                break
        return self._copies.result(self._clock() - started, micro_batches=self._micro_batches)

    def _copy_all(self, chosen: list[Table]) -> None:
        """Copies and joins; a table that stops the others by an error of its own is left behind."""
        remaining = chosen
        while remaining:
            try:
                self._copy_and_join(remaining)
            except DucklingError as error:
                self._copies.give_back(remaining)
                culprit = next((table for table in remaining if table.name == error.table), None)
                if culprit is None:
                    raise
                self._copies.set_aside(culprit.name, error)
                remaining = self._choice.tied(table for table in remaining if table is not culprit)
            except BaseException:
                self._copies.give_back(remaining)
                raise
            else:
                return
        if self._logged and not self._stream.running:
            self._begin_empty()

    def _copy_and_join(self, chosen: list[Table]) -> None:
        self._copies.begin(chosen)
        if self._marks is not None:
            self._marks.before()
        snapshot = self._snapshot(chosen)
        self._run.on_cancel(snapshot.abort)
        with snapshot:
            self._choice.check_unchanged(chosen)
            if self._marks is not None:
                self._marks.take(snapshot, chosen)
            position = str(snapshot.low) if self._logged else "none"
            log.info("copy.begin", database=self._engine.id, tables=len(chosen), position=position)
            filled = [table for table in chosen if self._copies.fill(snapshot, table)]
            copied = self._by_key(self._choice.tied(filled))
            if not self._logged:
                self._go_live(copied, None)
                return
            high = snapshot.end()
        self._copies.catching_up(copied.values())
        self._join(copied, snapshot.low, high)

    def _snapshot(self, chosen: list[Table]) -> Snapshot:
        settings = self._engine.settings
        children = self._choice.cascades.children
        return Snapshot(
            self._engine.endpoint,
            chosen,
            max_rows=settings.piece_rows,
            max_bytes=settings.batch_bytes,
            logged=self._logged,
            # A cascade must not be replayed on rows that are further already: the place must be exact.
            exact=not children.isdisjoint(self._by_key(chosen)),
        )

    def _join(self, copied: dict[str, Table], low: Position, high: Position) -> None:
        """Follows the log from `low` on, to `high` at least, and goes live where the stream is."""
        with CatchUp(
            self._engine,
            self._stream,
            self._run,
            copied,
            low,
            lost=lambda table, at: self._copies.lose(table, f"the table changed during its copy, at {at}"),
            other=self._needs_copy,
            cascades=self._choice.cascades,
        ) as catch_up:
            catch_up.join(high, lambda start: self._go_live(copied, start, catch_up.check_joined))
            self._micro_batches += catch_up.transactions
        if self._copies.lost:
            self._needs_copy([table.name for table in self._copies.lost.values()])

    def _go_live(
        self,
        copied: dict[str, Table],
        start: Position | None,
        check: Callable[[duckdb.DuckDBPyConnection], None] = lambda _: None,
    ) -> dict[str, Table]:
        """Those of `copied` that were not lost since go live at once, if `check` lets them; returns them.

        A table that was live but is not among them, and has no place in a stream that starts at `start`, is
        to be copied.
        """
        live = {key: table for key, table in copied.items() if key not in self._copies.lost}
        tables = list(live.values())

        def beside(cursor: duckdb.DuckDBPyConnection) -> None:
            record_keys(cursor, self._choice.cascades, live)
            if self._marks is not None:
                self._marks.save(cursor, tables)

        left = self._copies.go_live(tables, start, before=check, beside=beside)
        self._needs_copy([name for name in left if self._engine.names.key(name) not in live])
        return live

    def _begin_empty(self) -> None:
        """A database without tables still has a position to start from."""
        with closing(self._engine.endpoint.connect(purpose="copy")) as connection:
            facts = server_facts(connection)
            file, offset, gtid = binlog_end(connection, facts)
        position = Position(facts.flavor, facts.server_uuid, file, offset, gtid, time.time())
        self._engine.writer.submit(
            lambda cursor: state.save_position(cursor, self._engine.id, position)
        ).result()
        recorded = self._copies.recorded()
        self._needs_copy([table.name for table in self._engine.catalogue() if table.name not in recorded])

    def _by_key(self, found: list[Table]) -> dict[str, Table]:
        return {self._engine.names.key(table.name): table for table in found}
