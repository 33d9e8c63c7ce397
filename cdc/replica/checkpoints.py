"""When the write-ahead log goes into the file, and what happens when it can't."""

from __future__ import annotations

import time
from collections.abc import Callable

import duckdb
import structlog

from cdc.backoff import Backoff
from cdc.errors import DucklingError
from cdc.metrics import DatabaseMetrics
from cdc.replica.database import SMALL_LOG, ReplicaDatabase
from cdc.replica.duckdb_errors import is_out_of_memory, translate

log = structlog.get_logger(__name__)

_MOST_COMMITS = 5_000
"""Commits that a start has to replay at most, whatever their size: each takes 0.1 ms."""
_LONGEST_PAUSE = 30.0
"""Seconds between two attempts that fail."""


class Checkpoints:
    """Checkpoints of one file: past `wal_bytes` or thousands of commits in its write-ahead log, behind a start that
    had to replay it, or after `idle` seconds without work."""

    def __init__(
        self,
        database: ReplicaDatabase,
        metrics: DatabaseMetrics,
        name: str,
        *,
        wal_bytes: int,
        idle: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._name = name
        self._wal_bytes = wal_bytes
        self._idle = idle
        self._clock = clock
        self._pauses = Backoff(_LONGEST_PAUSE)
        self._not_before = 0.0
        self._commits = 0
        """Since the last checkpoint."""
        self._past_the_log = False
        """Whether rows were written since then that the size of the log does not tell of."""
        self.error: DucklingError | None = None
        """Why the last one failed; None where it did not. What is committed stays in the log meanwhile."""
        self.lacked_memory = False
        """Whether that was for memory."""

    def opened(self) -> None:
        """The file was opened. A log that it left behind was replayed: one checkpoint, and no start replays that
        again, however often the service is killed."""
        if self._database.wal_bytes > SMALL_LOG:
            self._commits = _MOST_COMMITS

    def committed(self) -> None:
        """A transaction was committed."""
        self._commits += 1

    def wrote_past_the_log(self) -> None:
        """Whole row groups went into the file. A start would put all their keys into the index again, however small
        the log is."""
        self._past_the_log = True

    def due(self) -> bool:
        """Whether the log has grown beyond its bounds, or says less than is to be replayed."""
        many = self._commits >= _MOST_COMMITS or self._past_the_log
        return many or self._database.wal_bytes > self._wal_bytes

    def seconds_left(self, last_work: float) -> float | None:
        """Seconds until one is due for idleness; None where the log is too small for that."""
        if self._database.wal_bytes < SMALL_LOG:
            return None
        return max(0.0, last_work + self._idle - self._clock())

    def run(self, cursor: duckdb.DuckDBPyConnection, why: str) -> bool:
        """Makes one, unless one failed a moment ago. False where DuckDB has given up on the open file."""
        if self._clock() < self._not_before:
            return True
        started = self._clock()
        self._commits = 0
        try:
            self._database.checkpoint(cursor)
        except (duckdb.FatalException, duckdb.InternalException) as error:
            failed = translate(error)
            log.error(
                "replica.checkpoint_failed", database=self._name, error=failed.message, hint=failed.hint
            )
            self._metrics.error_met(failed.code)
            self.error = failed
            self.lacked_memory = is_out_of_memory(error)
            self._not_before = self._clock() + self._pauses.pause()
            return False
        except duckdb.Error as error:
            # A reader's transaction may stand in the way: the next round tries again.
            log.warning("replica.checkpoint_put_off", database=self._name, error=translate(error).message)
            return True
        self.error = None
        self._past_the_log = False
        self._pauses.reset()
        log.debug(
            "replica.checkpoint",
            database=self._name,
            why=why,
            ms=round((self._clock() - started) * 1000),
        )
        return True
