"""What waits for the writer: batches of streams, jobs, and notes that can wait for a transaction to be part of."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import duckdb

from cdc.errors import DucklingError, StoppedError
from cdc.replica.target import BatchTarget
from cdc.replica.write_session import Job
from cdc.source.batcher import Batch

_QUEUED_BATCHES = 2
"""Batches that wait for the writer, per stream: enough to keep it busy, few enough to bound memory."""
_NOTE_PATIENCE = 0.05
"""Seconds that a note waits for a job: a transaction of its own would make what comes behind it wait for 3 ms."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A batch of one stream."""

    target: BatchTarget
    batch: Batch


@dataclass(frozen=True, slots=True)
class Task:
    """A job (None where only its place in the queue matters) and who waits for it.

    `before` are the batches that go first: a stream that never falls idle does not starve jobs.
    """

    job: Job | None
    before: tuple[Batch, ...] = ()
    future: Future[Any] = field(default_factory=Future)

    def run(self, cursor: duckdb.DuckDBPyConnection) -> Any:
        """What the job returns, in the transaction of `cursor`."""
        return self.job(cursor) if self.job is not None else None


@dataclass(frozen=True, slots=True)
class Note:
    """A job that is content to be part of the next one's transaction, until `due`."""

    task: Task
    due: float


class WriteQueue:
    """Filled by any thread, emptied by the writer's.

    `changed` guards it, and is notified when there may be something else to do; methods said to need it are
    called with it held.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.changed = threading.Condition()
        self.stopping = False
        self.failed: DucklingError | None = None
        """Why nothing can be written now; None where it can."""
        self._deliveries: deque[Delivery] = deque()
        self._tasks: deque[Task] = deque()
        self._notes: deque[Note] = deque()

    # For other threads -------------------------------------------------------------------------------

    def stop(self) -> None:
        """Nothing more is taken in."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()

    @property
    def batches(self) -> int:
        """How many batches wait."""
        return len(self._deliveries)

    @property
    def empty(self) -> bool:
        """Whether nothing waits that could go on now; notes can wait."""
        return not self._deliveries and not self._tasks

    def add(self, job: Job | None) -> Future[Any]:
        """Queues a job, or nothing, behind the batches delivered so far. Raises what keeps the writer from writing."""
        with self.changed:
            self._check_open()
            return self._add(job)

    def add_note(self, job: Job) -> Future[Any]:
        """Queues a job that is content to be part of the next one's transaction. Raises as `add`."""
        with self.changed:
            self._check_open()
            note = Note(Task(job), self._clock() + _NOTE_PATIENCE)
            self._notes.append(note)
            self.changed.notify_all()
        return note.task.future

    def withdraw(self, future: Future[Any]) -> bool:
        """Forgets the note of `future`, which is never done then; whether it still waited, and jobs are taken."""
        with self.changed:
            if self.stopping or self.failed is not None:
                return False
            for at, note in enumerate(self._notes):
                if note.task.future is future:
                    del self._notes[at]
                    return True
        return False

    def deliver(self, target: BatchTarget, batch: Batch) -> None:
        """Queues a batch; blocks while the target has enough waiting. Raises the target's error, if any."""
        with self.changed:
            while True:
                if target.error is not None:
                    raise target.error
                self._check_open()
                if sum(1 for each in self._deliveries if each.target is target) < _QUEUED_BATCHES:
                    break
                self.changed.wait()
            self._deliveries.append(Delivery(target, batch))
            self.changed.notify_all()

    def drop(self, target: BatchTarget, error: DucklingError, *, tell: bool) -> Future[Any] | None:
        """The target takes no more batches, and what it has waiting is forgotten.

        With `tell`, returns what is done once the writer has ended with what it has in hand; None where it takes
        no jobs any more.
        """
        with self.changed:
            target.error = target.error or error
            self._deliveries = deque(each for each in self._deliveries if each.target is not target)
            self.changed.notify_all()
            return self._add(None) if tell and not self.stopping else None

    def _add(self, job: Job | None) -> Future[Any]:
        task = Task(job, tuple(each.batch for each in self._deliveries))
        self._tasks.append(task)
        self.changed.notify_all()
        return task.future

    def _check_open(self) -> None:
        if self.failed is not None:
            raise self.failed.with_traceback(None)  # else each caller's frames stay with it
        if self.stopping:
            raise StoppedError("the writer is stopping", hint="start the service again")

    # For the writer ----------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether it is to stop and nothing is left. Needs `changed`."""
        return self.stopping and self.empty and not self._notes

    def next(self) -> Delivery | Task | None:
        """What to do now; None for nothing. Needs `changed`."""
        if self._notes and (self._clock() >= self._notes[0].due or (self.stopping and self.empty)):
            return self._notes.popleft().task
        if self._tasks:
            before = self._tasks[0].before
            if not any(each.batch is batch for batch in before for each in self._deliveries):
                return self._tasks.popleft()
        if self._deliveries:
            self.changed.notify_all()  # there is room
            return self._deliveries.popleft()
        return None

    def next_of(self, target: BatchTarget) -> Delivery | None:
        """The next batch of one stream. Needs `changed`."""
        for at, each in enumerate(self._deliveries):
            if each.target is target:
                del self._deliveries[at]
                self.changed.notify_all()
                return each
        return None

    def note_wait(self) -> float | None:
        """Seconds until the first note is due; None without one. Needs `changed`."""
        return max(0.0, self._notes[0].due - self._clock()) if self._notes else None

    def take_notes(self) -> list[Task]:
        """All notes, for the transaction that is about to begin."""
        with self.changed:
            taken, self._notes = [note.task for note in self._notes], deque()
        return taken

    def put_back(self, tasks: list[Task]) -> None:
        """What failed together gets a transaction of its own, each."""
        with self.changed:
            self._tasks.extendleft(reversed(tasks))

    def fail(self, error: DucklingError) -> None:
        """Nothing can be written any more: whoever waits is told, and whoever comes."""
        with self.changed:
            self.failed = error
            waiting = [*self._tasks, *(note.task for note in self._notes)]
            self._tasks.clear()
            self._notes.clear()
            # Whose batches are dropped must not go on behind them.
            losing = {each.target for each in self._deliveries}
            for target in losing:
                target.error = target.error or error
            self._deliveries.clear()
            self.changed.notify_all()
        for task in waiting:
            task.future.set_exception(error)
        for target in losing:
            target.on_error(error)
