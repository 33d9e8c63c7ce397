"""What goes on for long: a live load, an idle source, scattered updates of tables that grow."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from cdc.sandbox.databases import Database, session
from cdc.sandbox.probe import percentile
from cdc.sandbox.service import Service
from tests.benchmarks import backlog
from tests.benchmarks.backlog import TABLE
from tests.benchmarks.figures import Figure
from tests.benchmarks.memory import peak_megabytes
from tests.benchmarks.scenarios import (
    MEMORY_GOAL,
    UNINDEXED,
    Bench,
    remove_file,
    test_database,
    wait_for_copy,
    wait_for_source,
)

_TICK = 0.02
"""Seconds between two bursts of the load."""
_BURST = """
CREATE PROCEDURE burst(IN first BIGINT, IN many INT, IN size BIGINT)
BEGIN
    DECLARE at BIGINT DEFAULT first;
    DECLARE chosen BIGINT;
    WHILE at < first + many DO
        IF size = 0 THEN
            INSERT INTO {table} VALUES (at, 'customer', 12.34, NULL, NOW(6), 1, 0.5, 1);
        ELSE
            SET chosen = 1 + FLOOR(RAND() * size);
            UPDATE {table} SET amt = amt + 1, n = n + 1 WHERE id = chosen;
        END IF;
        SET at = at + 1;
    END WHILE;
END
"""
_STATEMENT_UPDATES = 1_000


class Load:
    """Single-row transactions at `rate` a second: inserts, or with `size` updates scattered over that many rows."""

    def __init__(self, database: Database, rate: int, *, first: int, size: int = 0) -> None:
        self._database = database
        self._each = max(1, round(rate * _TICK))
        self._first = first
        self._size = size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._began = 0.0
        self.transactions = 0
        with session(database.url) as connection, connection.cursor() as cursor:
            cursor.execute("DROP PROCEDURE IF EXISTS burst")
            cursor.execute(_BURST.format(table=TABLE))

    def _run(self) -> None:
        with session(self._database.url) as connection, connection.cursor() as cursor:
            due = time.perf_counter()
            while not self._stop.is_set():
                cursor.execute(f"CALL burst({self._first + self.transactions}, {self._each}, {self._size})")
                self.transactions += self._each
                due += _TICK
                self._stop.wait(max(0.0, due - time.perf_counter()))

    @property
    def rate(self) -> float:
        """Transactions a second since the start: what the source really took."""
        return self.transactions / (time.perf_counter() - self._began)

    def __enter__(self) -> Load:
        self._began = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _freshness(database: Database, service: Service, samples: int, first: int) -> list[float]:
    """Milliseconds from the answer to an INSERT until a query on the copy shows the row, for each sample."""
    lags = []
    with (
        session(database.url) as connection,
        connection.cursor() as cursor,
        closing(service.client()) as client,
    ):
        for number in range(first, first + samples):
            time.sleep(0.05)
            cursor.execute(
                f"INSERT INTO {TABLE} VALUES (%s, 'customer', 12.34, NULL, NOW(6), 1, 0.5, 1)", (number,)
            )
            committed = time.perf_counter()
            sql = f"SELECT count(*) AS rows FROM {TABLE} WHERE id = {number}"
            while not int(service.query(sql, client=client)[0]["rows"]):
                if time.perf_counter() - committed > 30:
                    raise TimeoutError("the copy did not show the row within thirty seconds")
                time.sleep(0.002)
            lags.append((time.perf_counter() - committed) * 1000)
    return lags


def under_load(bench: Bench, rate: int, samples: int) -> list[Figure]:
    """Freshness while the source takes single-row inserts all the time."""
    name = f"freshness under {rate:,} transactions/s"
    figures = [Figure(f"{name}, p50", "ms", None, less_is_better=True)]
    figures += [Figure(f"{name}, p95", "ms", 200.0, less_is_better=True)]
    with test_database(bench) as database, bench.service(database) as service:
        service.start()
        wait_for_copy(service)
        bench.say(f"{name}: {samples} probe rows")
        for run in range(bench.repeat):
            with Load(database, rate, first=(run + 1) * 10_000_000) as load:
                lags = sorted(_freshness(database, service, samples, 1 + run * samples))
                reached = load.rate
            _take(figures, lags)
            bench.say(
                f"  p50 {figures[0].runs[-1]:.0f} ms, p95 {figures[1].runs[-1]:.0f} ms at {reached:,.0f}/s"
            )
            if reached < 0.9 * rate:
                bench.say("  the source did not reach the rate: the figure is for what it reached")
            wait_for_source(service)
        service.stop()
    return figures


def _take(figures: list[Figure], lags: list[float]) -> None:
    for figure, percent in zip(figures, (50, 95), strict=True):
        figure.runs.append(percentile(lags, percent))


def idle(bench: Bench, seconds: float) -> list[Figure]:
    """The processor time of a service whose source has nothing to say."""
    figure = Figure("processor time while idle", "% of a core", 2.0, less_is_better=True)
    with test_database(bench) as database, bench.service(database) as service:
        service.start()
        wait_for_copy(service)
        wait_for_source(service)
        bench.say(f"idle: {seconds:.0f} s")
        for _ in range(bench.repeat):
            before, began = _processor_seconds(service.pid), time.perf_counter()
            time.sleep(seconds)
            used = _processor_seconds(service.pid) - before
            figure.runs.append(100 * used / (time.perf_counter() - began))
            bench.say(f"  {figure.runs[-1]:.2f} %")
        service.stop()
    return [figure]


def _processor_seconds(pid: int) -> float:
    """User and system time of a process (proc(5), stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scattered_unindexed(bench: Bench, size: int, updates: int) -> list[Figure]:
    """The same backlog as that of `scattered`, on a copy whose key has no index in DuckDB."""
    figures: list[Figure] = []
    with test_database(bench) as database:
        bench.say(f"scattered updates over {size:,} rows{UNINDEXED}")
        backlog.insert_many(database, size)
        _scattered(bench, database, size, updates, figures, unindexed=True)
    return figures


def scattered(bench: Bench, sizes: list[int], updates: int, rate: int, samples: int) -> list[Figure]:
    """Updates by key, scattered over tables of several sizes, the smallest first.

    A backlog of them is applied, checkpoints included; on all but the smallest, freshness is measured under
    `rate` of them a second. What the size costs is the last rate over the first.
    """
    figures: list[Figure] = []
    rates: list[Figure] = []
    for size in sizes:
        with test_database(bench) as database:
            bench.say(f"scattered updates over {size:,} rows")
            backlog.insert_many(database, size)
            rates.append(_scattered(bench, database, size, updates, figures))
            bench.samples["scattered"] += [size, rates[-1].value]
            if size != sizes[0]:
                figures += _live(bench, database, size, rate, samples)
    growth = Figure(
        f"rate at {sizes[-1]:,} rows over that at {sizes[0]:,}, scattered updates", "×", 0.5,
        runs=[last / first for last, first in zip(rates[-1].runs, rates[0].runs, strict=True)],
    )  # fmt: skip
    return [*figures, growth]


def _scattered(
    bench: Bench,
    database: Database,
    size: int,
    updates: int,
    figures: list[Figure],
    *,
    unindexed: bool = False,
) -> Figure:
    kind = UNINDEXED if unindexed else ""
    settings = {"unindexed_tables": "*"} if unindexed else {}
    rate = Figure(f"scattered updates over {size:,} rows{kind}", "rows/s", 40_000.0)
    memory = Figure(f"peak memory, {rate.name}", "MB", MEMORY_GOAL, less_is_better=True)
    start = Figure(f"start with {size:,} rows, until the API answers{kind}", "s", 1.0, less_is_better=True)
    figures += [rate, memory, start]
    with bench.service(database, **settings) as service:
        service.start()
        wait_for_copy(service, 1_200.0)
        service.stop()
    saved = service.duckdb_path.with_name("before.db")
    service.duckdb_path.rename(saved)
    _update_scattered(database, size, updates)
    for _ in range(bench.repeat):
        remove_file(service.duckdb_path)
        shutil.copyfile(saved, service.duckdb_path)
        with bench.service(database, cdc_enabled=False, **settings) as service:
            began = time.perf_counter()
            service.start()
            start.runs.append(time.perf_counter() - began)
            began = time.perf_counter()
            service.post("/cdc/start")
            wait_for_source(service)
            seconds = time.perf_counter() - began
            seen = service.get("/cdc/status")["status"]["updatesProcessed"]
            if seen != updates:
                raise RuntimeError(f"the service applied {seen} updates, not {updates}")
            memory.runs.append(peak_megabytes(service.pid))
            service.stop()
        rate.runs.append(updates / seconds)
        bench.say(f"  {rate.runs[-1]:,.0f} rows/s for {seconds:.1f} s, start {start.runs[-1]:.2f} s")
    return rate


def _update_scattered(database: Database, size: int, updates: int) -> None:
    """`updates` updates of different rows within each transaction of 1,000, chosen at random."""
    chance = random.Random(size)
    with session(database.url) as connection, connection.cursor() as cursor:
        for first in range(0, updates, _STATEMENT_UPDATES):
            many = min(_STATEMENT_UPDATES, updates - first)
            keys = ", ".join(map(str, chance.sample(range(1, size + 1), many)))
            cursor.execute(f"UPDATE {TABLE} SET amt = amt + 1, n = n + 1 WHERE id IN ({keys})")


def _live(bench: Bench, database: Database, size: int, rate: int, samples: int) -> list[Figure]:
    name = f"freshness under {rate:,} scattered updates/s over {size:,} rows"
    figures = [Figure(f"{name}, p50", "ms", None, less_is_better=True)]
    figures += [Figure(f"{name}, p95", "ms", 1_000.0, less_is_better=True)]
    with bench.service(database) as service:
        service.start()
        wait_for_source(service)
        for run in range(bench.repeat):
            with Load(database, rate, first=0, size=size) as load:
                lags = sorted(_freshness(database, service, samples, 2 * size + run * samples))
                reached = load.rate
            _take(figures, lags)
            bench.say(
                f"  p50 {figures[0].runs[-1]:.0f} ms, p95 {figures[1].runs[-1]:.0f} ms at {reached:,.0f}/s"
            )
            wait_for_source(service)
        service.stop()
    return figures


def batch_sizes(bench: Bench, sizes: list[int], rows: int) -> list[Figure]:
    """Rows a second of a backlog of many-row events, by the most rows of a batch: for the plot alone."""
    with _replicated(bench, rows) as (database, restore):
        for size in sizes:
            restore()
            with bench.service(database, cdc_enabled=False, batch_size=size) as service:
                service.start()
                began = time.perf_counter()
                service.post("/cdc/start")
                wait_for_source(service)
                rate = rows / (time.perf_counter() - began)
                service.stop()
            bench.samples["batches"] += [size, rate]
            bench.say(f"  batches of {size:,}: {rate:,.0f} rows/s")
    return []


@contextmanager
def _replicated(bench: Bench, rows: int) -> Iterator[tuple[Database, Callable[[], None]]]:
    """A database with a backlog of `rows` inserts, and what puts its empty copy back in place."""
    with test_database(bench) as database:
        with bench.service(database) as service:
            service.start()
            wait_for_copy(service)
            service.stop()
        saved = service.duckdb_path.with_name("before.db")
        service.duckdb_path.rename(saved)
        backlog.insert_many(database, rows)

        def restore() -> None:
            remove_file(service.duckdb_path)
            shutil.copyfile(saved, service.duckdb_path)

        yield database, restore
