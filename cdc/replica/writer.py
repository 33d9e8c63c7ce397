"""The one thread that writes: micro-batches, copies, swaps and bookkeeping, one after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import duckdb
import structlog

from cdc.errors import DucklingError, ReplicaError, ReplicaFatalError
from cdc.metrics import DatabaseMetrics
from cdc.replica.batch_transactions import BatchTransactions
from cdc.replica.checkpoints import Checkpoints
from cdc.replica.database import ReplicaDatabase
from cdc.replica.target import BatchTarget
from cdc.replica.write_queue import Delivery, Task, WriteQueue
from cdc.replica.write_session import WriteSession
from cdc.source.batcher import Batch

log = structlog.get_logger(__name__)

T = TypeVar("T")


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
        self._name = name
        self._clock = clock
        self._checkpoints = Checkpoints(
            database, metrics, name, wal_bytes=checkpoint_wal_bytes, idle=checkpoint_idle, clock=clock
        )
        self._session = WriteSession(
            database, self._checkpoints, name=name, refuse=self._refuse, pause=self._pause, clock=clock
        )
        self._batches = BatchTransactions(database, self._session, metrics, name=name, clock=clock)
        self._queue = WriteQueue(clock)
        self._busy = False
        self._busy_since: float | None = None
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
        self._queue.stop()
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
        return 0.0 if since is None or self._queue.failed is not None else max(0.0, self._clock() - since)

    @property
    def checkpoint_error(self) -> DucklingError | None:
        """Why the last checkpoint failed; None where it did not."""
        return self._checkpoints.error

    @property
    def queued(self) -> int:
        """Batches that wait."""
        return self._queue.batches

    def hungry(self) -> bool:
        """Whether the writer has nothing to do."""
        return not self._busy and self._queue.empty

    def submit(self, job: Callable[[duckdb.DuckDBPyConnection], T]) -> Future[T]:
        """Runs `job` in a transaction of its own, after all batches delivered so far."""
        return self._queue.add(job)

    def note(self, job: Callable[[duckdb.DuckDBPyConnection], T]) -> Future[T]:
        """Runs `job` in the transaction of the next job, or soon in one of its own."""
        return self._queue.add_note(job)

    def withdraw(self, note: Future[T]) -> bool:
        """Forgets a note that has not begun, since another job says all that it does; whether it could."""
        return self._queue.withdraw(note)

    def checkpoint_next(self) -> None:
        """A checkpoint follows the job that calls this: it made a copy live that was written past the log."""
        self._checkpoints.wrote_past_the_log()

    def settle(self) -> Future[None]:
        """Done when the writer is through with all batches and jobs that it has been given so far."""
        return self._queue.add(None)

    def attach(self, target: BatchTarget) -> None:
        """From now on `target` is told when the writer is idle, until `detach`."""
        with self._queue.changed:
            self._targets.add(target)

    def detach(self, target: BatchTarget) -> None:
        """The target's stream has ended; what it delivered is still applied."""
        with self._queue.changed:
            self._targets.discard(target)

    def deliver(self, target: BatchTarget, batch: Batch) -> None:
        """Queues a batch; blocks while the target has enough waiting. Raises the target's error, if any."""
        self._queue.deliver(target, batch)

    def discard(self, target: BatchTarget, error: DucklingError) -> None:
        """Forgets what `target` has waiting and rolls back its open transaction; returns when that is done.

        What is being applied is finished first. The target takes no more batches.
        """
        done = self._queue.drop(target, error, tell=self._thread.is_alive())
        if done is not None:
            done.result()

    # The thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            log.exception("writer.died", database=self._name)
            self._queue.stop()
            self._queue.fail(
                ReplicaError(f"the writer ended ({error.__class__.__name__})", hint="restart the service")
            )
        self._end()

    def _work(self) -> None:
        queue = self._queue
        last_work = self._clock()
        worked = False
        while True:
            with queue.changed:
                item = self._next()
                self._busy = item is not None
                listening = [] if self._busy or not worked else list(self._targets)
            for target in listening:
                target.on_idle()
            worked = False
            with queue.changed:
                item = item or self._next()
                while item is None and not queue.finished:
                    queue.changed.wait(self._wait(last_work))
                    item = self._next()
                    if item is None and self._until_checkpoint(last_work) == 0:
                        break
                self._busy = item is not None
            if item is None:
                if queue.finished:
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
            if self._batches.unfinished is None:
                self._busy_since = last_work
                self._session.tidy()
            self._busy_since = None

    def _wait(self, last_work: float) -> float | None:
        """Seconds until there is something to do by itself; None for never."""
        checkpoint, note = self._until_checkpoint(last_work), self._queue.note_wait()
        if note is None or self._batches.unfinished is not None:
            return checkpoint
        return note if checkpoint is None else min(note, checkpoint)

    def _until_checkpoint(self, last_work: float) -> float | None:
        """Seconds until an idle checkpoint is due; None without one to wait for."""
        if self._queue.stopping:
            return 0.1
        if self._batches.unfinished is not None or self._queue.failed is not None:
            return None
        return self._checkpoints.seconds_left(last_work)

    def _next(self) -> Delivery | Task | None:
        """What to do now. While a transaction is open only its own parts may come, or its end."""
        target = self._batches.unfinished
        if target is None:
            return self._queue.next()
        if target.error is None:
            part = self._queue.next_of(target)
            if part is not None or not self._queue.stopping:
                return part
        self._batches.roll_back()
        return self._queue.next()

    def _handle(self, item: Delivery | Task) -> None:
        if isinstance(item, Task):
            self._run_task(item)
            return
        try:
            self._batches.apply(item.target, item.batch)
        except DucklingError as error:
            self._fail_target(item.target, error)
        except Exception as error:
            log.exception("writer.unexpected", database=self._name)
            self._fail_target(item.target, ReplicaError(f"applying failed: {error.__class__.__name__}"))

    def _run_task(self, task: Task) -> None:
        """Runs a job, with the notes that wait. Where that fails, each of them for itself."""
        if task.job is None:
            task.future.set_result(None)
            return
        notes = self._queue.take_notes()
        together = [*notes, task]
        try:
            results = self._session.run(lambda cursor: [each.run(cursor) for each in together])
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            if isinstance(error, ReplicaFatalError):
                self._queue.put_back(notes)
                self._fail_task(task, error)
            elif notes:
                self._queue.put_back(together)
            else:
                task.future.set_exception(error)
        else:
            for each, result in zip(together, results, strict=True):
                each.future.set_result(result)

    def _fail_task(self, task: Task, error: ReplicaFatalError) -> None:
        try:
            self._session.shut()  # before: nobody is to read what is not committed
        finally:
            task.future.set_exception(error)
        self._session.reopen()

    def _fail_target(self, target: BatchTarget, error: DucklingError) -> None:
        self._batches.roll_back()
        if isinstance(error, ReplicaFatalError):
            self._session.shut()
        self._queue.drop(target, error, tell=False)
        if isinstance(error, ReplicaFatalError):
            self._session.reopen()
        target.on_error(error)

    # The file ----------------------------------------------------------------------------------------

    def _refuse(self, error: DucklingError | None) -> None:
        """The file can't be opened, for now; or is open again."""
        if error is not None:
            self._queue.fail(error)
            return
        with self._queue.changed:
            self._queue.failed = None

    def _pause(self, seconds: float) -> bool:
        queue = self._queue
        with queue.changed:
            return queue.stopping or (queue.changed.wait(seconds) and queue.stopping)

    def _end(self) -> None:
        self._session.close()
        with self._queue.changed:
            self._queue.changed.notify_all()
