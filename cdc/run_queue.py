"""The queue of one database's syncs: what is asked for, under way or due, one at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from cdc.due_copies import DueCopies
from cdc.errors import ConflictError, DucklingError, StoppedError
from cdc.run_recorder import RunRecorder
from cdc.runs import Run
from cdc.status import SyncResult

_RUNS_KEPT = 100


class RunQueue:
    """One sync at a time. Those that nobody asked for (tables that are new or changed) wait for their turn.

    `changed` guards the queue and what is `due`, and is notified when there may be something else to do.
    """

    def __init__(self, recorder: RunRecorder, due: DueCopies) -> None:
        self.recorder = recorder
        self.due = due
        self.changed = threading.Condition()
        self.opened = False
        self.closing = threading.Event()
        """Set for good by `close`."""
        self._runs: deque[Run] = deque(maxlen=_RUNS_KEPT)
        self._active: Run | None = None
        self._asked: Run | None = None
        self._waiting: Run | None = None
        """The incremental sync under way: it waits for the stream, in a thread of its own."""
        self._clearing = False

    def open(self) -> None:
        """From now on syncs can be asked for."""
        self.opened = True

    def close(self) -> None:
        """No new sync begins, the one under way or waiting is cancelled."""
        self.closing.set()
        with self.changed:
            runs = (self._active, self._asked, self._waiting)
            self.changed.notify_all()
        for run in runs:
            if run is not None:
                run.cancel()

    # What there is -----------------------------------------------------------------------------------

    @property
    def copying(self) -> Run | None:
        """The copy under way."""
        return self._active

    @property
    def current(self) -> Run | None:
        """The sync under way, or waiting to begin."""
        return self._active or self._asked or self._waiting

    @property
    def settled(self) -> bool:
        """Whether no copy is under way or due."""
        return self._active is None and self._asked is None and not self.due

    @property
    def being_cleared(self) -> bool:
        """Whether syncs are kept away by `clearing`."""
        return self._clearing

    def run(self, run_id: str) -> Run | None:
        """A run of this process by its id."""
        with self.changed:
            return next((run for run in self._runs if run.id == run_id), None)

    # Asking ------------------------------------------------------------------------------------------

    def ask(self, run: Run) -> Run:
        """Queues a copy. Raises ConflictError while another sync runs."""
        with self.changed:
            self._check_free(self._active)
            self._asked = run
            self._begin(run)
            self.changed.notify_all()
        return run

    def ask_beside(self, run: Run) -> None:
        """Lets an incremental sync wait beside copies that nobody asked for, in a thread of its own.

        Raises ConflictError while a sync runs that somebody asked for.
        """
        with self.changed:
            active = self._active
            self._check_free(active if active is not None and not active.automatic else None)
            self._waiting = run
            self._begin(run)

    def want_copies(self, names: list[str]) -> None:
        """The stream or a copy met tables that must be copied (again)."""
        with self.changed:
            self.due.add(names)
            self.changed.notify_all()

    @contextmanager
    def clearing(self) -> Iterator[None]:
        """Keeps syncs away, and leaves the replica empty until somebody asks. Raises ConflictError."""
        with self.changed:
            self._check_free(self._active)
            self._clearing = True
            self.due.forget()
        try:
            yield
        finally:
            with self.changed:
                self._clearing = False
                self.changed.notify_all()

    def _check_free(self, active: Run | None) -> None:
        if self.closing.is_set() or not self.opened:
            raise StoppedError("the service is starting or stopping", hint="try again in a moment")
        if active is not None or self._asked is not None or self._waiting is not None or self._clearing:
            raise ConflictError("a sync of this database is running", hint="wait for it: GET /sync/progress")

    # For the threads that carry runs out -------------------------------------------------------------

    def begin_asked(self) -> Run | None:
        """The sync that somebody asked for is under way now; None where nobody did."""
        with self.changed:
            if self._asked is None:
                return None
            self._active, self._asked = self._asked, None
            return self._active

    def begin_due(self, run: Run) -> Run:
        """A sync that nobody asked for is under way now."""
        with self.changed:
            self._active = run
            self._begin(run)
        return run

    def end(self, run: Run, result: SyncResult | None, error: DucklingError | None) -> None:
        """The run has ended: another may begin, and who waits for this one is told, once that is in the log.

        An incremental sync does not wait for the log, which would take a third of its time. A crash before the
        record is written leaves it out, or `interrupted`; the rows are committed all the same.
        """
        recorded = self.recorder.end(run, result, error)
        if recorded is not None and run.kind != "incremental" and not self.closing.is_set():
            recorded.exception()
        with self.changed:
            if run is self._waiting:
                self._waiting = None
            else:
                self._active = None
            self.changed.notify_all()
        if error is not None:
            run.fail(error)
        elif result is not None:
            run.succeed(result)

    def drop_asked(self) -> None:
        """Ends a sync that somebody waits for, and that never began."""
        with self.changed:
            left, self._asked = self._asked, None
        if left is not None:
            self.end(left, None, StoppedError("the service is stopping", hint="ask again when it is back"))

    def _begin(self, run: Run) -> None:
        self._runs.append(run)
        self.recorder.begin(run)
