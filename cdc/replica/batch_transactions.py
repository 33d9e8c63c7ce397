"""Batches of rows in transactions: one for each, or one for all parts of a transaction that is too large for one."""

from __future__ import annotations

import time
from collections.abc import Callable

import duckdb

from cdc.errors import ReplicaError
from cdc.metrics import DatabaseMetrics
from cdc.replica import prepared
from cdc.replica.batch_growth import batch_growth, lost_rows, put_bytes
from cdc.replica.batch_rows import BatchRows
from cdc.replica.database import ReplicaDatabase
from cdc.replica.duckdb_errors import is_out_of_memory, translate
from cdc.replica.target import BatchTarget
from cdc.replica.write_session import WriteSession
from cdc.source.batcher import Batch, FlushReason

_CONFLICT_TRIES = 3


class BatchTransactions:
    """Applies batches, each with its position in the same transaction. For the writer's thread."""

    def __init__(
        self,
        database: ReplicaDatabase,
        session: WriteSession,
        metrics: DatabaseMetrics,
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is the database's in the log."""
        self._database = database
        self._session = session
        self._metrics = metrics
        self._clock = clock
        self._rows = BatchRows(metrics, name)
        self.unfinished: BatchTarget | None = None
        """Whose transaction is open, since parts of it are still to come."""
        self._tables: set[str] = set()
        """Those that the open transaction changes."""
        self._may_grow = True
        """Whether batches may be larger than usual: not where one did not fit into memory."""

    def roll_back(self) -> None:
        """Takes back what is not committed."""
        self._session.rollback()
        self.unfinished = None

    def apply(self, target: BatchTarget, batch: Batch) -> None:
        """Applies a batch. A write conflict with a reader's transaction is tried again, never skipped.

        A whole batch trusts the log that inserted keys are new; where one is not, it is applied again by
        replacing. Parts of a transaction, which can't be taken back alone, replace from the start.
        """
        replace = self.unfinished is not None or batch.position is None
        conflicts = 0
        relief = self._session.relief()
        while True:
            in_parts = self.unfinished is not None
            try:
                self._apply(target, batch, replace)
            except duckdb.Error as error:
                if is_out_of_memory(error):
                    self.roll_back()
                    if in_parts:
                        # The parts before it are rolled back too: the transaction must come again from its start.
                        self._session.outgrown()
                        raise translate(error) from error
                    relieved = next(relief, False)
                    self._may_grow = self._may_grow and relieved
                    if not relieved:
                        raise translate(error) from error
                elif isinstance(error, duckdb.ConstraintException) and not replace:
                    self._session.rollback()
                    replace = True
                elif isinstance(error, duckdb.TransactionException) and "conflict" in str(error).lower():
                    self.roll_back()
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
        if self.unfinished is None:
            self._session.begin()
            self._tables.clear()
        self._prepare_for(target, batch)
        counted = self._rows.apply(cursor, target, batch, replace)
        if batch.prepared:
            prepared.save(cursor, target.owner, batch.prepared)
        if target.save_position is None:
            self._session.commit()
        elif batch.position is None:
            self.unfinished = target
        else:
            target.save_position(cursor, batch.position)
            self._session.commit()
            self.unfinished = None
        if batch.position is not None:
            target.applied = batch.position
        if batch.reason is not FlushReason.POSITION:
            self._metrics.batch_applied(
                counted,
                transactions=batch.transactions,
                seconds=self._clock() - started,
                reason=batch.reason.value,
            )

    def _prepare_for(self, target: BatchTarget, batch: Batch) -> None:
        """Memory for what `batch` changes, and what the size of its tables means for the next full batches."""
        full = batch.reason is FlushReason.ROWS and self._may_grow
        lost = lost_rows(target, batch)
        self._tables.update(key for key, _ in batch.buffers)
        self._database.make_room(
            self._session.cursor, lost, tables=len(self._tables), size=put_bytes(batch), look=full
        )
        if full:
            target.growth = batch_growth(self._database.demand.rows_of(lost))
