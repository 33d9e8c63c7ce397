"""Watermark syncs measured: a database that changes little, and one large table, each against its full copy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from cdc.sandbox.databases import Database, create_database, session
from cdc.sandbox.service import Service
from tests.benchmarks.figures import Figure
from tests.benchmarks.scenarios import Bench

FULL = "POST /sync/full of the same database"
_STATEMENT_ROWS = 10_000
_TABLES = 100
_TOUCHED = 10
"""Tables of the hundred in which the changed rows are."""
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


def _sync(service: Service, kind: str, records: int) -> float:
    """Milliseconds of a sync, from the request to its answer. Raises RuntimeError for another number of rows."""
    began = time.perf_counter()
    done = service.post(f"/sync/{kind}")
    milliseconds = (time.perf_counter() - began) * 1000
    if done["totalRecords"] != records or done["errors"]:
        raise RuntimeError(f"the sync read {done['totalRecords']} rows, not {records}: {done['errors']}")
    return milliseconds


def _measure(
    bench: Bench, *, tables: int, rows: int, touched: int, changed: int
) -> Iterator[tuple[float, float]]:
    """Milliseconds of a full sync and of incremental ones behind it, for each run."""
    with _filled(bench, tables, rows) as database:
        for _ in range(bench.repeat):
            _calm(database, touched)
            with bench.service(database, cdc_enabled=False, auto_start_sync=False) as service:
                service.start()
                full = _sync(service, "full", tables * rows)
                _sync(service, "incremental", 0)
                _touch(database, touched, rows, changed)
                yield full, _sync(service, "incremental", touched * changed)
                service.stop()
                service.duckdb_path.unlink()


def few_changes(bench: Bench, part: int) -> list[Figure]:
    """A hundred tables, 5,000,000 rows, one in ten thousand of them changed, in ten of the tables."""
    rows = 50_000 // part
    changed = max(1, _TABLES * rows // 10_000 // _TOUCHED)
    name = f"incremental sync of {_TABLES} tables, {_TABLES * rows:,} rows, 0.01 % of them changed"
    figure = Figure(name, "ms", None, FULL, less_is_better=True)
    speed = Figure(f"{name}: times faster than the full sync", "times", _RATIO_GOAL, "the full sync")
    bench.say(name)
    for full, poll in _measure(bench, tables=_TABLES, rows=rows, touched=_TOUCHED, changed=changed):
        figure.runs.append(poll)
        figure.peer_runs.append(full)
        speed.runs.append(full / poll)
        speed.peer_runs.append(1.0)
        bench.say(f"  {poll:.1f} ms, the full sync {full:,.0f} ms: {full / poll:.0f} times faster")
    return [figure, speed]


def one_large_table(bench: Bench, part: int) -> list[Figure]:
    """1,000 of 1,000,000 rows changed, with an index on the timestamp."""
    rows = 1_000_000 // part
    changed = 1_000 // part
    name = f"incremental sync, {changed:,} of {rows:,} rows changed"
    figure = Figure(name, "ms", _POLL_GOAL, FULL, less_is_better=True)
    bench.say(name)
    for full, poll in _measure(bench, tables=1, rows=rows, touched=1, changed=changed):
        figure.runs.append(poll)
        figure.peer_runs.append(full)
        bench.say(f"  {poll:.1f} ms, the full sync {full:,.0f} ms")
    return [figure]
