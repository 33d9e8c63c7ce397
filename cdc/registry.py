"""The databases of one service, by id: which there are, started, replaced and stopped at run time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from cdc.backoff import Backoff
from cdc.databases import DatabaseDefinition, DatabasesFile
from cdc.errors import ConflictError, DucklingError, NotFoundError, NotPossibleError, StoppedError
from cdc.registered import Registered
from cdc.replica_files import ReplicaFiles

if TYPE_CHECKING:
    from cdc.pipeline import Pipeline

DEFAULT = "default"
STOP_SECONDS = 9.0
_RETRY_SECONDS = 30.0
"""The longest pause between two attempts to start a database whose file could not be opened."""
log = structlog.get_logger(__name__)

Build = Callable[[DatabaseDefinition], "Pipeline"]


class Registry:
    """Databases by id. Reading is safe from any thread; changes are made one after another.

    A database that fails, fails alone: the others start and run. One whose file can't be opened is tried
    again with growing pauses.
    """

    def __init__(
        self,
        pipelines: Iterable[Pipeline] = (),
        *,
        build: Build | None = None,
        file: DatabasesFile | None = None,
        folder: Path | None = None,
        removed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`pipelines` are there from the start and for good. `build` makes those of the databases in `file`,
        whose DuckDB files are all in `folder`; without it none can be added. `removed` is told of each id
        that has gone."""
        self._databases: dict[str, Registered] = {}
        self._build = build
        self._file = file
        self._replica_files = ReplicaFiles(folder or Path(), file.path if file is not None else None)
        self._removed = removed
        self._changing = threading.Lock()
        self._started = False
        self._stopped = False
        self._stopping = threading.Event()
        self._failed = threading.Event()
        """There is a database to try again."""
        self._retries = threading.Thread(target=self._try_again, name="registry", daemon=True)
        for pipeline in pipelines:
            if pipeline.id in self._databases:
                raise ConflictError(f"database {pipeline.id!r} is there already", code="DATABASE_EXISTS")
            definition = DatabaseDefinition.of_settings(pipeline.id, pipeline.settings)
            self._databases[pipeline.id] = Registered(pipeline.id, definition, pipeline, fixed=True)

    def load(self) -> None:
        """Adds the databases that the file keeps, not started yet. Raises ConfigError for the file as a whole."""
        for definition in self._file.load() if self._file else ():
            entry = Registered(definition.id, definition)
            if definition.id in self._databases:
                log.error("database.id_taken", database=definition.id, fix="rename it in the file")
                continue
            self._databases[definition.id] = entry

    def __iter__(self) -> Iterator[Registered]:
        return iter(tuple(self._databases.values()))

    def __len__(self) -> int:
        return len(self._databases)

    def get(self, database: str | None = None) -> Pipeline:
        """The pipeline of `database`, of `default` without a name.

        Raises NotFoundError, and the error that keeps the database from being opened.
        """
        entry = self.entry(database or DEFAULT)
        if entry.error is not None:
            raise entry.error.with_traceback(None)  # else each caller's frames stay with it
        if entry.pipeline is None:
            raise StoppedError("the database is starting", hint="try again in a moment")
        return entry.pipeline

    def entry(self, database: str) -> Registered:
        """The database itself. Raises NotFoundError (DATABASE_NOT_FOUND)."""
        try:
            return self._databases[database]
        except KeyError:
            raise NotFoundError(
                "there is no such database",
                hint=f"known: {', '.join(sorted(self._databases)) or 'none'}",
                code="DATABASE_NOT_FOUND",
            ) from None

    def start(self) -> None:
        """Starts every database; returns at once. Raises the error of a database that is the only one."""
        self._started = True
        for entry in self:
            self._launch(entry)
        if len(self) == 1 and not self._file:
            (entry,) = self
            if entry.error is not None:
                raise entry.error
        self._retries.start()

    # Changes -----------------------------------------------------------------------------------------

    def add(self, definition: DatabaseDefinition) -> Registered:
        """Adds and starts a database; that it can't be started is told by its status.

        Raises ConflictError (DATABASE_EXISTS, DUCKDB_PATH_TAKEN), NotPossibleError, ConfigError.
        """
        with self._changing:
            self._check_changing()
            if definition.id.casefold() in {known.casefold() for known in self._databases}:
                raise ConflictError(
                    "there is a database of that id", hint="PUT changes it", code="DATABASE_EXISTS"
                )
            claimed = self._claimed(definition)
            entry = Registered(claimed.id, claimed)
            self._save({**self._databases, entry.id: entry})
            self._databases = {**self._databases, entry.id: entry}
            log.info("database.added", database=entry.id)
            self._launch(entry)
            return entry

    def replace(self, definition: DatabaseDefinition) -> Registered:
        """Changes a database; it is stopped and started again, unless its name alone is another.

        Raises NotFoundError, ConflictError (DATABASE_FIXED, DUCKDB_PATH_TAKEN), NotPossibleError, ConfigError.
        """
        with self._changing:
            self._check_changing()
            old = self._changeable(definition.id)
            assert old.definition is not None
            claimed = self._claimed(definition.with_password_of(old.definition))
            entry = Registered(
                old.id,
                claimed,
                old.pipeline,
                old.error,
                opened=old.opened and claimed.duckdb_path == old.definition.duckdb_path,
            )
            renamed = claimed.model_copy(update={"name": old.definition.name}) == old.definition
            self._save({**self._databases, entry.id: entry})
            if not renamed:
                entry.pipeline = entry.error = None
            self._databases = {**self._databases, entry.id: entry}
            log.info("database.changed", database=entry.id)
            if not renamed:
                old.close(STOP_SECONDS)
                self._launch(entry)
            return entry

    def remove(self, database: str, *, delete_file: bool = False) -> bool:
        """Stops and forgets a database; says whether its DuckDB file was deleted.

        Only a file that this service had open is deleted. Raises NotFoundError, ConflictError
        (DATABASE_FIXED), NotPossibleError, ConfigError.
        """
        with self._changing:
            self._check_changing()
            entry = self._changeable(database)
            if delete_file and not entry.opened:
                raise NotPossibleError(
                    "the file was never open here, so it may be another's",
                    hint="delete the database without its file, and the file by hand",
                    code="FILE_NOT_OURS",
                )
            left = {name: each for name, each in self._databases.items() if name != database}
            self._save(left)
            self._databases = left
            entry.close(STOP_SECONDS)
            self._removed(database)
            log.info("database.removed", database=database, file_deleted=delete_file)
            if delete_file and entry.definition is not None:
                self._replica_files.delete(entry.definition)
            return delete_file

    def _claimed(self, definition: DatabaseDefinition) -> DatabaseDefinition:
        known = [each.definition for each in self if each.definition is not None]
        return self._replica_files.claimed(definition, known)

    def _check_changing(self) -> None:
        if self._stopped or self._stopping.is_set():
            raise StoppedError("the service is stopping", hint="try again when it is back")
        if self._build is None or self._file is None:
            raise NotPossibleError("this service takes no further databases", code="DATABASES_FIXED")

    def _changeable(self, database: str) -> Registered:
        entry = self.entry(database)
        if entry.fixed:
            raise ConflictError(
                f"database {database!r} is defined by the service's settings",
                hint="change MYSQL_CONNECTION_STRING and the settings beside it, and restart",
                code="DATABASE_FIXED",
            )
        return entry

    def _save(self, databases: dict[str, Registered]) -> None:
        assert self._file is not None
        self._file.save(
            each.definition for each in databases.values() if not each.fixed and each.definition is not None
        )

    # Pipelines ---------------------------------------------------------------------------------------

    def _launch(self, entry: Registered) -> None:
        """Starts a database; one that can't be is tried again."""
        entry.launch(self._built if self._build is not None else None)
        if entry.error is not None:
            self._failed.set()

    def _built(self, entry: Registered) -> Pipeline:
        assert self._build is not None
        assert entry.definition is not None
        if not entry.fixed:
            entry.definition = self._claimed(entry.definition)
        return self._build(entry.definition)

    def _try_again(self) -> None:
        """The thread that starts databases again which could not be opened."""
        backoff = Backoff(_RETRY_SECONDS)
        while not self._stopping.is_set():
            self._failed.wait()
            if self._stopping.wait(backoff.pause()):
                return
            with self._changing:
                failed = [each for each in self if each.error is not None]
                if not failed or self._build is None:
                    self._failed.clear()
                    backoff.reset()
                for entry in failed if self._build is not None else ():
                    if not self._stopping.is_set():
                        self._launch(entry)
                        if entry.error is None:
                            log.info("database.started_again", database=entry.id)

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Drains all pipelines at the same time, within `timeout` seconds; a second call waits for the first.

        Raises DucklingError where one could not, after all of them had their time; the log has the cause.
        """
        self._stopping.set()
        self._failed.set()
        with self._changing:
            if self._stopped:
                return
            failures: list[Exception] = []

            def drain(pipeline: Pipeline) -> None:
                try:
                    pipeline.stop(timeout)
                except Exception as error:
                    log.exception("pipeline.stop_failed", database=pipeline.id)
                    failures.append(error)

            threads = [
                threading.Thread(target=drain, args=(entry.pipeline,), name=f"stop-{entry.id}", daemon=True)
                for entry in self
                if entry.pipeline is not None
            ]
            deadline = time.monotonic() + timeout
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            self._stopped = True
            late = [thread.name for thread in threads if thread.is_alive()]
            if late:
                log.error("pipeline.stop_late", threads=late, seconds=timeout)
            if failures:
                raise DucklingError(
                    "a database could not be stopped cleanly", hint="the log has the cause"
                ) from failures[0]
