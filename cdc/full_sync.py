"""Copies of tables: one consistent snapshot into staging tables, which then catch up and join the stream.

The snapshot lies between two places of the binary log (`source/snapshot`). The staging tables follow the log
from the first of them until they are at one boundary with the stream (`catch_up`); then all of them become
tables in one transaction, and from the next event on the stream serves them. Where no stream runs, that
boundary becomes the position at which it will start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Protocol

import duckdb
import pyarrow as pa
import structlog

from cdc.cascades import lacks_parent, orphaned, record_keys, source_cascades
from cdc.catch_up import CatchUp
from cdc.engine import Engine
from cdc.errors import DucklingError, NotFoundError, RowRefusedError, SnapshotError, ValueDecodeError
from cdc.position import Position
from cdc.replica import prepared, state, tables, watermarks
from cdc.replica.apply import append_rows
from cdc.runs import Run
from cdc.schema import Table
from cdc.source.cascades import Cascades
from cdc.source.server import binlog_end, server_facts
from cdc.source.snapshot import Snapshot
from cdc.source.translation import is_table_change
from cdc.status import SyncResult, TableResult, TableState
from cdc.stream_loop import StreamLoop

log = structlog.get_logger(__name__)

_TRIES = 5
"""How often a copy begins anew because the catalogue changed while it began."""


class _CatalogueChangedError(SnapshotError):
    """Tables changed between reading the catalogue and opening the snapshot."""

    retryable = True


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
        self._logged = logged
        self._marks = marks
        self._wanted = run.tables if only is None else tuple(only)
        self._engine = engine
        self._run = run
        self._stream = stream
        self._needs_copy = needs_copy
        self._clock = clock
        self._results: dict[str, TableResult] = {}
        self._cascades = Cascades()
        self._lost: dict[str, Table] = {}
        """Tables that changed under the copy and must come again, by the key of their name."""
        self._pieces = 0
        self._micro_batches = 0

    def carry_out(self) -> SyncResult:
        """Runs to the end. Raises DucklingError where nothing could be copied; then nothing has changed.

        A table that fails by itself is set aside and reported in the result, the others are copied.
        """
        started = self._clock()
        for attempt in range(1, _TRIES + 1):
            chosen = self._choose()
            try:
                self._copy_all(chosen)
            except _CatalogueChangedError:
                if attempt == _TRIES:
                    raise
            else:
                break
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

    def _choose(self) -> list[Table]:
        _, found, unfit = self._engine.fit_tables(logged=self._logged)
        key = self._engine.names.key
        here = {key(table.name): table for table in found}
        refused = {key(name): error for name, error in unfit.items()}
        wanted = {key(name) for name in self._wanted}
        missing = [name for name in self._wanted if key(name) not in here.keys() | refused.keys()]
        if missing:
            self._drop(missing)
            if len(missing) == len(self._wanted):
                raise NotFoundError(
                    f"the source has no table {missing[0]!r} (or the settings exclude it)",
                    hint="see GET /tables, INCLUDED_TABLES and EXCLUDED_TABLES",
                    code="TABLE_NOT_FOUND",
                )
        for name, error in refused.items():
            if not wanted or name in wanted:
                self._set_aside(error.table or name, error)
        if self._logged:
            self._cascades.replace(source_cascades(self._engine))
        if wanted:
            # Rows that a foreign key ties to others are right only where the others' changes are read too.
            wanted |= self._cascades.parents(wanted)
            return list(self._tied({name: table for name, table in here.items() if name in wanted}).values())
        self._drop([name for name in self._known() if key(name) not in here.keys() | refused.keys()])
        return list(self._tied(here).values())

    def _tied(self, found: dict[str, Table]) -> dict[str, Table]:
        """Those of `found` (by key of name) that can be kept; without a parent a child is set aside."""
        alone = orphaned(self._cascades, found, found)
        for name in alone:
            table = found[name]
            if self._cascades.parents([name]) & self._lost.keys():
                self._lose(table, "a table that it refers to changed during the copy")
            else:
                self._set_aside(table.name, lacks_parent(table.name))
        return {name: table for name, table in found.items() if name not in alone}

    def _known(self) -> dict[str, state.TableRecord]:
        return self._engine.writer.submit(state.load_tables).result()

    def _drop(self, names: list[str]) -> None:
        """Tables that the source lacks now. One that streams is left to the stream, which sees the DROP."""
        key = self._engine.names.key
        live = self._stream.tables if self._stream.running else {}
        gone = [name for name in names if key(name) not in live]

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            for name in gone:
                tables.drop(cursor, name)
                state.forget_table(cursor, name)

        if gone:
            self._engine.writer.submit(job).result()

    def _set_aside(self, name: str, error: DucklingError) -> None:
        """The table can't be copied as it is; it keeps its last good state, if any."""
        progress = self._run.expect(name, 0)
        progress.state, progress.error = "error", error.message
        self._results[name] = TableResult(
            name, progress.rows, _ms(progress.seconds), "error", "snapshot", error.message
        )

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

    # States ------------------------------------------------------------------------------------------

    def _record(self, chosen: list[Table], mark: TableState) -> None:
        """Notes how far tables are; one that is live stays live in the file until its swap."""

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            records = state.load_tables(cursor)
            for table in chosen:
                record = records.get(table.name)
                if record is None or record.state not in (TableState.STREAMING, TableState.POLLING):
                    state.save_table(cursor, table.name, mark)

        self._engine.writer.submit(job).result()

    def _give_back(self, chosen: list[Table]) -> None:
        """No staging table stays, and what was not live waits for another try."""

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

    def _begin_empty(self) -> None:
        """A database without tables still has a position to start from."""
        with closing(self._engine.endpoint.connect(purpose="copy")) as connection:
            facts = server_facts(connection)
            file, offset, gtid = binlog_end(connection, facts)
        position = Position(facts.flavor, facts.server_uuid, file, offset, gtid, time.time())
        self._engine.writer.submit(
            lambda cursor: state.save_position(cursor, self._engine.id, position)
        ).result()
        known = self._known()
        self._needs_copy([table.name for table in self._engine.catalogue() if table.name not in known])

    # The copy ----------------------------------------------------------------------------------------

    def _copy_all(self, chosen: list[Table]) -> None:
        """Copies and joins; a table that stops the others by an error of its own is left behind."""
        remaining = chosen
        while remaining:
            try:
                self._copy_and_join(remaining)
            except DucklingError as error:
                self._give_back(remaining)
                culprit = next((table for table in remaining if table.name == error.table), None)
                if culprit is None:
                    raise
                self._set_aside(culprit.name, error)
                key = self._engine.names.key
                rest = {key(table.name): table for table in remaining if table is not culprit}
                remaining = list(self._tied(rest).values())
            except BaseException:
                self._give_back(remaining)
                raise
            else:
                return
        if self._logged and not self._stream.running:
            self._begin_empty()

    def _copy_and_join(self, chosen: list[Table]) -> None:
        settings = self._engine.settings
        for table in chosen:
            self._run.expect(table.name, table.row_estimate).state = "waiting"
        self._record(chosen, TableState.COPYING)
        if self._marks is not None:
            self._marks.before()
        snapshot = Snapshot(
            self._engine.endpoint,
            chosen,
            max_rows=settings.copy_batch_rows,
            max_bytes=settings.batch_bytes,
            logged=self._logged,
            # A cascade must not be replayed on rows that are further already: the place must be exact.
            exact=any(self._engine.names.key(table.name) in self._cascades.children for table in chosen),
        )
        self._run.on_cancel(snapshot.abort)
        with snapshot:
            self._check_catalogue(chosen)
            if self._marks is not None:
                self._marks.take(snapshot, chosen)
            position = str(snapshot.low) if self._logged else "none"
            log.info("copy.begin", database=self._engine.id, tables=len(chosen), position=position)
            key = self._engine.names.key
            copied = self._tied({key(table.name): table for table in chosen if self._copy(snapshot, table)})
            if not self._logged:
                self._go_live(copied, None)
                return
            high = snapshot.end()
        self._record(list(copied.values()), TableState.CATCHING_UP)
        with CatchUp(
            self._engine,
            self._stream,
            self._run,
            copied,
            snapshot.low,
            lost=lambda table, at: self._lose(table, f"the table changed during its copy, at {at}"),
            other=self._needs_copy,
            cascades=self._cascades,
        ) as catch_up:
            catch_up.join(high, lambda start: self._go_live(copied, start, catch_up.check_joined))
            self._micro_batches += catch_up.transactions
        if self._lost:
            self._needs_copy([table.name for table in self._lost.values()])

    def _check_catalogue(self, chosen: list[Table]) -> None:
        """What was read before the snapshot must be so in it: a statement in between is in no log that is
        read. Raises _CatalogueChangedError."""
        now = {table.name: table.fingerprint() for table in self._engine.catalogue()}
        then = {table.name: table.fingerprint() for table in chosen}
        if self._wanted:
            now = {name: shape for name, shape in now.items() if name in then}
        else:
            now = {name: shape for name, shape in now.items() if name not in self._results}
        if now != then:
            raise _CatalogueChangedError(
                "tables were changed while the copy began", hint="it is tried again by itself"
            )

    def _copy(self, snapshot: Snapshot, table: Table) -> bool:
        """All rows of one table into its staging table; False where that table alone can't be copied."""
        writer = self._engine.writer
        progress = self._run.expect(table.name, table.row_estimate)
        progress.state, progress.rows = "copying", 0
        started = self._clock()
        writer.submit(lambda cursor: tables.create_staging(cursor, table)).result()
        pending: Future[int] | None = None
        try:
            with closing(snapshot.read(table)) as pieces:
                for piece in pieces:
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
        except (ValueDecodeError, RowRefusedError) as error:
            self._set_aside(table.name, error)
            return False
        except DucklingError as error:
            if not is_table_change(error):
                raise
            self._lose(table, error.message)
            return False
        if snapshot.lost_dates:
            self._engine.metrics.zero_dates_met(table.name, snapshot.lost_dates)
        progress.state = "catching_up"
        progress.seconds = self._clock() - started
        return True

    def _lose(self, table: Table, reason: str) -> None:
        progress = self._run.expect(table.name, 0)
        progress.state, progress.error = "error", reason
        self._lost[self._engine.names.key(table.name)] = table
        self._results[table.name] = TableResult(
            table.name, progress.rows, _ms(progress.seconds), "error", "snapshot", reason
        )
        self._give_back([table])

    def _go_live(
        self,
        copied: dict[str, Table],
        start: Position | None,
        check: Callable[[duckdb.DuckDBPyConnection], None] = lambda _: None,
    ) -> dict[str, Table]:
        """All staging tables become tables at once; `start` becomes the position, where there was none.

        A table that was live but is not among them has no place in a stream that starts elsewhere.
        """
        live = {key: table for key, table in copied.items() if key not in self._lost}

        def job(cursor: duckdb.DuckDBPyConnection) -> list[str]:
            check(cursor)
            left = []
            if not self._logged:
                state.forget_position(cursor, self._engine.id)
            if start is not None:
                for record in state.load_tables(cursor).values():
                    if record.state in (TableState.STREAMING, TableState.POLLING):
                        left.append(record.name)
                        reason = "the stream starts at another place"
                        state.save_table(cursor, record.name, TableState.NEEDS_RESYNC, reason=reason)
                state.save_position(cursor, self._engine.id, start)
                prepared.adopt(cursor)
            for table in live.values():
                tables.swap(cursor, table.name)
                mark = TableState.STREAMING if self._logged else TableState.POLLING
                state.save_table(cursor, table.name, mark, definition=table)
                watermarks.forget_watermark(cursor, table.name)
            record_keys(cursor, self._cascades, live)
            if self._marks is not None:
                self._marks.save(cursor, list(live.values()))
            return left

        left = self._engine.writer.submit(job).result()
        self._needs_copy([name for name in left if self._engine.names.key(name) not in live])
        for table in live.values():
            progress = self._run.expect(table.name, 0)
            progress.state = "done"
            self._results[table.name] = TableResult(
                table.name, progress.rows, _ms(progress.seconds), "success", "snapshot"
            )
        log.info("copy.live", database=self._engine.id, tables=len(live), position=str(start or "stream"))
        return live


def _appending(table: Table, piece: pa.Table) -> Callable[[duckdb.DuckDBPyConnection], int]:
    return lambda cursor: append_rows(cursor, table, tables.staging_name(table.name), piece)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
