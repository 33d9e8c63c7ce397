"""The one thread that writes: micro-batches, copies, swaps and bookkeeping, one after another."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import duckdb
import structlog

from cdc.errors import DucklingError, ReplicaError, ReplicaFatalError, StoppedError
from cdc.metrics import DatabaseMetrics
from cdc.replica import prepared
from cdc.replica.batch_rows import BatchRows
from cdc.replica.checkpoints import Checkpoints
from cdc.replica.database import ReplicaDatabase, is_out_of_memory, translate
from cdc.replica.target import BatchTarget
from cdc.replica.write_session import Job, WriteSession
from cdc.source.batcher import Batch, FlushReason

log = structlog.get_logger(__name__)

T = TypeVar("T")
_QUEUED_BATCHES = 2
"""Batches that wait for the writer, per stream: enough to keep it busy, few enough to bound memory."""
_CONFLICT_TRIES = 3


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
        self._metrics = metrics
        self._name = name
        self._clock = clock
        self._checkpoints = Checkpoints(
            database, metrics, name, wal_bytes=checkpoint_wal_bytes, idle=checkpoint_idle, clock=clock
        )
        self._session = WriteSession(
            database, self._checkpoints, name=name, refuse=self._refuse, pause=self._pause, clock=clock
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
        self._thread = threading.Thread(target=self._run, name=f"writer-{name}", daemon=True)

    # For other threads -------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread. The database must be open."""
        self._session.open()
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
                self._busy_since = self._clock()
                self._session.checkpoint("idle")
                self._busy_since = None
                last_work = self._clock()
                continue
            self._busy_since = self._clock()
            self._handle(item)
            worked = True
            last_work = self._clock()
            if self._open_target is None:
                self._busy_since = last_work
                self._session.tidy()
            self._busy_since = None

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
                self._session.rollback()
                self._open_target = None
                return self._next()
            for at, (target, batch) in enumerate(self._batches):
                if target is open_target:
                    del self._batches[at]
                    self._changed.notify_all()
                    return target, batch
            if self._stopping:
                self._session.rollback()
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
            result = self._session.run(first)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            fatal = isinstance(error, ReplicaFatalError)
            try:
                if fatal:
                    self._session.shut()  # before: nobody is to read what is not committed
            finally:
                future.set_exception(error)
            if fatal:
                self._session.reopen()
        else:
            future.set_result(result)

    def _fail_target(self, target: BatchTarget, error: DucklingError) -> None:
        self._session.rollback()
        self._open_target = None
        if isinstance(error, ReplicaFatalError):
            self._session.shut()
        with self._changed:
            target.error = error
            self._batches = deque(item for item in self._batches if item[0] is not target)
            self._changed.notify_all()
        if isinstance(error, ReplicaFatalError):
            self._session.reopen()
        target.on_error(error)

    # Transactions ------------------------------------------------------------------------------------

    def _apply_with_retry(self, target: BatchTarget, batch: Batch) -> None:
        """Applies a batch. A write conflict with a reader's transaction is tried again, never skipped.

        A whole batch trusts the log that inserted keys are new; where one is not, it is applied again by
        replacing. Parts of a transaction, which can't be taken back alone, replace from the start.
        """
        replace = self._open_target is not None or batch.position is None
        conflicts = 0
        relief = self._session.relief()
        while True:
            in_parts = self._open_target is not None
            try:
                self._apply(target, batch, replace)
            except duckdb.Error as error:
                if is_out_of_memory(error):
                    self._session.rollback()
                    self._open_target = None
                    # The parts before it are rolled back too: the transaction must come again from its start.
                    if not next(relief, False) or in_parts:
                        raise translate(error) from error
                elif isinstance(error, duckdb.ConstraintException) and not replace:
                    self._session.rollback()
                    replace = True
                elif isinstance(error, duckdb.TransactionException) and "conflict" in str(error).lower():
                    self._session.rollback()
                    self._open_target = None
                    conflicts += 1
                    if in_parts or conflicts == _CONFLICT_TRIES:
                        raise ReplicaError(
                            "DuckDB reports a write conflict",
                            hint="the batch is applied again",
                            code="CONFLICT",
                        ) from error
                else:  # or the commit failed: no room on the disk, say
                    raise translate(error) from error
            else:
                return

    def _apply(self, target: BatchTarget, batch: Batch, replace: bool) -> None:
        cursor = self._session.cursor
        started = self._clock()
        if self._open_target is None:
            self._session.begin()
        counted = self._rows.apply(cursor, target, batch, replace)
        if batch.prepared:
            prepared.save(cursor, target.owner, batch.prepared)
        if target.save_position is None:
            self._session.commit()
        elif batch.position is None:
            self._open_target = target
        else:
            target.save_position(cursor, batch.position)
            self._session.commit()
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

    def _refuse(self, error: DucklingError | None) -> None:
        """The file can't be opened, for now; or is open again."""
        if error is not None:
            self._fail(error)
            return
        with self._changed:
            self._failed = None

    def _pause(self, seconds: float) -> bool:
        with self._changed:
            return self._stopping or (self._changed.wait(seconds) and self._stopping)

    def _fail(self, error: DucklingError) -> None:
        """Nothing can be written any more: whoever waits is told, and whoever comes."""
        with self._changed:
            self._failed = error
            waiting, self._jobs = self._jobs, deque()
            # Whose batches are dropped must not go on behind them.
            losing = {target for target, _ in self._batches}
            for target in losing:
                target.error = target.error or error
            self._batches.clear()
            self._changed.notify_all()
        for _, future, _ in waiting:
            future.set_exception(error)
        for target in losing:
            target.on_error(error)

    def _end(self) -> None:
        self._session.close()
        with self._changed:
            self._changed.notify_all()
