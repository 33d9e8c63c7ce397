"""One transaction of half a million rows: whole or not at all, and in bounded memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cdc.sandbox.databases import Database
from cdc.sandbox.service import Service
from tests.replica import assert_equal, opened
from tests.waiting import wait_until

pytestmark = [pytest.mark.timeout(120), pytest.mark.crossed]

ROWS = {"mysql": 500_000, "mariadb": 500_000 if os.environ.get("FAULTS") == "all" else 200_000}
MEMORY = 600 << 20
"""Bytes that the service may have in memory at its peak."""

DIGITS = " CROSS JOIN ".join(f"digits d{place}" for place in range(1, 6))
NUMBER = " + ".join(f"d{place}.n * {10 ** (place - 1)}" for place in range(1, 6))


def peak_memory(pid: int) -> int:
    """The most bytes that a process had in memory so far (VmHWM, proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


@contextmanager
def watched(service: Service, sql: str) -> Iterator[set[tuple[object, ...]]]:
    """All different first rows that `sql` gave meanwhile, asked without a pause."""
    seen: set[tuple[object, ...]] = set()
    ended = threading.Event()
    client = service.client()

    def watch() -> None:
        while not ended.is_set():
            seen.add(tuple(service.query(sql, client=client)[0].values()))

    thread = threading.Thread(target=watch, name="watcher")
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
        client.close()


def test_a_transaction_of_half_a_million_rows_appears_whole_and_memory_is_bounded(
    database: Database, service_factory: Callable[..., Service]
) -> None:
    rows = ROWS[database.flavor]
    database.execute(
        "CREATE TABLE digits (n INT PRIMARY KEY)",
        "INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
        "CREATE TABLE big (id INT PRIMARY KEY, n BIGINT, name VARCHAR(40), at DATETIME(3))",
        "CREATE TABLE witness (id INT PRIMARY KEY, n BIGINT)",
        "INSERT INTO witness VALUES (1, 0)",
    )
    service = service_factory(database.url).start()
    wait_until(lambda: service.get("/cdc/status")["status"]["isRunning"], "the stream is connected")
    states = (
        "SELECT (SELECT count(*) FROM big) AS r, (SELECT sum(n) FROM big) AS s, (SELECT n FROM witness) AS w"
    )
    row = "CONCAT('row number ', %s), '2024-01-02 03:04:05.678'"
    with watched(service, states) as seen:
        database.execute(
            "BEGIN",
            *(
                f"INSERT INTO big SELECT {part}00000 + {NUMBER}, 1, {row % NUMBER} FROM {DIGITS}"
                for part in range(rows // 100_000)
            ),
            f"UPDATE witness SET n = {rows}",
            "COMMIT",
        )
        service.post("/sync/incremental")
    assert seen <= {(0, None, "0"), (rows, str(rows), str(rows))} | {(0, None, 0), (rows, rows, rows)}

    with watched(service, states) as seen:
        database.execute(
            "BEGIN",
            "UPDATE big SET n = 2",
            f"UPDATE witness SET n = {2 * rows}",
            "COMMIT",
        )
        service.post("/sync/incremental")
    whole = {(rows, str(n * rows), str(n * rows)) for n in (1, 2)}
    assert {(int(str(r)), str(s), str(w)) for r, s, w in seen} <= whole

    assert peak_memory(service.pid) < MEMORY
    assert service.stop() == 0
    with opened(service.duckdb_path) as copy:
        assert_equal(database.url, copy)
