"""A watermark sync: asks all tables at once what is newer, reads only that, and replaces it in the copy.

One session, one consistent snapshot of the source for all tables, and where the news fit into one batch, one
transaction of DuckDB: readers go from one state of the source to the next, but for deleted rows, which a source
without a log does not tell of.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import duckdb
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError, NotFoundError
from cdc.position import Position
from cdc.replica import state, tables
from cdc.replica.watermarks import Watermark, load_watermarks
from cdc.runs import Run
from cdc.source.translation import is_table_change
from cdc.status import SyncResult, TableResult, TableState
from cdc.watermark.choice import Followed
from cdc.watermark.plan import Plan, make_plan
from cdc.watermark.poll import Poll
from cdc.watermark.source_session import SourceSession

log = structlog.get_logger(__name__)

_LIVE = (TableState.POLLING, TableState.STREAMING)
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the bookkeeping says that a table stands, and why, if it is set aside."""

    state: TableState
    reason: str | None


@dataclass(frozen=True, slots=True)
class Books:
    """What the bookkeeping says: where tables stand, how far they are known, and the position of a stream that was
    here before."""

    standing: dict[str, Standing]
    known: dict[str, Watermark]
    position: Position | None


@dataclass(slots=True)
class Work:
    """What one sync has to do: by `plan`, and by the `books` of before.

    `results` are those of tables for which there is nothing to do.
    """

    plan: Plan
    books: Books
    to_follow: list[Followed] = field(default_factory=list)
    to_copy: list[str] = field(default_factory=list)
    results: dict[str, TableResult] = field(default_factory=dict)


class WatermarkSync:
    """Carries out watermark syncs of one database, one after another. Keeps its session from one to the next.

    `copy(run, tables)` copies tables that can't be followed from where they stand: new or changed ones, and
    those whose checksum differs.
    """

    def __init__(
        self,
        engine: Engine,
        copy: Callable[[Run, Sequence[str]], SyncResult],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._copy = copy
        self._clock = clock
        self._overlap = engine.settings.watermark_overlap_seconds
        self._session = SourceSession(engine.endpoint)
        self._plan: Plan | None = None

    def close(self) -> None:
        """Ends the session with the source."""
        self._session.close()

    def carry_out(self, run: Run) -> SyncResult:
        """One sync of all tables, or of those that the run names.

        Raises NotFoundError for a table that the source lacks, RunCancelledError, and DucklingError where the
        source or the file fails as a whole; what was committed until then stays, and the next sync goes on
        from there. A table that fails by itself is set aside, and the others are synced.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                return self._carry_out(run)
            except BaseException as failure:
                self._session.close()  # whatever state it is in
                if not isinstance(failure, DucklingError):
                    raise
                if attempt == _TRIES or not is_table_change(failure):
                    raise
                self._plan = None
        raise AssertionError

    def _carry_out(self, run: Run) -> SyncResult:
        started = self._clock()
        self._session.open()
        run.on_cancel(self._session.abort)
        work = self._prepare(run)
        self._plan = work.plan
        self._enter(work, whole=not run.tables)
        results = work.results
        snapshots = self._copied(run, work.to_copy, results)
        with closing(Poll(self._engine, self._session, run, self._overlap, self._clock)) as poll:
            differing = []
            if work.to_follow:
                differing = poll.carry_out(work.to_follow, work.books.known)
        results.update(poll.results)
        snapshots += self._copied(run, differing, results)
        return SyncResult(
            tuple(results[name] for name in sorted(results)),
            round((self._clock() - started) * 1000),
            errors=tuple(f"{each.table}: {each.error}" for each in results.values() if each.error),
            snapshots=snapshots,
            micro_batches=poll.commits,
            append_operations=poll.operations,
        )

    def _prepare(self, run: Run) -> Work:
        """What there is to do: the bookkeeping is read while the source looks at its catalogue."""
        with ThreadPoolExecutor(1, thread_name_prefix=f"bookkeeping-{self._engine.id}") as beside:
            books = beside.submit(self._engine.replica.read, self._books)
            plan = make_plan(self._engine, self._session, self._plan)
            return self._work(run, plan, books.result())

    def _books(self, cursor: duckdb.DuckDBPyConnection) -> Books:
        rows = cursor.execute("SELECT table_name, state, reason FROM _duckling.table_states").fetchall()
        standing = {name: Standing(TableState(mark), reason) for name, mark, reason in rows}
        return Books(standing, load_watermarks(cursor), state.load_position(cursor, self._engine.id))

    def _work(self, run: Run, plan: Plan, books: Books) -> Work:
        work = Work(plan, books)
        for name, followed in self._chosen(plan, run).items():
            stands = books.standing.get(name)
            if stands is not None and stands.state is TableState.ERRORED and not run.tables:
                reason = stands.reason or "set aside"
                work.results[name] = TableResult(name, 0, 0, "error", "micro-batch", reason)
            elif _followable(followed, books.known.get(name), stands):
                work.to_follow.append(followed)
            else:
                work.to_copy.append(name)
        return work

    def _copied(self, run: Run, names: Sequence[str], results: dict[str, TableResult]) -> int:
        """Copies tables; returns how many of them went live."""
        if not names:
            return 0
        done = self._copy(run, names)
        results.update((each.table, each) for each in done.tables)
        return done.snapshots

    def _chosen(self, plan: Plan, run: Run) -> dict[str, Followed]:
        if not run.tables:
            return plan.tables
        key = self._engine.names.key
        wanted = {key(name) for name in run.tables}
        unfit = next((error for name, error in plan.unfit.items() if key(name) in wanted), None)
        if unfit is not None:
            raise unfit
        found = {name: followed for name, followed in plan.tables.items() if key(name) in wanted}
        if len(found) < len(wanted):
            raise NotFoundError(
                f"the source has no table {run.tables[0]!r} (or the settings exclude it)",
                hint="see GET /tables, INCLUDED_TABLES and EXCLUDED_TABLES",
                code="TABLE_NOT_FOUND",
            )
        return found

    def _enter(self, work: Work, *, whole: bool) -> None:
        """The position of a stream that was here means nothing once tables are ahead of it; tables that are gone
        at the source go; those that can't be replicated (any more) say why."""
        plan, states = work.plan, {name: each.state for name, each in work.books.standing.items()}
        position = work.books.position
        gone = (
            [name for name in states if name not in plan.tables and name not in plan.unfit] if whole else []
        )
        unfit = {
            name: error
            for name, error in plan.unfit.items()
            if whole and states.get(name) is not TableState.ERRORED
        }
        if position is None and not gone and not unfit:
            return

        def job(cursor: duckdb.DuckDBPyConnection) -> None:
            if position is not None:
                state.forget_position(cursor, self._engine.id)
                for name, mark in states.items():
                    if mark is TableState.STREAMING:
                        state.save_table(cursor, name, TableState.POLLING)
            for name in gone:
                tables.drop(cursor, name)
                state.forget_table(cursor, name)
            for name, error in unfit.items():
                state.save_table(cursor, name, TableState.ERRORED, reason=error.message, hint=error.hint)

        self._engine.writer.submit(job).result()
        for name in gone:
            log.info("watermark.table_dropped", database=self._engine.id, table=name)


def _followable(followed: Followed, mark: Watermark | None, standing: Standing | None) -> bool:
    """Whether the copy is of the table as it is now, and we know up to where."""
    if mark is None or standing is None or standing.state not in _LIVE:
        return False
    column = followed.column.name if followed.kind == "timestamp" and followed.column else None
    progress = mark.progress
    return (mark.kind, mark.column) == (followed.kind, column) and (progress.shape, progress.created) == (
        followed.shape,
        followed.traits.created,
    )
