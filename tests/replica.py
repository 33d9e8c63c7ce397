"""A replica under test: a pipeline of this process, and the comparison of both sides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import duckdb

from cdc.config import Settings
from cdc.errors import DucklingError
from cdc.metrics import Metrics
from cdc.pipeline import Pipeline
from cdc.registry import DEFAULT
from cdc.replica.tables import STAGING_PREFIX
from cdc.sandbox.comparison import compare_table
from cdc.sandbox.databases import session
from cdc.status import SyncResult, TableState
from tests.waiting import SECONDS, wait_until


class Replica:
    """A pipeline from `url` into `path`. `start`, `stop`, start again on the same file."""

    def __init__(
        self, url: str, path: Path, *, clock: Callable[[], float] = time.monotonic, **settings: Any
    ) -> None:
        self.url = url
        self.path = path
        self._clock = clock
        self._settings = {
            "mysql_connection_string": url,
            "duckdb_path": path,
            "duckdb_threads": 2,
            "retry_max_seconds": 0.5,
            **settings,
        }
        self._pipeline: Pipeline | None = None

    @property
    def pipeline(self) -> Pipeline:
        """The running pipeline."""
        assert self._pipeline is not None
        return self._pipeline

    def start(self, *, live: bool = True, prepare: Callable[[Pipeline], object] = lambda _: None) -> Self:
        """Starts it, after `prepare` had the pipeline, and with `live` returns when every table streams."""
        settings = Settings(**self._settings)
        self._pipeline = Pipeline(DEFAULT, settings, Metrics().for_database(DEFAULT), clock=self._clock)
        prepare(self._pipeline)
        self.pipeline.check_start()
        self.pipeline.start()
        if live:
            self.wait_live()
        return self

    def stop(self) -> None:
        """Drains it; may be called twice."""
        if self._pipeline is not None:
            self._pipeline.stop()
            self._pipeline = None

    def wait_live(self, timeout: float = SECONDS) -> None:
        """Returns when the stream is connected and all known tables are in it."""
        self.pipeline.wait_streaming(timeout)
        wait_until(self._all_stream, "every table streams", timeout=timeout)

    def _all_stream(self) -> bool:
        status = self.pipeline.status()
        return status.running and all(table.state is TableState.STREAMING for table in status.tables)

    def catch_up(self, timeout: float = SECONDS) -> SyncResult:
        """Returns when all is applied that the source had committed before the call."""
        return self.pipeline.start_incremental_sync().wait(timeout)

    def settle(self, timeout: float = SECONDS) -> None:
        """As `catch_up`, through lost connections and tables that are copied again by themselves."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.wait_live(max(1.0, deadline - time.monotonic()))
                self.catch_up(max(1.0, deadline - time.monotonic()))
            except DucklingError:
                if time.monotonic() > deadline:
                    raise
                continue
            if self._all_stream() and self.pipeline.current_run() is None:
                return

    def copies(self) -> list[str | None]:
        """Tables that were copied, as the log of runs has them, the oldest first."""
        entries = self.pipeline.sync_log(10_000)
        return [entry.table for entry in reversed(entries) if entry.sync_type == "snapshot"]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query on the copy."""
        with closing(self.pipeline.reader()) as cursor:
            return cursor.execute(sql).fetchall()

    def value(self, sql: str) -> Any:
        """The one value of a query on the copy."""
        [[value]] = self.rows(sql)
        return value

    def assert_equal(self, *, without: Sequence[str] = ()) -> int:
        """Asserts that both sides hold the same tables with the same rows; returns the number of rows.

        `without` names tables that the settings exclude. Nobody may write meanwhile, and the replica must
        have caught up.
        """
        with closing(self.pipeline.reader()) as cursor:
            return assert_equal(self.url, cursor, without=without)


def source_tables(url: str) -> set[str]:
    """The names of the source's base tables."""
    with session(url) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'")
        return {str(row[0]) for row in cursor.fetchall()}


def copied_tables(copy: duckdb.DuckDBPyConnection) -> set[str]:
    """The names of the tables in the copy, staging tables among them."""
    rows = copy.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'").fetchall()
    return {str(name) for (name,) in rows}


def staging_tables(copy: duckdb.DuckDBPyConnection) -> set[str]:
    """The names of the copy's staging tables."""
    return {name for name in copied_tables(copy) if name.startswith(STAGING_PREFIX)}


def assert_equal(url: str, copy: duckdb.DuckDBPyConnection, *, without: Sequence[str] = ()) -> int:
    """Asserts that both sides hold the same tables, and every value of every row the same."""
    tables = source_tables(url) - set(without)
    assert copied_tables(copy) == tables
    compared = 0
    with session(url) as source:
        for table in sorted(tables):
            result = compare_table(source, copy, table)
            assert result.equal, result
            compared += result.source_rows
    return compared


@contextmanager
def opened(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The file of a service that does not run, for reading."""
    with duckdb.connect(str(path), read_only=True) as copy:
        yield copy
