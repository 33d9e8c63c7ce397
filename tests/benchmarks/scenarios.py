"""The work that is measured, done by `duckling serve` in a process of its own and by a peer in another.

The source, the service and the peer share the machine. While the service or the peer catches up or copies,
the source does nothing else, and neither do we: the request that waits for the end is one that blocks.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cdc.errors import ReplicaError
from cdc.sandbox.databases import Database, create_database, session
from cdc.sandbox.probe import percentile
from cdc.sandbox.servers import Server
from cdc.sandbox.service import Service, check_healthy
from tests.benchmarks import backlog, foreign, peers
from tests.benchmarks.backlog import TABLE
from tests.benchmarks.figures import Figure
from tests.benchmarks.memory import peak_megabytes

MEMORY_GOAL = 350.0
UNINDEXED = ", without DuckDB's index of the key"
_COPY_WAIT = 60.0
_PAUSE = 0.05
"""Seconds between two single inserts."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how it is measured. `settings` are those of the service that are not the defaults.

    Without `foreign`, peers that have to be installed are left out.
    """

    server: Server
    folder: Path
    repeat: int
    settings: dict[str, str]
    say: Callable[[str], None]
    foreign: bool = True
    samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Single measurements, for the plots."""

    def service(self, database: Database, **settings: object) -> Service:
        """A service of its own folder for `database`."""
        folder = self.folder / database.name
        folder.mkdir(exist_ok=True)
        return Service(database.url, folder, **{**settings, **self.settings})


@contextmanager
def test_database(bench: Bench) -> Iterator[Database]:
    """A new database with the empty test table."""
    database = create_database(bench.server)
    try:
        backlog.create_table(database)
        yield database
    finally:
        database.drop()
        shutil.rmtree(bench.folder / database.name, ignore_errors=True)


def catch_up(
    bench: Bench,
    name: str,
    unit: str,
    goal: float | None,
    rows: int,
    write: Callable[[Database, int], None],
    *,
    before: Callable[[Database, int], None] | None = None,
) -> list[Figure]:
    """A backlog that `write` leaves while the service is down, behind a copy of what `before` wrote."""
    rate = Figure(name, unit, goal, peers.STREAM)
    others = Figure(name, unit, None, foreign.RIVET, runs=rate.runs)
    java = Figure(name, unit, None, foreign.DEBEZIUM, runs=rate.runs)
    memory = Figure(f"peak memory, {name}", "MB", MEMORY_GOAL, peers.STREAM, less_is_better=True)
    with test_database(bench) as database:
        if before is not None:
            before(database, rows)
        folder = bench.folder / database.name
        folder.mkdir(exist_ok=True)
        theirs_too = bench.foreign and database.flavor == "mysql"
        rivet = foreign.Rivet(database, folder) if theirs_too else None
        debezium = foreign.Debezium(database, folder) if theirs_too else None
        with bench.service(database) as service:
            service.start()
            wait_for_copy(service)
            service.stop()
        saved = service.duckdb_path.with_name("before.db")
        service.duckdb_path.rename(saved)
        backlog.begin_file(database)
        write(database, rows)
        part = backlog.stretch(database)
        bench.say(f"{name}: {rows:,} rows in {part.end / 1e6:.1f} MB of binary log")
        for _ in range(bench.repeat):
            remove_file(service.duckdb_path)
            shutil.copyfile(saved, service.duckdb_path)
            seconds, peak = _catch_up_once(bench, database, rows)
            rate.runs.append(rows / seconds)
            memory.runs.append(peak)
            seconds, peak = peers.in_own_process(
                peers.decode, database.url, database.flavor == "mariadb", part, rows
            )
            rate.peer_runs.append(rows / seconds)
            memory.peer_runs.append(peak)
            if rivet is not None:
                others.peer_runs.append(rows / rivet.drain(rows))
            if debezium is not None:
                seconds, _ = debezium.drain(part.file, rows)
                java.peer_runs.append(rows / seconds)
            theirs = ", ".join(
                f"{each.peer_runs[-1]:,.0f}" for each in (rate, others, java) if each.peer_runs
            )
            bench.say(f"  {rate.runs[-1]:,.0f} {unit}, the peers {theirs}")
    return [rate, memory] if rivet is None else [rate, others, java, memory]


def _catch_up_once(bench: Bench, database: Database, rows: int) -> tuple[float, float]:
    with bench.service(database, cdc_enabled=False) as service:
        service.start()
        began = time.perf_counter()
        service.post("/cdc/start")
        wait_for_source(service)
        seconds = time.perf_counter() - began
        applied = service.get("/cdc/status")["status"]
        seen = applied["insertsProcessed"] + applied["updatesProcessed"]
        [count] = service.query(f"SELECT count(*) AS rows FROM {TABLE}")
        if seen != rows or int(count["rows"]) != rows:
            raise RuntimeError(f"the service applied {seen} rows and holds {count['rows']}, not {rows}")
        peak = peak_megabytes(service.pid)
        service.stop()
        return seconds, peak


def wait_for_source(service: Service) -> None:
    """Returns when all is applied that the source has. Asks again until the stream is connected."""
    deadline = time.monotonic() + 10
    while True:
        try:
            service.post("/sync/incremental")
        except ReplicaError:
            check_healthy([], service.get("/cdc/status")["status"])
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
        else:
            return


def wait_for_copy(service: Service, timeout: float = _COPY_WAIT) -> None:
    """Returns when the test table streams. Raises TimeoutError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while [table["state"] for table in service.get("/sync/status")["tables"]] != ["streaming"]:
        if time.monotonic() > deadline:
            raise TimeoutError("the service did not copy the test table")
        time.sleep(0.02)


def remove_file(path: Path) -> None:
    """Removes a DuckDB file with its write-ahead log."""
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".wal").unlink(missing_ok=True)


def copy(bench: Bench, name: str, goal: float, rows: int, *, unindexed: bool = False) -> list[Figure]:
    """A full copy into a new file, from the request until the tables are live.

    An `unindexed` one is set beside those peers that build no key either.
    """
    name += UNINDEXED if unindexed else ""
    settings = {"unindexed_tables": "*"} if unindexed else {}
    rate = Figure(name, "rows/s", goal, "" if unindexed else peers.COPY)
    foreigners = {
        Figure(name, "rows/s", None, foreign.EXTENSION, runs=rate.runs): foreign.copy_by_extension,
        Figure(name, "rows/s", None, foreign.DLT, runs=rate.runs): foreign.copy_by_dlt,
    }
    if not bench.foreign:
        foreigners = {}
    memory = Figure(f"peak memory, {name}", "MB", MEMORY_GOAL, rate.peer, less_is_better=True)
    with test_database(bench) as database:
        backlog.insert_many(database, rows)
        bench.say(f"{name}: {rows:,} rows")
        for _ in range(bench.repeat):
            seconds, peak = _copy_once(bench, database, rows, **settings)
            rate.runs.append(rows / seconds)
            memory.runs.append(peak)
            if rate.peer:
                limit = bench.settings.get("duckdb_memory_limit", "256MB")
                seconds, peak = peers.in_own_process(peers.copy, database.url, str(bench.folder), limit)
                rate.peer_runs.append(rows / seconds)
                memory.peer_runs.append(peak)
            for figure, copy_by in foreigners.items():
                figure.peer_runs.append(rows / copy_by(database, bench.folder)[0])
            peer_rates = [each.peer_runs[-1] for each in (rate, *foreigners) if each.peer_runs]
            theirs = ", ".join(f"{each:,.0f}" for each in peer_rates)
            bench.say(f"  {rate.runs[-1]:,.0f} rows/s, the peers {theirs}")
    return [*([] if unindexed and foreigners else [rate]), *foreigners, memory]


def _copy_once(bench: Bench, database: Database, rows: int, **settings: object) -> tuple[float, float]:
    with bench.service(database, auto_start_sync=False, **settings) as service:
        service.start()
        began = time.perf_counter()
        service.post("/sync/full")
        seconds = time.perf_counter() - began
        [count] = service.query(f"SELECT count(*) AS rows FROM {TABLE}")
        if int(count["rows"]) != rows:
            raise RuntimeError(f"the copy holds {count['rows']} rows, not {rows}")
        peak = peak_megabytes(service.pid)
        service.stop()
        remove_file(service.duckdb_path)
        return seconds, peak


def freshness(bench: Bench, samples: int) -> list[Figure]:
    """Single inserts on an idle source: from its answer to the query on the copy that shows the row."""
    figures = [
        Figure(f"freshness of a single insert, p{percent}", "ms", goal, peers.FOLLOW, less_is_better=True)
        for percent, goal in ((50, 15.0), (95, 30.0))
    ]
    with (
        test_database(bench) as database,
        bench.service(database) as service,
        session(database.url) as connection,
        connection.cursor() as cursor,
        closing(service.client()) as client,
    ):

        def insert(number: int) -> float:
            cursor.execute(
                f"INSERT INTO {TABLE} VALUES (%s, 'customer', 12.34, NULL, NOW(6), 1, 0.5, 1)", (number,)
            )
            return time.perf_counter()

        def seen(number: int) -> float:
            committed = insert(number)
            sql = f"SELECT count(*) AS rows FROM {TABLE} WHERE id = {number}"
            while not int(service.query(sql, client=client)[0]["rows"]):
                if time.perf_counter() - committed > 10:
                    raise TimeoutError("the copy did not show the row within ten seconds")
            return (time.perf_counter() - committed) * 1000

        service.start()
        wait_for_copy(service)
        numbers = itertools.count(1)
        bench.say(f"freshness: {samples} single inserts, {_PAUSE * 1000:.0f} ms apart")
        for run in range(bench.repeat):
            ours = [seen(number) for number in _paced(numbers, samples)]
            # One after the other: on two cores both would be measured at the same work in the same moment.
            service.post("/cdc/stop")
            end = partial(insert, -run)
            with peers.following(database, bench.folder / database.name, end) as follower:
                theirs = []
                for number in _paced(numbers, samples + 1):
                    committed = insert(number)
                    theirs.append((follower.committed(number) - committed) * 1000)
                del theirs[0]  # it has yet to connect
            service.post("/cdc/start")
            wait_for_source(service)
            bench.samples["freshness"].extend(ours)
            for figure, percent in zip(figures, (50, 95), strict=True):
                figure.runs.append(percentile(sorted(ours), percent))
                figure.peer_runs.append(percentile(sorted(theirs), percent))
            bench.say(
                f"  p50 {figures[0].runs[-1]:.1f} ms, p95 {figures[1].runs[-1]:.1f} ms;"
                f" the peer {figures[0].peer_runs[-1]:.1f} and {figures[1].peer_runs[-1]:.1f}"
            )
        service.stop()
    return figures


def _paced(numbers: Iterator[int], count: int) -> Iterator[int]:
    """The next `count` numbers, each `_PAUSE` behind the caller's work with the one before."""
    for number in itertools.islice(numbers, count):
        time.sleep(_PAUSE)
        yield number
