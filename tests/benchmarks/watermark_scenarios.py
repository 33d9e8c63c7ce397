"""Incremental syncs measured, by the log and by watermarks, each against the full copy of the same database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from statistics import median

from cdc.sandbox.databases import Database, create_database, session
from cdc.sandbox.service import Service
from tests.benchmarks.figures import Figure
from tests.benchmarks.scenarios import Bench

FULL = "POST /sync/full of the same database"
_STATEMENT_ROWS = 10_000
_TABLES = 100
_SPREADS = (1, 10, 100)
"""Numbers of tables in which the changed rows are."""
_SYNCS = 7
"""Incremental syncs behind each full one, of which the median counts: the first ones meet a cold file."""
_RATIO_GOAL = 650.0
_POLL_GOAL = 40.0

_DEFINITION = """
CREATE TABLE {name} (
    id BIGINT NOT NULL PRIMARY KEY,
    name VARCHAR(60) NOT NULL,
    amt DECIMAL(12,2) NOT NULL,
    note VARCHAR(200),
    n INT NOT NULL,
    updated_at TIMESTAMP(6) NOT NULL,
    KEY (updated_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
"""
_VALUES = (
    "i, CONCAT('customer ', i), (i * 37 % 1000003) / 100, IF(i % 10 = 0, NULL, 'a note of some length'),"
    " i * 7 % 100000, TIMESTAMP('2024-01-01') + INTERVAL i SECOND"
)


@contextmanager
def _filled(bench: Bench, tables: int, rows: int) -> Iterator[Database]:
    """A database of `tables` tables of `rows` rows each, none of them stamped lately."""
    database = create_database(bench.server)
    try:
        with session(database.url) as connection, connection.cursor() as cursor:
            if database.flavor == "mysql":
                cursor.execute(f"SET SESSION cte_max_recursion_depth = {_STATEMENT_ROWS}")
            for number in range(tables):
                cursor.execute(_DEFINITION.format(name=f"t{number}"))
                for first in range(1, rows + 1, _STATEMENT_ROWS):
                    last = min(first + _STATEMENT_ROWS - 1, rows)
                    cursor.execute(
                        f"INSERT INTO t{number} WITH RECURSIVE s (i) AS (SELECT {first} UNION ALL"
                        f" SELECT i + 1 FROM s WHERE i < {last}) SELECT {_VALUES} FROM s"
                    )
        yield database
    finally:
        database.drop()


def _touch(database: Database, tables: int, rows: int, changed: int) -> None:
    """Changes `changed` rows of each of the first `tables` tables, spread over the table."""
    step = rows // changed
    with session(database.url) as connection, connection.cursor() as cursor:
        for number in range(tables):
            cursor.execute(
                f"UPDATE t{number} SET n = n + 1, updated_at = UTC_TIMESTAMP(6) WHERE id % {step} = 0"
                f" AND id <= {step * changed}"
            )


def _calm(database: Database, tables: int) -> None:
    """No row of the first `tables` tables is stamped lately."""
    with session(database.url) as connection, connection.cursor() as cursor:
        for number in range(tables):
            cursor.execute(
                f"UPDATE t{number} SET updated_at = TIMESTAMP('2024-01-01') + INTERVAL id SECOND"
                " WHERE updated_at > '2025-01-01'"
            )


def _sync(service: Service, kind: str) -> tuple[float, int]:
    """Milliseconds of a sync, from the request to its answer, and the rows that it read."""
    began = time.perf_counter()
    done = service.post(f"/sync/{kind}")
    milliseconds = (time.perf_counter() - began) * 1000
    if done["errors"]:
        raise RuntimeError(f"the sync failed: {done['errors']}")
    return milliseconds, done["totalRecords"]


def _check(service: Service, database: Database, touched: int) -> None:
    """Raises RuntimeError unless the copy has all that `_touch` did."""
    for number in range(touched):
        sql = f"SELECT count(*) AS counted, sum(n) AS total, max(updated_at) AS newest FROM t{number}"
        with session(database.url) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            count, total, newest = cursor.fetchall()[0]
            there = [count, int(total), newest]
        [found] = service.query(sql)
        here = [int(found["counted"]), int(found["total"]), datetime.fromisoformat(found["newest"])]
        if here != there:
            raise RuntimeError(f"t{number} is {here} in the copy and {there} at the source")


def _measure(
    bench: Bench, *, tables: int, rows: int, spreads: Sequence[int], changed: int, streaming: bool
) -> Iterator[tuple[float, dict[int, float]]]:
    """Milliseconds of a full sync, and of an incremental one behind `changed` rows spread over each number of
    tables of `spreads`, for each run."""
    with _filled(bench, tables, rows) as database:
        for _ in range(bench.repeat):
            _calm(database, max(spreads))
            with bench.service(database, cdc_enabled=streaming, auto_start_sync=False) as service:
                service.start()
                full, copied = _sync(service, "full")
                if copied != tables * rows:
                    raise RuntimeError(f"the full sync read {copied} rows, not {tables * rows}")
                _sync(service, "incremental")
                figures = {}
                for spread in spreads:
                    found = []
                    for _ in range(_SYNCS):
                        _touch(database, spread, rows, max(1, changed // spread))
                        found.append(_sync(service, "incremental")[0])
                        _check(service, database, spread)
                    figures[spread] = median(found)
                yield full, figures
                service.stop()
                service.duckdb_path.unlink()


def few_changes(bench: Bench, part: int) -> list[Figure]:
    """A hundred tables, 5,000,000 rows, one in ten thousand of them changed: in one, ten or all of the tables."""
    rows = 50_000 // part
    tables = _TABLES if part == 1 else _TABLES // 10
    spreads = [each for each in _SPREADS if each <= tables]
    changed = max(spreads[-1], tables * rows // 10_000)
    figures: list[Figure] = []
    for streaming, way in ((True, "by the log"), (False, "by watermark")):
        name = f"incremental sync {way}, 500 of 5,000,000 rows in 100 tables changed"
        found: dict[int, tuple[Figure, Figure]] = {}
        for spread in spreads:
            where = f"{name}, in {spread} of them"
            goal = _RATIO_GOAL if spread == 1 else None
            speed = Figure(f"{where}: times faster than the full sync", "times", goal, "the full sync")
            found[spread] = (Figure(where, "ms", None, FULL, less_is_better=True), speed)
        bench.say(name)
        for full, polls in _measure(
            bench, tables=tables, rows=rows, spreads=spreads, changed=changed, streaming=streaming
        ):
            for spread, poll in polls.items():
                figure, speed = found[spread]
                figure.runs.append(poll)
                figure.peer_runs.append(full)
                speed.runs.append(full / poll)
                speed.peer_runs.append(1.0)
                bench.say(
                    f"  in {spread}: {poll:.1f} ms, the full sync {full:,.0f} ms: {full / poll:.0f} times"
                )
        figures += [each for pair in found.values() for each in pair]
    return figures


def overlap(bench: Bench, part: int) -> list[Figure]:
    """What WATERMARK_OVERLAP_SECONDS costs: a sync with nothing new, of a table that changed all the while.

    The rows of the last 300 s are read and put again until they are settled: 3,000 at 10 changes a second.
    """
    figures: list[Figure] = []
    bench.say("incremental sync that reads the overlap of 300 s again")
    with _filled(bench, 1, 400_000 // part) as database:
        for rate in (0, 10, 100, 1_000) if part == 1 else (1_000,):
            name = f"incremental sync by watermark, nothing new, {rate:,} changes/s in the last 300 s"
            figure = Figure(name, "ms", None, "", less_is_better=True)
            with bench.service(database, cdc_enabled=False, auto_start_sync=False) as service:
                service.start()
                _calm(database, 1)
                _sync(service, "full")
                if rate:
                    _touch(database, 1, 400_000 // part, rate * 300 // part)
                _sync(service, "incremental")
                for _ in range(bench.repeat):
                    figure.runs.append(_sync(service, "incremental")[0])
                service.stop()
                service.duckdb_path.unlink()
            bench.say(f"  {rate:,} changes/s: {median(figure.runs):.1f} ms")
            figures.append(figure)
    return figures


def one_large_table(bench: Bench, part: int) -> list[Figure]:
    """1,000 of 1,000,000 rows changed, with an index on the timestamp."""
    rows = 1_000_000 // part
    changed = 1_000 // part
    figures: list[Figure] = []
    for streaming, way in ((False, "by watermark"), (True, "by the log")):
        name = f"incremental sync {way}, {changed:,} of {rows:,} rows changed"
        figure = Figure(name, "ms", _POLL_GOAL, FULL, less_is_better=True)
        bench.say(name)
        for full, polls in _measure(
            bench, tables=1, rows=rows, spreads=(1,), changed=changed, streaming=streaming
        ):
            figure.runs.append(polls[1])
            figure.peer_runs.append(full)
            bench.say(f"  {polls[1]:.1f} ms, the full sync {full:,.0f} ms")
        figures.append(figure)
    return figures
