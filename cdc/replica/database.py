"""The DuckDB file: opened once, one engine, a cursor for each thread."""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import structlog

from cdc.errors import (
    ReplicaError,
    ReplicaFileError,
    ReplicaLockedError,
)
from cdc.replica.duckdb_errors import OUT_OF_MEMORY, first_line, is_out_of_memory, translate
from cdc.replica.memory import MemoryLimit
from cdc.replica.memory_demand import MemoryDemand
from cdc.replica.memory_grant import MemoryGrant

log = structlog.get_logger(__name__)

T = TypeVar("T")

MEMORY_NOTE = "memory_base"
"""Under this name the bookkeeping keeps how far the memory limit has grown."""
SMALL_LOG = 1 << 20
"""A write-ahead log smaller than this is not worth a checkpoint by itself."""
_READ_BYTES = 16_000_000
_NEVER = "1TB"
_LOCK_UP = (
    "LOAD icu",  # built in; it brings the setting TimeZone, which would be the machine's
    "SET GLOBAL TimeZone = 'UTC'",
    "SET GLOBAL enable_external_access = false",
    # For `MemoryGrant` and `WriteSession` alone: a client's SET is refused by its kind.
    "SET GLOBAL allowed_configs = ['memory_limit', 'preserve_insertion_order']",
    "SET GLOBAL lock_configuration = true",
)
_NO_PARTING_CHECKPOINT = "PRAGMA disable_checkpoint_on_shutdown"
"""What is in memory is not always to go into the file: see `WriteSession.commit`."""
_REOPEN_SECONDS = 5.0
"""Who reads waits so long for the file to be open again."""
_CLOSE_TRIES = 40
_CLOSE_PAUSE = 0.05


class ReplicaDatabase:
    """One DuckDB file, opened for writing.

    Only one process can have it open, so readers go through cursors of this object. External access is off
    and the configuration locked from the start: no SQL can reach files or the network, or undo that.
    """

    def __init__(
        self,
        path: Path,
        *,
        memory_limit: str,
        threads: int = 0,
        name: str = "default",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`name` is the database's in the log."""
        self.path = path
        self.memory = MemoryLimit(memory_limit)
        """Takes effect when the file is opened, and as `grant` tells DuckDB."""
        self.demand = MemoryDemand(self.memory)
        self.grant = MemoryGrant(self.memory, name, clock)
        self._threads = threads
        self._name = name
        self._changed = threading.Condition()
        self._reopening = False
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._unclosed: duckdb.DuckDBPyConnection | None = None
        """One that a query kept from being closed: it must be, before the file is opened anew."""
        self._cursors: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()

    def open(self) -> None:
        """Opens the file, making it and its folder where they don't exist.

        Raises ReplicaLockedError, ReplicaFileError.
        """
        config: dict[str, Any] = {
            # Checkpoints are the writer's business: at DuckDB's 16 MiB each scattered update pays for one.
            "checkpoint_threshold": _NEVER,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        if self._threads:
            config["threads"] = self._threads
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._connect(config)
        except OSError as error:
            raise ReplicaFileError(
                f"the folder {self.path.parent} can't be used: {error.strerror}",
                hint="set DUCKDB_PATH to a place that this account may write to",
            ) from error
        except duckdb.Error as error:
            raise self.open_error(error) from error
        with self._changed:
            self._connection = connection
            self._changed.notify_all()

    @contextmanager
    def reopening(self) -> Iterator[None]:
        """While the file is closed to be opened again, `cursor` waits for that."""
        with self._changed:
            self._reopening = True
        try:
            yield
        finally:
            with self._changed:
                self._reopening = False
                self._changed.notify_all()

    def _connect(self, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        """Opens the file, with more memory for a moment where its write-ahead log takes that to be replayed."""
        if self.wal_bytes > SMALL_LOG:
            self.demand.replayed()
        limit = self.memory.bytes
        while True:
            try:
                connection = duckdb.connect(str(self.path), config={**config, "memory_limit": f"{limit}B"})
                break
            except duckdb.Error as error:
                if not is_out_of_memory(error) or limit >= self.memory.recovery_bytes:
                    raise
                limit = min(limit * 2, self.memory.recovery_bytes)
        try:
            connection.execute(_NO_PARTING_CHECKPOINT)
            if limit > self.memory.bytes:
                log.warning(
                    "replica.replayed",
                    database=self._name,
                    limit=str(self.memory),
                    taken=f"{limit / 1e6:.0f} MB",
                )
                connection.execute("CHECKPOINT")
                self.demand.written()
            self.memory.grow(_remembered(connection))
            for statement in _LOCK_UP:
                connection.execute(statement)
            self.grant.opened(connection, limit)
        except BaseException:
            connection.close()  # or the error, while somebody keeps it, keeps the file open
            raise
        return connection

    def open_error(self, error: duckdb.Error) -> ReplicaError:
        """The error of ours for one that DuckDB raised while opening the file."""
        text = str(error)
        if "could not set lock" in text.lower() or "conflicting lock" in text.lower():
            found = re.search(r"PID (\d+)", text)
            holder = f"process {found.group(1)}" if found else "another process"
            return ReplicaLockedError(
                f"{holder} has {self.path} open", hint="only one process can open the file: end the other one"
            )
        if is_out_of_memory(error):
            return ReplicaFileError(
                f"opening {self.path} needs more memory than DUCKDB_MEMORY_LIMIT allows",
                hint="raise DUCKDB_MEMORY_LIMIT; the write-ahead log is replayed in memory",
            )
        if "permission denied" in text.lower() or "cannot open file" in text.lower():
            return ReplicaFileError(
                f"{self.path} can't be opened: {first_line(text)}",
                hint="set DUCKDB_PATH to a file that this account may write to",
            )
        return ReplicaFileError(
            f"{self.path} is not a DuckDB file that this version can open: {first_line(text)}",
            hint="keep the file, set DUCKDB_PATH to a new one, and see which version wrote it",
        )

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the open database, for one thread; the caller closes it.

        Raises ReplicaError where it is not open; where it is being opened again, only after five seconds.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._connection is not None or not self._reopening, _REOPEN_SECONDS
            )
            if self._connection is None:
                raise ReplicaError(f"{self.path} is not open", hint="the service is starting or stopping")
            try:
                cursor = self._connection.cursor()
            except duckdb.Error as error:
                raise translate(error) from error
            self._cursors.add(cursor)
            return cursor

    def make_room(
        self,
        cursor: duckdb.DuckDBPyConnection,
        lost: Mapping[str, int],
        *,
        tables: int = 1,
        size: int = 0,
        look: bool = False,
    ) -> None:
        """As `MemoryDemand.changed`, and DuckDB gets what that comes to. For the writer's thread."""
        self.demand.changed(cursor, lost, tables=tables, size=size, look=look)
        self.grant.adjust(upwards=True)

    def checkpoint(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Writes the write-ahead log into the file. For the writer's thread. Raises duckdb.Error."""
        with self.grant.lent(self.demand.of_checkpoint(cursor)):
            cursor.execute("CHECKPOINT")
            self.demand.written()

    def read(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """What `work` reads, all of one moment: a table may be dropped between two statements.

        Where what is written fills all memory, reading has some beside it.
        """
        try:
            return self._read(work)
        except ReplicaError as error:
            if error.code != OUT_OF_MEMORY:
                raise
        with self.grant.lent(_READ_BYTES):
            return self._read(work)

    def _read(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        cursor = self.cursor()
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            return work(cursor)
        except duckdb.Error as error:  # the file is being opened again, say
            raise translate(error) from error
        finally:
            cursor.close()

    def close(self, *, checkpoint: bool = True) -> None:
        """Closes the file, interrupting what its cursors still do. May be called twice.

        Without `checkpoint` what is in memory is given up; what is committed stands in the write-ahead log.
        Raises ReplicaError where a query can't be interrupted within two seconds.
        """
        with self._changed:
            connection, self._connection = self._connection or self._unclosed, None
            cursors = list(self._cursors)
        if connection is None:
            return
        if checkpoint:
            try:
                self.checkpoint(connection)
            except duckdb.Error as error:  # the log is replayed when the file is opened
                log.warning("replica.checkpoint_put_off", database=self._name, error=translate(error).message)
        self.grant.closing()
        pause = threading.Event()
        for _ in range(_CLOSE_TRIES):
            try:
                connection.close()
            except duckdb.ResourceInUseException:
                for cursor in cursors:
                    with suppress(duckdb.Error):  # closed by its owner meanwhile
                        cursor.interrupt()
                pause.wait(_CLOSE_PAUSE)
            else:
                self._unclosed = None
                return
        self._unclosed = connection
        raise ReplicaError(
            f"{self.path} could not be closed: a query does not end",
            hint="nothing that was committed is lost",
        )

    def held_bytes(self, cursor: duckdb.DuckDBPyConnection) -> int:
        """Memory that DuckDB can't let go of before a checkpoint: what was met in indexes, and new rows."""
        found = cursor.execute(
            "SELECT coalesce(sum(memory_usage_bytes), 0) FROM duckdb_memory()"
            " WHERE tag IN ('ART_INDEX', 'IN_MEMORY_TABLE', 'TRANSACTION')"
        ).fetchall()
        return int(found[0][0])

    @property
    def file_bytes(self) -> int:
        """Size of the file; 0 where there is none."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def wal_bytes(self) -> int:
        """Size of the write-ahead log beside the file; 0 where there is none."""
        wal = self.path.with_name(self.path.name + ".wal")
        try:
            return wal.stat().st_size
        except FileNotFoundError:
            return 0


def _remembered(connection: duckdb.DuckDBPyConnection) -> int:
    """The memory that this file needed before; 1 where none is noted."""
    noted = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = '_duckling' AND table_name = 'meta'"
    ).fetchall()
    if not noted:
        return 1
    found = connection.execute("SELECT value FROM _duckling.meta WHERE name = ?", [MEMORY_NOTE]).fetchall()
    return int(found[0][0]) if found else 1
