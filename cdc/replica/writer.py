"""The one thread that writes: micro-batches, copies, swaps and bookkeeping, one after another."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import duckdb
import structlog

from cdc.backoff import Backoff
from cdc.errors import DucklingError, ReplicaError, ReplicaFatalError, StoppedError
from cdc.metrics import DatabaseMetrics
from cdc.replica import prepared, row_views
from cdc.replica.batch_rows import BatchRows
from cdc.replica.checkpoints import Checkpoints
from cdc.replica.database import ReplicaDatabase, translate
from cdc.replica.target import BatchTarget
from cdc.source.batcher import Batch, FlushReason

log = structlog.get_logger(__name__)

T = TypeVar("T")
Job = Callable[[duckdb.DuckDBPyConnection], Any]

_QUEUED_BATCHES = 2
"""Batches that wait for the writer, per stream: enough to keep it busy, few enough to bound memory."""
_CONFLICT_TRIES = 3
_REOPEN_SECONDS = 30.0
"""The longest pause between two attempts to open the file again."""


class Writer:
    """Owns the only writing connection and runs everything that writes, in the order it is given.

    A part of a large transaction leaves DuckDB's transaction open; until its last part has come, nothing
    else is run. Checkpoints happen between transactions: when the write-ahead log passes
    `checkpoint_wal_bytes`, or after `checkpoint_idle` seconds without work.
    """

    def __init__(
        self,
        database: ReplicaDatabase,
        metrics: DatabaseMetrics,
        *,
        name: str,
        checkpoint_wal_bytes: int,
        checkpoint_idle: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._name = name
        self._clock = clock
        self._checkpoints = Checkpoints(
            database, metrics, name, wal_bytes=checkpoint_wal_bytes, idle=checkpoint_idle, clock=clock
        )
        self._rows = BatchRows(metrics, name)
        self._changed = threading.Condition()
        self._batches: deque[tuple[BatchTarget, Batch]] = deque()
        self._jobs: deque[tuple[Job, Future[Any], tuple[Batch, ...]]] = deque()
        """Each with the batches that go before it: a stream that never falls idle does not starve jobs."""
        self._busy = False
        self._busy_since: float | None = None
        self._stopping = False
        self._failed: DucklingError | None = None
        self._open_target: BatchTarget | None = None
        self._targets: set[BatchTarget] = set()
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._thread = threading.Thread(target=self._run, name=f"writer-{name}", daemon=True)

    # For other threads -------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread. The database must be open."""
        self._cursor = self._database.cursor()
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Finishes what is queued, then ends the thread; True if it ended within `timeout` seconds.

        An open part of a transaction is rolled back.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def busy_seconds(self) -> float:
        """Seconds for which it has been at the same piece of work; 0 when idle, or while the file is shut."""
        since = self._busy_since
        return 0.0 if since is None or self._failed is not None else max(0.0, self._clock() - since)

    @property
    def checkpoint_error(self) -> DucklingError | None:
        """Why the last checkpoint failed; None where it did not."""
        return self._checkpoints.error

    @property
    def queued(self) -> int:
        """Batches that wait."""
        return len(self._batches)

    def hungry(self) -> bool:
        """Whether the writer has nothing to do."""
        return not self._busy and not self._batches and not self._jobs

    def submit(self, job: Callable[[duckdb.DuckDBPyConnection], T]) -> Future[T]:
        """Runs `job` in a transaction of its own, after all batches delivered so far."""
        future: Future[T] = Future()
        with self._changed:
            self._check_running()
            self._jobs.append((job, future, self._waiting()))
            self._changed.notify_all()
        return future

    def attach(self, target: BatchTarget) -> None:
        """From now on `target` is told when the writer is idle, until `detach`."""
        with self._changed:
            self._targets.add(target)

    def detach(self, target: BatchTarget) -> None:
        """The target's stream has ended; what it delivered is still applied."""
        with self._changed:
            self._targets.discard(target)

    def deliver(self, target: BatchTarget, batch: Batch) -> None:
        """Queues a batch; blocks while the target has enough waiting. Raises the target's error, if any."""
        with self._changed:
            while True:
                if target.error is not None:
                    raise target.error
                self._check_running()
                if sum(1 for queued, _ in self._batches if queued is target) < _QUEUED_BATCHES:
                    break
                self._changed.wait()
            self._batches.append((target, batch))
            self._changed.notify_all()

    def discard(self, target: BatchTarget, error: DucklingError) -> None:
        """Forgets what `target` has waiting and rolls back its open transaction; returns when that is done.

        What is being applied is finished first. The target takes no more batches.
        """
        done: Future[None] = Future()

        def discarded(_: duckdb.DuckDBPyConnection) -> None:
            """Only its place in the queue matters."""

        with self._changed:
            if target.error is None:
                target.error = error
            self._batches = deque(item for item in self._batches if item[0] is not target)
            if not self._thread.is_alive() or self._stopping:
                return
            self._jobs.append((discarded, done, self._waiting()))
            self._changed.notify_all()
        done.result()

    def _check_running(self) -> None:
        if self._failed is not None:
            raise self._failed.with_traceback(None)  # else each caller's frames stay with it
        if self._stopping:
            raise StoppedError("the writer is stopping", hint="start the service again")

    # The thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            log.exception("writer.died", database=self._name)
            self._fail(
                ReplicaError(f"the writer ended ({error.__class__.__name__})", hint="restart the service")
            )
        self._end()

    def _work(self) -> None:
        last_work = self._clock()
        worked = False
        while True:
            with self._changed:
                item = self._next()
                self._busy = item is not None
                listening = [] if self._busy or not worked else list(self._targets)
            for target in listening:
                target.on_idle()
            worked = False
            with self._changed:
                item = item or self._next()
                while item is None and not self._finished():
                    self._changed.wait(self._idle_wait(last_work))
                    item = self._next()
                    if item is None and self._idle_wait(last_work) == 0:
                        break
                self._busy = item is not None
            if item is None:
                if self._finished():
                    break
                self._checkpoint("idle")
                last_work = self._clock()
                continue
            self._busy_since = self._clock()
            self._handle(item)
            self._busy_since = None
            worked = True
            last_work = self._clock()
            if self._open_target is None and self._checkpoints.due():
                self._checkpoint("size")

    def _finished(self) -> bool:
        return self._stopping and not self._jobs and not self._batches

    def _idle_wait(self, last_work: float) -> float | None:
        """Seconds until an idle checkpoint is due; None without one to wait for."""
        if self._stopping or self._open_target is not None or self._failed is not None:
            return None if not self._stopping else 0.1
        return self._checkpoints.seconds_left(last_work)

    def _next(self) -> tuple[BatchTarget, Batch] | tuple[Job, Future[Any]] | None:
        """What to do now. While a transaction is open only its own parts may come, or its end."""
        open_target = self._open_target
        if open_target is not None:
            if open_target.error is not None:
                self._rollback()
                self._open_target = None
                return self._next()
            for at, (target, batch) in enumerate(self._batches):
                if target is open_target:
                    del self._batches[at]
                    self._changed.notify_all()
                    return target, batch
            if self._stopping:
                self._rollback()
                self._open_target = None
                return self._next()
            return None
        if self._jobs:
            job, future, before = self._jobs[0]
            if not any(batch is each for each in before for _, batch in self._batches):
                self._jobs.popleft()
                return job, future
        if not self._batches:
            return None
        item = self._batches.popleft()
        self._changed.notify_all()
        return item

    def _waiting(self) -> tuple[Batch, ...]:
        return tuple(batch for _, batch in self._batches)

    def _handle(self, item: tuple[Any, Any]) -> None:
        first, second = item
        if isinstance(first, BatchTarget):
            try:
                self._apply_with_retry(first, second)
            except DucklingError as error:
                self._fail_target(first, error)
            except Exception as error:
                log.exception("writer.unexpected", database=self._name)
                self._fail_target(first, ReplicaError(f"applying failed: {error.__class__.__name__}"))
            return
        future: Future[Any] = second
        try:
            result = self._in_transaction(first)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            future.set_exception(error)
            if isinstance(error, ReplicaFatalError):
                self._reopen()
        else:
            future.set_result(result)

    def _fail_target(self, target: BatchTarget, error: DucklingError) -> None:
        self._rollback()
        self._open_target = None
        with self._changed:
            target.error = error
            self._batches = deque(item for item in self._batches if item[0] is not target)
            self._changed.notify_all()
        if isinstance(error, ReplicaFatalError):
            self._reopen()
        target.on_error(error)

    # Transactions ------------------------------------------------------------------------------------

    def _writing(self) -> duckdb.DuckDBPyConnection:
        if self._cursor is None:
            raise self._failed or ReplicaError("the file is not open", hint="restart the service")
        return self._cursor

    def _in_transaction(self, job: Job) -> Any:
        cursor = self._writing()
        try:
            cursor.execute("BEGIN")
            result = job(cursor)
            cursor.execute("COMMIT")
        except duckdb.Error as error:
            self._rollback()
            raise translate(error) from error
        except BaseException:
            self._rollback()
            raise
        return result

    def _rollback(self) -> None:
        if self._cursor is not None:
            with suppress(duckdb.Error):  # none is open, or the file is gone: either way nothing stays
                self._cursor.execute("ROLLBACK")
            row_views.forget(self._cursor)

    def _apply_with_retry(self, target: BatchTarget, batch: Batch) -> None:
        """Applies a batch. A write conflict with a reader's transaction is tried again, never skipped.

        A whole batch trusts the log that inserted keys are new; where one is not, it is applied again by
        replacing. Parts of a transaction, which can't be taken back alone, replace from the start.
        """
        replace = self._open_target is not None or batch.position is None
        conflicts = 0
        while True:
            in_parts = self._open_target is not None
            try:
                self._apply(target, batch, replace)
            except duckdb.ConstraintException as error:
                if replace:
                    raise translate(error) from error
                self._rollback()
                replace = True
            except duckdb.TransactionException as error:
                if "conflict" not in str(error).lower():
                    raise translate(error) from error  # the commit failed: no room on the disk, say
                self._rollback()
                self._open_target = None
                conflicts += 1
                if in_parts or conflicts == _CONFLICT_TRIES:
                    raise ReplicaError(
                        "DuckDB reports a write conflict", hint="the batch is applied again", code="CONFLICT"
                    ) from error
            except duckdb.Error as error:
                raise translate(error) from error
            else:
                return

    def _apply(self, target: BatchTarget, batch: Batch, replace: bool) -> None:
        cursor = self._writing()
        started = self._clock()
        if self._open_target is None:
            cursor.execute("BEGIN")
        counted = self._rows.apply(cursor, target, batch, replace)
        if batch.prepared:
            prepared.save(cursor, target.owner, batch.prepared)
        if target.save_position is None:
            cursor.execute("COMMIT")
        elif batch.position is None:
            self._open_target = target
        else:
            target.save_position(cursor, batch.position)
            cursor.execute("COMMIT")
            self._open_target = None
        if batch.position is not None:
            target.applied = batch.position
        if batch.reason is not FlushReason.POSITION:
            self._metrics.batch_applied(
                counted,
                transactions=batch.transactions,
                seconds=self._clock() - started,
                reason=batch.reason.value,
            )

    # The file ----------------------------------------------------------------------------------------

    def _checkpoint(self, why: str) -> None:
        self._busy_since = self._clock()
        if not self._checkpoints.run(self._writing(), why):
            self._reopen()
        self._busy_since = None

    def _reopen(self) -> None:
        """DuckDB has given up on the open file: close it, open it again, and let the streams resume.

        While that fails (the disk is gone, say) everybody is refused, and it is tried again and again.
        """
        log.error("replica.reopen", database=self._name, hint="DuckDB reported a fatal error")
        self._cursor = None
        self._open_target = None
        backoff = Backoff(_REOPEN_SECONDS)
        while not self._opened():
            with self._changed:
                if self._stopping:
                    return
                self._changed.wait(backoff.pause())
        with self._changed:
            self._failed = None

    def _opened(self) -> bool:
        try:
            self._database.close()
            self._database.open()
            self._cursor = self._database.cursor()
        except (DucklingError, duckdb.Error) as error:
            failed = error if isinstance(error, DucklingError) else translate(error)
            log.error("replica.reopen_failed", database=self._name, error=failed.message, hint=failed.hint)
            self._fail(failed)
            return False
        return True

    def _fail(self, error: DucklingError) -> None:
        """Nothing can be written any more: whoever waits is told, and whoever comes."""
        with self._changed:
            self._failed = error
            waiting, self._jobs = self._jobs, deque()
            self._batches.clear()
            self._changed.notify_all()
        for _, future, _ in waiting:
            future.set_exception(error)

    def _end(self) -> None:
        self._rollback()
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
        with self._changed:
            self._changed.notify_all()
