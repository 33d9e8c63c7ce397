"""Comparing source and copy: equal contents, and one row that a session kept out of the binary log."""

from __future__ import annotations

import time
from typing import Any

from cdc.sandbox.databases import session
from cdc.sandbox.service import Service
from tests.benchmarks import backlog
from tests.benchmarks.backlog import TABLE
from tests.benchmarks.figures import Figure
from tests.benchmarks.memory import peak_megabytes
from tests.benchmarks.scenarios import Bench, test_database, wait_for_copy

_KINDS = {
    "by count": "mode=count",
    "by checksum, equal": "mode=checksum",
    "by checksum, one row differs": "mode=checksum",
    "by checksum, one row differs, and repair": "mode=checksum&repair=true",
}


def validate(bench: Bench, goal: float, rows: int) -> list[Figure]:
    """From the request until the answer, on a source and a copy that stand still."""
    figures = {
        name: Figure(f"validation {name}, {rows:,} rows", "s", goal, less_is_better=True) for name in _KINDS
    }
    memory = Figure("peak memory, copy and validation", "MB", None, less_is_better=True)
    with test_database(bench) as database, bench.service(database) as service:
        backlog.insert_many(database, rows)
        service.start()
        wait_for_copy(service)
        bench.say(f"validation: {rows:,} rows")
        for attempt in range(bench.repeat):
            for name, figure in figures.items():
                differs = "differs" in name
                if differs and "repair" not in name:  # which finds the same one again, and ends it
                    _change_unseen(database.url, 1 + (attempt * 7919) % rows)
                began = time.perf_counter()
                answer = _ask(service, _KINDS[name])
                figure.runs.append(time.perf_counter() - began)
                _check(answer, differs=differs, rows=rows)
            memory.runs.append(peak_megabytes(service.pid))
            bench.say("  " + ", ".join(f"{name}: {each.runs[-1]:.2f} s" for name, each in figures.items()))
        service.stop()
    return [*figures.values(), memory]


def _change_unseen(url: str, number: int) -> None:
    """One bit of one row, which no replica hears of."""
    with session(url) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute(f"UPDATE {TABLE} SET st = st ^ 1 WHERE id = %s", (number,))


def _ask(service: Service, query: str) -> dict[str, Any]:
    return service.get(f"/sync/validate?{query}")


def _check(answer: dict[str, Any], *, differs: bool, rows: int) -> None:
    [found] = answer["results"]
    if found["mysqlCount"] != rows or found["matches"] == differs or (differs and found["changed"] != 1):
        raise RuntimeError(f"the comparison found {found}")
