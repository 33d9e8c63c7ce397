"""Copies of tables: one consistent snapshot into staging tables, which then catch up and join the stream.

The joining, step by step. The snapshot lies between two places of the binary log, `low` and `high`. A
second reader follows the log from `low` on and applies what it finds to the staging tables; once it has
passed `high` they are a state that the source had. Where a stream runs, it is held at a transaction boundary
and the second reader follows to that very boundary; then all staging tables become tables in one
transaction, and from the next event on the stream serves them. Where none runs, the boundary becomes the
position at which it will start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import duckdb
import pyarrow as pa
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError, NotFoundError, PreflightError, SnapshotError, SourceError
from cdc.position import Position
from cdc.replica import state, tables
from cdc.replica.apply import append_rows
from cdc.replica.writer import BatchTarget
from cdc.runs import Run
from cdc.schema import Table
from cdc.source.ddl import SchemaChange
from cdc.source.server import binlog_end, server_facts
from cdc.source.snapshot import Snapshot
from cdc.source.stream import BinlogReader
from cdc.status import SyncResult, TableProgress, TableResult, TableState
from cdc.stream_loop import StreamLoop, open_reader

log = structlog.get_logger(__name__)

_GONE_OR_CHANGED = {1146, 1412, 1054}
"""Server errors that mean: the table is not what the catalogue said a moment ago."""


class FullSync:
    """Copies the tables of one run. `stream` is joined if it runs; `needs_copy` is told what must come again.

    With no table named, all of the source's are copied; a table that is gone there is dropped here.
    """

    def __init__(
        self,
        engine: Engine,
        run: Run,
        stream: StreamLoop,
        *,
        needs_copy: Callable[[list[str]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._run = run
        self._stream = stream
        self._needs_copy = needs_copy
        self._clock = clock
        self._results: dict[str, TableResult] = {}
        self._lost: dict[str, str] = {}
        """Tables that changed under the copy, with the reason."""
        self._pieces = 0
        self._micro_batches = 0

    def carry_out(self) -> SyncResult:
        """Runs to the end. Raises DucklingError where nothing could be copied; then nothing has changed.

        A table that fails by itself is reported in the result, the others are copied.
        """
        started = self._clock()
        _, found, unfit = self._engine.fit_tables()
        chosen = self._choose(found, unfit)
        for table in chosen:
            self._run.expect(table.name, table.row_estimate)
        self._record(chosen, TableState.COPYING)
        try:
            if chosen:
                self._copy_and_join(chosen)
            elif not self._stream.running:
                self._begin_empty()
        except BaseException:
            self._give_back(chosen)
            raise
        results = tuple(self._results.values())
        return SyncResult(
            tables=results,
            duration_ms=_ms(self._clock() - started),
            errors=tuple(f"{result.table}: {result.error}" for result in results if result.error),
            snapshots=sum(result.status == "success" for result in results),
            micro_batches=self._micro_batches,
            append_operations=self._pieces,
        )

    # What to copy ------------------------------------------------------------------------------------

    def _choose(self, found: list[Table], unfit: dict[str, PreflightError]) -> list[Table]:
        here = {table.name.casefold(): table for table in found}
        refused = {name.casefold(): error for name, error in unfit.items()}
        wanted = {name.casefold() for name in self._run.tables}
        missing = [name for name in self._run.tables if name.casefold() not in here.keys() | refused.keys()]
        if missing:
            self._drop(missing)
            if len(missing) == len(self._run.tables):
                raise NotFoundError(
                    f"the source has no table {missing[0]!r} (or the settings exclude it)",
                    hint="see GET /tables, INCLUDED_TABLES and EXCLUDED_TABLES",
                    code="TABLE_NOT_FOUND",
                )
        for folded, error in refused.items():
            if not wanted or folded in wanted:
                self._refuse(error.table or folded, error)
        if wanted:
            return [table for folded, table in here.items() if folded in wanted]
        self._drop_missing(set(here) | set(refused))
        return list(here.values())

    def _drop_missing(self, present: set[str]) -> None:
        def job(cursor: duckdb.DuckDBPyConnection) -> list[str]:
            return [name for name in state.load_tables(cursor) if name.casefold() not in present]

        gone = self._engine.writer.submit(job).result()
        if gone:
            self._drop(gone)

    def _drop(self, names: list[str]) -> None:
        """Tables that the source no longer has. One that streams is left to the stream, which sees the DROP."""
        streaming = self._stream.tables if self._stream.running else {}

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            for name in names:
                if name.casefold() not in streaming:
                    tables.drop(cursor, name)
                    state.forget_table(cursor, name)

        self._engine.writer.submit(job).result()

    def _refuse(self, name: str, error: DucklingError) -> None:
        self._results[name] = TableResult(name, 0, 0, "error", "snapshot", error.message)
        self._engine.writer.submit(
            lambda cursor: state.save_table(
                cursor, name, TableState.ERRORED, reason=error.message, hint=error.hint
            )
        ).result()
        log.error("table.refused", database=self._engine.id, table=name, error=error.message, hint=error.hint)

    def _record(self, chosen: list[Table], mark: TableState) -> None:
        """Notes the state of tables that are not live; a live one stays live until its swap."""
        streaming = self._stream.tables if self._stream.running else {}
        names = [table.name for table in chosen if table.name.casefold() not in streaming]

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            for name in names:
                state.save_table(cursor, name, mark)

        self._engine.writer.submit(job).result()

    def _give_back(self, chosen: list[Table]) -> None:
        """The run failed: no staging table stays, and what was not live waits for another try."""

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            records = state.load_tables(cursor)
            for table in chosen:
                tables.drop_staging(cursor, table.name)
                record = records.get(table.name)
                if record and record.state in (TableState.COPYING, TableState.CATCHING_UP):
                    mark = TableState.NEEDS_RESYNC if record.definition else TableState.PENDING
                    state.save_table(cursor, table.name, mark)

        try:
            self._engine.writer.submit(job).result()
        except DucklingError as error:
            log.error("copy.not_cleared", database=self._engine.id, error=error.message)

    def _begin_empty(self) -> None:
        """A database without tables still has a position to start from."""
        with closing(self._engine.endpoint.connect(purpose="copy")) as connection:
            facts = server_facts(connection)
            file, offset, gtid = binlog_end(connection, facts)
        position = Position(facts.flavor, facts.server_uuid, file, offset, gtid, time.time())
        self._engine.writer.submit(
            lambda cursor: state.save_position(cursor, self._engine.id, position)
        ).result()

    # The copy ----------------------------------------------------------------------------------------

    def _copy_and_join(self, chosen: list[Table]) -> None:
        settings = self._engine.settings
        with Snapshot(
            self._engine.endpoint, chosen, max_rows=settings.copy_batch_rows, max_bytes=settings.batch_bytes
        ) as snapshot:
            log.info("copy.begin", database=self._engine.id, tables=len(chosen), position=str(snapshot.low))
            copied = [table for table in chosen if self._copy(snapshot, table)]
            high = snapshot.end()
        if copied:
            self._record(copied, TableState.CATCHING_UP)
            self._join(copied, snapshot.low, high)

    def _copy(self, snapshot: Snapshot, table: Table) -> bool:
        """All rows of one table into its staging table; False where the table changed meanwhile."""
        writer = self._engine.writer
        progress = self._run.expect(table.name, table.row_estimate)
        progress.state = "copying"
        started = self._clock()
        writer.submit(lambda cursor: tables.create_staging(cursor, table)).result()
        pending: Future[int] | None = None
        try:
            for piece in snapshot.read(table):
                self._run.check_cancelled()
                if pending is not None:
                    pending.result()
                pending = writer.submit(_appending(table, piece))
                self._pieces += 1
                progress.rows += len(piece)
                progress.seconds = self._clock() - started
                self._engine.metrics.rows_copied(len(piece))
            if pending is not None:
                pending.result()
        except DucklingError as error:
            if error.table is None and not _is_change(error):
                raise
            self._lose(table, error.message, progress)
            return False
        progress.state = "catching_up"
        progress.seconds = self._clock() - started
        return True

    def _lose(self, table: Table, reason: str, progress: TableProgress) -> None:
        self._lost[table.name.casefold()] = reason
        progress.state, progress.error = "error", reason
        self._results[table.name] = TableResult(
            table.name, progress.rows, _ms(progress.seconds), "error", "snapshot", reason
        )
        self._give_back([table])

    # The joining -------------------------------------------------------------------------------------

    def _join(self, copied: list[Table], low: Position, high: Position) -> None:
        engine = self._engine
        live = {table.name.casefold(): table for table in copied}
        target = BatchTarget(
            {table.name.casefold(): table for table in copied}, name_of=tables.staging_name, overlap=True
        )
        follow = _Following(self, live)
        reader, dump = open_reader(
            engine,
            low,
            target,
            live,
            follow,
            server_id=engine.server_id ^ 1,
            purpose="catching up",
        )
        thread = threading.Thread(
            target=_run_reader, args=(reader,), name=f"catch-up-{engine.id}", daemon=True
        )
        thread.start()
        self._run.on_cancel(reader.stop)
        try:
            self._meet_and_swap(copied, reader, high)
        finally:
            reader.stop()
            thread.join()
            engine.writer.detach(target)
            engine.writer.discard(target, SnapshotError("the catch-up has ended"))
            dump.close()
            self._micro_batches += reader.counts.transactions

    def _meet_and_swap(self, copied: list[Table], reader: BinlogReader, high: Position) -> None:
        if not self._stream.running:
            meeting = reader.meet(high, hold=True)
            here = meeting.reached.result()
            self._swap(copied, here)
            return
        # Come near first, so that the stream is held no longer than it takes to read the last bit.
        reader.meet(high).reached.result()
        reader.meet(self._source_end(high)).reached.result()
        behind = reader.meet(None, hold=True)
        passed = behind.reached.result()
        held = self._stream.meet(passed, hold=True)
        try:
            there = held.reached.result()
            meeting = reader.meet(there, hold=True)
            behind.release.set()
            here = meeting.reached.result()
            if (here.file, here.offset) != (there.file, there.offset):
                raise SnapshotError(
                    f"the copy and the stream did not meet ({here} and {there})", hint="it is tried again"
                )
            self._swap(copied, None)
            self._stream.tables.update(self._joined(copied))
        finally:
            behind.release.set()
            held.release.set()

    def _source_end(self, high: Position) -> Position:
        with closing(self._engine.endpoint.connect(purpose="catching up")) as connection:
            file, offset, gtid = binlog_end(connection, server_facts(connection))
        return Position(high.flavor, high.server, file, offset, gtid)

    def _joined(self, copied: list[Table]) -> dict[str, Table]:
        return {t.name.casefold(): t for t in copied if t.name.casefold() not in self._lost}

    def _swap(self, copied: list[Table], start: Position | None) -> None:
        """All staging tables become tables at once; `start` becomes the position, where there was none."""
        joined = self._joined(copied)

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            for table in joined.values():
                tables.swap(cursor, table.name)
                state.save_table(cursor, table.name, TableState.STREAMING, definition=table)
            if start is not None:
                state.save_position(cursor, self._engine.id, start)

        self._engine.writer.submit(job).result()
        for table in joined.values():
            progress = self._run.expect(table.name, 0)
            progress.state = "done"
            self._results[table.name] = TableResult(
                table.name, progress.rows, _ms(progress.seconds), "success", "snapshot"
            )
        log.info("copy.live", database=self._engine.id, tables=len(joined), position=str(start or "stream"))
        if self._lost:
            self._needs_copy(list(self._lost))


class _Following:
    """What a statement means for tables that catch up: one that it changes must be copied again."""

    def __init__(self, sync: FullSync, live: dict[str, Table]) -> None:
        self._sync = sync
        self.reader_tables = live

    def __call__(self, change: SchemaChange, position: Position) -> None:
        names = list(self.reader_tables) if change.kind == "drop_database" else list(change.tables)
        for name in names:
            table = self.reader_tables.pop(name.casefold(), None)
            if table is not None:
                progress = self._sync._run.expect(table.name, 0)
                self._sync._lose(table, f"the table changed during its copy, at {position}", progress)
            elif not self._sync._stream.running:
                # Nobody else will see this statement: the stream starts behind it.
                self._sync._needs_copy([name])


def _appending(table: Table, piece: pa.Table) -> Callable[[duckdb.DuckDBPyConnection], int]:
    return lambda cursor: append_rows(cursor, tables.staging_name(table.name), piece)


def _run_reader(reader: BinlogReader) -> None:
    try:
        reader.run()
    except DucklingError as error:  # whoever waits for a meeting has got it too
        log.warning("copy.catch_up_ended", code=error.code, error=error.message)


def _is_change(error: DucklingError) -> bool:
    cause: Any = error.__cause__
    return isinstance(error, SourceError) and bool(
        cause is not None and cause.args and cause.args[0] in _GONE_OR_CHANGED
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
