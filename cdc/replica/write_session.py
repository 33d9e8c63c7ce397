"""The only writing connection: its transactions, its checkpoints, and what is done where DuckDB lacks memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import duckdb
import structlog

from cdc.backoff import Backoff
from cdc.errors import DucklingError, ReplicaError, ReplicaFatalError
from cdc.replica import row_views, state
from cdc.replica.checkpoints import Checkpoints
from cdc.replica.database import MEMORY_NOTE, ReplicaDatabase
from cdc.replica.duckdb_errors import OUT_OF_MEMORY, is_out_of_memory, translate

log = structlog.get_logger(__name__)

Job = Callable[[duckdb.DuckDBPyConnection], Any]

_LOOK_EVERY = 0.25
"""Seconds of work between two looks at DuckDB's memory: one takes 0.3 ms."""
_WORK_FOR_RELIEF = 2.0
"""Seconds of work for each second of checkpoints, at least: where memory lacks again sooner, the limit grows."""
_REOPEN_SECONDS = 30.0
"""The longest pause between two attempts to open the file again."""


class WriteSession:
    """Writes to one file, for one thread.

    Indexes keep what was read and changed in them in memory until a checkpoint, and what a transaction writes
    until it ends; DuckDB can't spill either. What is known beforehand is set aside (`make_room`); a checkpoint is
    made when the rest fills half of the memory limit, and where that does not last, the limit grows (if it may).

    `refuse(error)` is called while the file is shut and can't be opened, `refuse(None)` when it is open again;
    `pause(seconds)` waits between attempts and is true where the writer is to stop.
    """

    def __init__(
        self,
        database: ReplicaDatabase,
        checkpoints: Checkpoints,
        *,
        name: str,
        refuse: Callable[[DucklingError | None], None],
        pause: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._checkpoints = checkpoints
        self._name = name
        self._refuse = refuse
        self._pause = pause
        self._clock = clock
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._starved = False
        """Whether the file must be opened again because memory lacked in a commit."""
        self._noted_bytes = 0
        """The limit that stands in the file's bookkeeping, as far as we know."""
        self._looked_at = clock()
        self._relieved_at = clock()
        self._relief_took = 0.0

    def open(self) -> None:
        """Takes a connection. The database must be open. Raises ReplicaError."""
        self._cursor = self._database.cursor()
        # With the order to be kept, DuckDB collects what is inserted before it writes it, and takes longer.
        self._cursor.execute("SET SESSION preserve_insertion_order = false")
        self._noted_bytes = self._noted_bytes or self._database.memory.base
        self._checkpoints.opened()

    def close(self) -> None:
        """Rolls back what is open and gives the connection back."""
        self.rollback()
        if self._starved:
            self._database.close(checkpoint=False)
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    @property
    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The connection. Raises ReplicaError where the file could not be opened again."""
        if self._cursor is None:
            raise ReplicaError("the file is not open", hint="restart the service")
        return self._cursor

    # Transactions ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Opens a transaction."""
        self.cursor.execute("BEGIN")

    def commit(self) -> None:
        """Commits it. Raises duckdb.Error, after which `rollback` must follow; or ReplicaFatalError.

        Where memory lacks in a commit, DuckDB 2.0 keeps half of the transaction in its indexes, which a checkpoint
        would write into the file. So that memory is given up: the file, opened again, tells what is committed.
        """
        try:
            self.cursor.execute("COMMIT")
        except duckdb.Error as error:
            if not is_out_of_memory(error):
                raise
            self._starved = True
            raise ReplicaFatalError(
                "DuckDB ran out of the memory it may use in the middle of a commit",
                hint="the file is opened again, and what was committed counts; raise DUCKDB_MEMORY_LIMIT",
            ) from error
        self._checkpoints.committed()

    def rollback(self) -> None:
        """Takes back the open transaction, if there is one."""
        if self._cursor is not None:
            with suppress(duckdb.Error):  # none is open, or the file is gone: either way nothing stays
                self._cursor.execute("ROLLBACK")
            row_views.forget(self._cursor)

    def run(self, job: Job) -> Any:
        """What `job` returns, run in a transaction of its own; again from its start where memory was lacking."""
        relief = self.relief()
        while True:
            try:
                self.begin()
                result = job(self.cursor)
                self.commit()
            except duckdb.Error as error:
                self.rollback()
                if not (is_out_of_memory(error) and next(relief, False)):
                    raise translate(error) from error
            except DucklingError as error:
                self.rollback()
                if not (error.code == OUT_OF_MEMORY and next(relief, False)):
                    raise
            except BaseException:
                self.rollback()
                raise
            else:
                return result

    # Memory ------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Between two transactions: a checkpoint, where log or memory have grown beyond their bounds."""
        try:
            self._tidy()
        except ReplicaFatalError:
            self.shut()
            self.reopen()

    def _tidy(self) -> None:
        if self._cursor is None:
            return  # the service stops while the file can't be opened
        if self._database.memory.base > self._noted_bytes:
            self._note_memory()
        if self._checkpoints.due():
            self.checkpoint("size")
        elif self._clock() - self._looked_at >= _LOOK_EVERY:
            self._looked_at = self._clock()
            self._database.grant.adjust()
            if self._pressed():
                next(self._gentle_relief(self._relieve, self._database.grant.adjust), None)

    def _note_memory(self) -> None:
        """So that the next start begins with as much. Tried once: a start without it finds out again."""
        self._noted_bytes = self._database.memory.base
        try:
            self.run(lambda cursor: state.remember(cursor, MEMORY_NOTE, str(self._noted_bytes)))
        except ReplicaFatalError:
            raise
        except DucklingError as error:
            log.warning("replica.memory_not_noted", database=self._name, error=error.message)

    def _pressed(self) -> bool:
        try:
            held = self._database.held_bytes(self.cursor) - self._database.demand.index_bytes
            return held > self._database.memory.base // 2
        except duckdb.Error as error:
            log.warning("replica.memory_unknown", database=self._name, error=translate(error).message)
            return False

    def relief(self) -> Iterator[bool]:
        """Each step makes room in memory, for another attempt at what was rolled back; ends where none is left.

        A statement that lacks memory leaves marks in it that ROLLBACK does not remove: DuckDB 2.0 then takes rows for
        deleted by another transaction. So that memory is given up, as after a commit that lacks some.
        """
        self._tell_lack()
        yield from self._gentle_relief(self._begin_anew, self.reopen)
        if not self._database.memory.can_grow:
            self._begin_anew()
            yield True
        self.reopen()  # nobody is to meet those marks

    def outgrown(self) -> None:
        """A transaction that came in parts did not fit in: the limit grows, if it may, before it comes again."""
        self._tell_lack()
        if self._database.memory.grow():
            self._tell_growth()
            self.reopen()
        else:
            self._begin_anew()

    def _gentle_relief(self, make_room: Callable[[], None], enlarge: Callable[[], None]) -> Iterator[bool]:
        """Room made, and where that was of no lasting use the last time, a higher limit."""
        if self._clock() - self._relieved_at >= _WORK_FOR_RELIEF * self._relief_took:
            make_room()
            yield True
        while self._database.memory.grow():
            self._tell_growth()
            enlarge()
            yield True

    def _begin_anew(self) -> None:
        self.reopen()
        if self._cursor is not None:
            self._relieve()

    def _relieve(self) -> None:
        began = self._clock()
        self.checkpoint("memory")
        self._relieved_at = self._clock()
        self._relief_took = self._relieved_at - began

    def _tell_lack(self) -> None:
        log.info(
            "replica.memory_lacked",
            database=self._name,
            limit=str(self._database.memory),
            hint="the file is opened again, and what was rolled back is tried once more",
        )

    def _tell_growth(self) -> None:
        log.info(
            "replica.memory_raised",
            database=self._name,
            limit=str(self._database.memory),
            hint="what is written must fit in; a size in DUCKDB_MEMORY_LIMIT keeps it from growing",
        )

    # The file ----------------------------------------------------------------------------------------

    def checkpoint(self, why: str) -> None:
        """Writes the write-ahead log into the file."""
        if not self._checkpoints.run(self.cursor, why):
            self.shut()
            if self._checkpoints.lacked_memory and self._database.memory.grow():
                self._tell_growth()
            self.reopen()

    def shut(self) -> None:
        """DuckDB has given up on the open file: nobody is to read what it has in memory. `reopen` must follow."""
        log.error("replica.reopen", database=self._name, hint="DuckDB reported a fatal error")
        self._cursor = None
        try:
            self._database.close(checkpoint=False)
        except DucklingError as error:  # a query does not end: `reopen` tries again
            log.error("replica.reopen_failed", database=self._name, error=error.message, hint=error.hint)

    def reopen(self) -> None:
        """Closes the file, opens it again, and lets the streams resume.

        While that fails (the disk is gone, say) everybody is refused, and it is tried again and again.
        """
        self._cursor = None
        starved, self._starved = self._starved, False
        if starved and self._database.memory.grow():
            self._tell_growth()
        backoff = Backoff(_REOPEN_SECONDS)
        while not self._opened():
            if self._pause(backoff.pause()):
                return
        self._refuse(None)
        if starved:
            self._relieve()

    def _opened(self) -> bool:
        try:
            with self._database.reopening():
                self._database.close(checkpoint=False)
                self._database.open()
            self.open()
        except (DucklingError, duckdb.Error) as error:
            failed = error if isinstance(error, DucklingError) else translate(error)
            log.error("replica.reopen_failed", database=self._name, error=failed.message, hint=failed.hint)
            self._refuse(failed)
            return False
        return True
