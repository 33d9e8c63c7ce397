"""The tables of one copy: their staging tables, how far each is in the replica's records, and its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError, RowRefusedError, ValueDecodeError
from cdc.position import Position
from cdc.replica import prepared, state, tables, watermarks
from cdc.replica.apply import append_rows
from cdc.replica.database import ReplicaDatabase
from cdc.replica.memory_demand import TIMES_ITS_ROWS
from cdc.replica.row_groups import ROW_GROUP, in_groups
from cdc.runs import Run
from cdc.schema import Table
from cdc.source.snapshot import Snapshot
from cdc.source.translation import is_table_change
from cdc.status import SyncResult, TableResult, TableState

log = structlog.get_logger(__name__)

_LIVE = (TableState.STREAMING, TableState.POLLING)

_Job = Callable[[duckdb.DuckDBPyConnection], None]


class TableCopies:
    """Fills staging tables, and makes all of them tables at once or gives them back.

    A table that was live stays so until its swap, in the records and for readers. Without `logged` no stream
    serves what goes live. Where the writer fails, methods raise its error; only `give_back` logs it instead.
    """

    def __init__(
        self, engine: Engine, run: Run, *, logged: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._run = run
        self._logged = logged
        self._clock = clock
        self._results: dict[str, TableResult] = {}
        self._pieces = 0
        self._whole_groups = False
        """Whether a piece went into the file past the write-ahead log."""
        self.lost: dict[str, Table] = {}
        """Tables that changed under the copy and must come again, by the key of their name."""

    def __contains__(self, name: str) -> bool:
        """Whether it is known what became of the table."""
        return name in self._results

    def result(self, seconds: float, *, micro_batches: int) -> SyncResult:
        """What became of all of them, after a copy of `seconds` that caught up by so many batches."""
        results = tuple(self._results.values())
        return SyncResult(
            tables=results,
            duration_ms=_ms(seconds),
            errors=tuple(f"{result.table}: {result.error}" for result in results if result.error),
            snapshots=sum(result.status == "success" for result in results),
            micro_batches=micro_batches,
            append_operations=self._pieces,
        )

    # The replica's records ---------------------------------------------------------------------------

    def recorded(self) -> dict[str, state.TableRecord]:
        """What the replica knows of its tables, by name."""
        return self._engine.writer.submit(state.load_tables).result()

    def drop(self, names: list[str]) -> None:
        """The source has no such tables any more."""

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            for name in names:
                tables.drop(cursor, name)
                state.forget_table(cursor, name)

        self._engine.writer.submit(job).result()

    def begin(self, chosen: list[Table]) -> None:
        """These are about to be copied."""
        for table in chosen:
            self._run.expect(table.name, table.row_estimate).state = "waiting"
        self._record(chosen, TableState.COPYING)

    def catching_up(self, copied: Iterable[Table]) -> None:
        """These have all their rows, and follow the log until they meet the stream."""
        self._record(copied, TableState.CATCHING_UP)

    def _record(self, chosen: Iterable[Table], mark: TableState) -> None:
        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            records = state.load_tables(cursor)
            names = [
                table.name
                for table in chosen
                if table.name not in records or records[table.name].state not in _LIVE
            ]
            state.save_tables(cursor, dict.fromkeys(names), mark)

        self._engine.writer.submit(job).result()

    # Rows --------------------------------------------------------------------------------------------

    def fill(self, snapshot: Snapshot, table: Table) -> bool:
        """All rows of one table into its staging table; False where that table alone can't be copied.

        Raises SourceError, ReplicaError, and RunCancelledError once the run is cancelled.
        """
        writer, settings = self._engine.writer, self._engine.settings
        progress = self._run.expect(table.name, table.row_estimate)
        progress.state, progress.rows = "copying", 0
        started = self._clock()
        pending: Future[Any] = writer.submit(lambda cursor: tables.create_staging(cursor, table))
        try:
            with closing(snapshot.read(table)) as pieces:
                for piece in in_groups(pieces, rows=settings.copy_batch_rows, size=settings.batch_bytes):
                    self._run.check_cancelled()
                    pending.result()
                    pending = writer.submit(partial(_append, self._engine.replica, table, piece))
                    self._pieces += 1
                    progress.rows += len(piece)
                    progress.seconds = self._clock() - started
                    self._engine.metrics.rows_copied(len(piece))
                    self._whole_groups |= len(piece) >= ROW_GROUP
                    del piece  # or it would be held until the next one is whole
            pending.result()
        except (ValueDecodeError, RowRefusedError) as error:
            self.set_aside(table.name, error)
            return False
        except DucklingError as error:
            if not is_table_change(error):
                raise
            self.lose(table, error.message)
            return False
        if snapshot.lost_dates:
            self._engine.metrics.zero_dates_met(table.name, snapshot.lost_dates)
        progress.state = "catching_up"
        progress.seconds = self._clock() - started
        return True

    # How a copy of a table ends ----------------------------------------------------------------------

    def set_aside(self, name: str, error: DucklingError) -> None:
        """The table can't be copied as it is; it keeps its last good state, if any."""
        self._failed(name, error.message)

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            tables.drop_staging(cursor, name)
            state.save_table(cursor, name, TableState.ERRORED, reason=error.message, hint=error.hint)

        self._engine.writer.submit(job).result()
        self._engine.metrics.error_met(error.code)
        log.error(
            "table.set_aside",
            database=self._engine.id,
            table=name,
            code=error.code,
            error=error.message,
            hint=error.hint,
        )

    def lose(self, table: Table, reason: str) -> None:
        """The table changed under the copy and must come again."""
        self.lost[self._engine.names.key(table.name)] = table
        self._failed(table.name, reason)
        self.give_back([table])

    def give_back(self, chosen: list[Table]) -> None:
        """No staging table of these stays, and what was not live waits for another try."""

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            records = state.load_tables(cursor)
            for table in chosen:
                tables.drop_staging(cursor, table.name)
                record = records.get(table.name)
                if record and record.state in (TableState.COPYING, TableState.CATCHING_UP):
                    mark = TableState.NEEDS_RESYNC if record.definition else TableState.PENDING
                    state.save_table(cursor, table.name, mark, reason=record.reason, hint=record.hint)

        try:
            self._engine.writer.submit(job).result()
        except DucklingError as error:
            # The next start drops what was left.
            log.error("copy.not_cleared", database=self._engine.id, error=error.message)

    def go_live(self, live: list[Table], start: Position | None, *, before: _Job, beside: _Job) -> list[str]:
        """All these become tables in one transaction; `start` becomes the position, where there was none.

        In it `before` says whether they may, by raising, and `beside` adds what belongs to them. Returns the
        tables that were live and have no place in a stream that starts elsewhere.
        """
        mark = TableState.STREAMING if self._logged else TableState.POLLING

        def job(cursor: duckdb.DuckDBPyConnection) -> list[str]:
            before(cursor)
            if not self._logged:
                state.forget_position(cursor, self._engine.id)
            left = self._start_at(cursor, start) if start is not None else []
            for table in live:
                tables.swap(cursor, table.name)
            definitions = {table.name: table for table in live}
            state.save_tables(cursor, definitions, mark)
            watermarks.forget_watermarks(cursor, list(definitions))
            beside(cursor)
            if self._whole_groups:
                self._engine.writer.checkpoint_next()
            return left

        left = self._engine.writer.submit(job).result()
        for table in live:
            progress = self._run.expect(table.name, 0)
            progress.state = "done"
            self._results[table.name] = TableResult(
                table.name, progress.rows, _ms(progress.seconds), "success", "snapshot"
            )
        log.info("copy.live", database=self._engine.id, tables=len(live), position=str(start or "stream"))
        return left

    def _start_at(self, cursor: duckdb.DuckDBPyConnection, start: Position) -> list[str]:
        """The stream is to start here; returns the tables that it finds live, and can't serve."""
        left = [record.name for record in state.load_tables(cursor).values() if record.state in _LIVE]
        state.save_tables(
            cursor,
            dict.fromkeys(left),
            TableState.NEEDS_RESYNC,
            reason="the stream starts at another place",
        )
        state.save_position(cursor, self._engine.id, start)
        prepared.adopt(cursor)
        return left

    def _failed(self, name: str, reason: str) -> None:
        progress = self._run.expect(name, 0)
        progress.state, progress.error = "error", reason
        self._results[name] = TableResult(
            name, progress.rows, _ms(progress.seconds), "error", "snapshot", reason
        )


def _append(
    replica: ReplicaDatabase, table: Table, piece: pa.Table, cursor: duckdb.DuckDBPyConnection
) -> int:
    # A whole row group goes into the file as it comes, fewer rows stay in memory until they are committed.
    size = piece.nbytes if len(piece) < ROW_GROUP else piece.nbytes // TIMES_ITS_ROWS
    replica.make_room(cursor, {}, size=size)
    return append_rows(cursor, table, tables.staging_name(table.name), piece)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
