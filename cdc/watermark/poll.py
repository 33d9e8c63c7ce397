"""One pass over tables that are followed: what may be new is asked of all at once, read, and put in batches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import duckdb
import numpy as np
import pyarrow as pa
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError, RowRefusedError, ValueDecodeError
from cdc.replica import state
from cdc.replica.apply import apply_rows
from cdc.replica.database import ReplicaDatabase
from cdc.replica.duckdb_errors import translate
from cdc.replica.watermarks import Progress, Watermark, save_watermarks
from cdc.runs import Run
from cdc.source.batcher import MAX_BUFFERS
from cdc.source.rows import UPDATE
from cdc.status import TableResult, TableState
from cdc.watermark.choice import Followed
from cdc.watermark.copy_marks import watermark
from cdc.watermark.moments import moment
from cdc.watermark.progress import advanced, halfway
from cdc.watermark.questions import Answer, ask, undated
from cdc.watermark.reading import Page, newer, pages
from cdc.watermark.source_session import SourceSession

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Batch:
    """Rows of some tables that are committed together, with the watermarks that belong to them."""

    rows: list[tuple[Followed, pa.Table]] = field(default_factory=list)
    marks: dict[str, Watermark] = field(default_factory=dict)
    count: int = 0
    bytes: int = 0

    def put(self, followed: Followed, rows: pa.Table) -> None:
        """Adds rows of a table."""
        self.rows.append((followed, rows))
        self.count += len(rows)
        self.bytes += rows.nbytes

    def without(self, table: str) -> Batch:
        """The same without a table."""
        left = Batch(marks={name: mark for name, mark in self.marks.items() if name != table})
        for followed, rows in self.rows:
            if followed.table.name != table:
                left.put(followed, rows)
        return left

    def apply(self, replica: ReplicaDatabase, cursor: duckdb.DuckDBPyConnection) -> None:
        """Replaces the rows by their key and records the watermarks, in the caller's transaction.

        Raises RowRefusedError with the table's name where a row does not go in.
        """
        lost = {each.table.name: len(rows) for each, rows in self.rows}
        replica.make_room(cursor, lost, tables=len(self.rows), size=self.bytes)
        for followed, rows in self.rows:
            table = followed.table
            operations = np.full(len(rows), UPDATE, dtype=np.int8)
            try:
                # Every key counts as existing and is deleted first: nothing is left to replace.
                apply_rows(cursor, table, table.name, rows, operations, overlap=True, replace=False)
            except duckdb.Error as error:
                failure = translate(error)
                if isinstance(failure, RowRefusedError):
                    failure.table = table.name
                    raise failure from error
                raise
        save_watermarks(cursor, self.marks.values())


class Poll:
    """A pass. Rows that were read before, within the overlap, come again; putting them again changes nothing."""

    def __init__(
        self,
        engine: Engine,
        session: SourceSession,
        run: Run,
        overlap: float,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._session = session
        self._run = run
        self._overlap = overlap
        self._clock = clock
        self._batch = Batch()
        self._pending: tuple[Batch, Future[None]] | None = None
        self._failed: set[str] = set()
        self.results: dict[str, TableResult] = {}
        self.commits = 0
        self.operations = 0

    def close(self) -> None:
        """Waits for what the writer has in hand."""
        if self._pending is not None:
            self._pending[1].exception()

    def carry_out(self, followed: Sequence[Followed], known: dict[str, Watermark]) -> list[str]:
        """Brings the tables up to date; returns the names of those that must be copied instead."""
        to_copy: list[str] = []
        clock = self._session.begin()
        answers = ask(self._session, followed)
        for each in followed:
            name = each.table.name
            if _must_be_copied(each, known[name], answers[name]):
                to_copy.append(name)
            elif each.kind == "checksum":
                self.results[name] = TableResult(name, 0, 0, "success", "micro-batch")
            else:
                self._follow(each, known[name], answers[name], clock)
        self._flush()
        self._session.end()  # while the writer is at the rows
        self._settle()
        return to_copy

    def _follow(self, followed: Followed, mark: Watermark, answer: Answer, clock: str) -> None:
        name, started, rows = followed.table.name, self._clock(), 0
        try:
            rows = self._read_table(followed, mark, answer, clock)
        except ValueDecodeError as error:
            self._set_aside(name, error)
        if name not in self._failed:
            milliseconds = round((self._clock() - started) * 1000)
            self.results[name] = TableResult(
                name,
                rows,
                milliseconds,
                "success",
                "micro-batch",
                deletes_seen=False,
                updates_seen=followed.sees_updates,
            )

    def _read_table(self, followed: Followed, mark: Watermark, answer: Answer, clock: str) -> int:
        """What is new in one table; returns how many rows that are, those that come again among them."""
        progress, last_key, count = mark.progress, mark.last_key, 0
        began = progress.cursor.clock if progress.cursor is not None else clock
        if answer.undated != progress.undated:
            assert followed.column is not None
            with closing(self._pages(followed, undated(followed.column), clock)) as found:
                for page in found:
                    count += self._put(followed, page)
                    self._flush_if_full()
            progress = replace(progress, undated=answer.undated)
        if may_have_news(followed, progress, answer):
            greatest: str | None = None
            with closing(self._pages(followed, newer(followed, progress, self._overlap), began)) as found:
                for page in found:
                    count += self._put(followed, page)
                    greatest, last_key = page.greatest or greatest, page.last_key
                    if page.cursor is not None:
                        progress = halfway(progress, page.greatest, page.cursor)
                        self._batch.marks[followed.table.name] = watermark(followed, progress, last_key)
                    self._flush_if_full()
            progress = advanced(followed, progress, greatest, began, self._overlap)
        if (progress != mark.progress or count) and followed.table.name not in self._failed:
            self._batch.marks[followed.table.name] = watermark(followed, progress, last_key)
        return count

    def _pages(self, followed: Followed, condition: str, clock: str) -> Generator[Page]:
        settings = self._engine.settings
        found = pages(
            self._session,
            followed,
            condition,
            clock=clock,
            max_rows=settings.piece_rows,
            max_bytes=settings.batch_bytes,
        )
        with closing(found):
            for page in found:
                self._run.check_cancelled()
                if followed.table.name in self._failed:
                    return
                yield page

    def _put(self, followed: Followed, page: Page) -> int:
        name, rows = followed.table.name, len(page.rows)
        self._batch.put(followed, page.rows)
        self._run.expect(name, 0).rows += rows
        if page.lost_dates:
            self._engine.metrics.zero_dates_met(name, page.lost_dates)
        return rows

    # Commits -----------------------------------------------------------------------------------------

    def _flush_if_full(self) -> None:
        settings = self._engine.settings
        batch = self._batch
        if (
            batch.count >= settings.batch_size
            or batch.bytes >= settings.batch_bytes
            or len(batch.rows) >= MAX_BUFFERS
        ):
            self._flush()

    def _flush(self) -> None:
        """Hands the batch to the writer, once that is through with the one before."""
        self._settle()
        batch, self._batch = self._batch, Batch()
        if batch.rows or batch.marks:
            self._pending = (batch, self._engine.writer.submit(partial(batch.apply, self._engine.replica)))

    def _settle(self) -> None:
        """Waits for the batch in hand. A table that it fails by is set aside; the rest of it comes again."""
        while self._pending is not None:
            batch, future = self._pending
            self._pending = None
            try:
                future.result()
            except RowRefusedError as error:
                if error.table is None:
                    raise
                self._set_aside(error.table, error)
                left = batch.without(error.table)
                self._pending = (left, self._engine.writer.submit(partial(left.apply, self._engine.replica)))
            else:
                self.commits += 1
                self.operations += len(batch.rows)
                self._engine.metrics.rows_polled(batch.count)

    def _set_aside(self, name: str, error: DucklingError) -> None:
        """The table keeps its last good state until somebody has it copied again."""
        self._failed.add(name)
        self._batch = self._batch.without(name)
        hint = error.hint

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            state.save_table(cursor, name, TableState.ERRORED, reason=error.message, hint=hint)

        self._engine.writer.submit(job).result()
        self.results[name] = TableResult(name, 0, 0, "error", "micro-batch", error.message)
        self._engine.metrics.error_met(error.code)
        log.error(
            "table.set_aside",
            database=self._engine.id,
            table=name,
            code=error.code,
            error=error.message,
            hint=hint,
        )


def _must_be_copied(followed: Followed, mark: Watermark, answer: Answer) -> bool:
    """A checksum says that something differs, not what. A table that was emptied is found and soon copied; and where
    a key has fallen, the table may have been emptied and begun again at 1."""
    if followed.kind == "checksum":
        return answer.checksum is None or answer.checksum != mark.progress.checksum
    if followed.kind == "key" and answer.greatest is not None and mark.progress.value is not None:
        return int(answer.greatest) < int(mark.progress.value)
    empty = answer.greatest is None and answer.undated == "0:0"
    return empty and (mark.progress.value is not None or mark.progress.undated != "0:0")


def may_have_news(followed: Followed, progress: Progress, answer: Answer) -> bool:
    """Whether rows may be there that were not read, or have changed since."""
    if progress.cursor is not None or not progress.settled:
        return answer.greatest is not None
    if answer.greatest is None or progress.value is None:
        return answer.greatest is not None
    if followed.kind == "key":
        return int(answer.greatest) > int(progress.value)
    greatest = moment(answer.greatest)
    return greatest is None or greatest > progress.value
