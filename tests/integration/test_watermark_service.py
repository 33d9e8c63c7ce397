"""Watermark sync of a whole service: what its answers say, and what is left of it after SIGKILL."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable

import pytest

from cdc.errors import ReplicaError
from cdc.sandbox.databases import Database
from cdc.sandbox.service import Service
from tests.replica import assert_equal, opened
from tests.waiting import wait_until

pytestmark = [pytest.mark.timeout(150), pytest.mark.crossed]

STAMP = "TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)"
KILLS = 3
ROWS = 4_000


def test_the_answers_tell_of_watermarks_of_the_mode_and_of_what_is_not_seen(
    database: Database, service_factory: Callable[..., Service]
) -> None:
    database.execute(
        f"CREATE TABLE items (id INT PRIMARY KEY, note VARCHAR(9), updatedAt {STAMP}, KEY (updatedAt))",
        "CREATE TABLE visits (id INT AUTO_INCREMENT PRIMARY KEY, page VARCHAR(9))",
        "CREATE TABLE pairs (a INT, b INT)",
        "INSERT INTO items VALUES (1, 'a', '2024-01-01 00:00:00.125'), (2, 'b', '2024-01-02')",
        "INSERT INTO visits (page) VALUES ('home')",
        "INSERT INTO pairs VALUES (1, 1)",
    )
    service = service_factory(database.url, cdc_enabled=False, auto_start_sync=False).start()
    first = service.post("/sync/incremental")
    assert (first["deletesSeen"], first["newRowsOnly"], first["totalRecords"]) == (True, [], 4)
    database.execute("INSERT INTO visits (page) VALUES ('cart')", "DELETE FROM items WHERE id = 2")
    again = service.post("/sync/incremental")
    assert (again["deletesSeen"], again["newRowsOnly"], again["errors"]) == (False, ["visits"], [])
    assert again["syncDetails"] == {"snapshots": 0, "microBatches": 1, "appendOperations": 1}
    told = service.get("/cdc/status")["status"]
    assert (told["mode"], told["modeReason"], told["state"], told["isRunning"]) == (
        "polling",
        "CDC_ENABLED is false",
        "polling",
        False,
    )
    status = service.get("/sync/status")
    assert {table["table"]: table["state"] for table in status["tables"]} == {
        "items": "polling",
        "pairs": "polling",
        "visits": "polling",
    }
    marks = {each.pop("table"): each for each in status["watermarks"]}
    assert all(each.pop("updatedAt") for each in marks.values())
    assert marks == {
        "items": {
            "lastProcessedId": None,
            "lastProcessedTimestamp": "2024-01-02T00:00:00.000000",
            "timestampColumn": "updatedAt",
            "primaryKeyColumn": "id",
        },
        "visits": {
            "lastProcessedId": "2",
            "lastProcessedTimestamp": None,
            "timestampColumn": None,
            "primaryKeyColumn": "id",
        },
        "pairs": {
            "lastProcessedId": None,
            "lastProcessedTimestamp": None,
            "timestampColumn": None,
            "primaryKeyColumn": None,
        },
    }
    assert service.get("/readyz")["status"] == "ready"
    one = service.post("/sync/table/items")
    assert (one["syncType"], one["deletesSeen"]) == ("micro-batch", False)
    whole = service.post("/sync/table/items?mode=full")
    assert (whole["syncType"], whole["recordsProcessed"]) == ("snapshot", 1)
    assert service.stop() == 0
    with opened(service.duckdb_path) as copy:
        assert_equal(database.url, copy)


def test_a_service_that_is_killed_within_a_sync_loses_nothing_and_doubles_nothing(
    database: Database, service_factory: Callable[..., Service]
) -> None:
    seed = int(os.environ.get("DUCKLING_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"DUCKLING_TEST_SEED={seed}")
    moments = random.Random(seed)
    rows = ", ".join(f"({i}, 0, '2024-01-01')" for i in range(ROWS))
    database.execute(
        f"CREATE TABLE items (id INT PRIMARY KEY, n INT, updated_at {STAMP}, KEY (updated_at))",
        "CREATE TABLE events (id INT AUTO_INCREMENT PRIMARY KEY, n INT)",
        f"INSERT INTO items VALUES {rows}",
        "INSERT INTO events (n) VALUES (0)",
    )
    service = service_factory(
        database.url, cdc_enabled=False, auto_start_sync=False, copy_batch_rows=50, batch_size=50
    ).start()
    service.post("/sync/incremental")
    for round_ in range(1, KILLS + 1):
        database.execute(
            f"UPDATE items SET n = {round_}",
            f"INSERT INTO events (n) SELECT {round_} FROM items LIMIT 500",
        )
        moment = moments.randrange(1, ROWS)
        asking = threading.Thread(target=_ask, args=(service,))
        asking.start()
        wait_until(
            lambda: done_rows(service) >= moment or not asking.is_alive(),  # noqa: B023
            f"{moment} rows are read",
        )
        service.kill()
        asking.join()
        service.start()  # it goes on by itself
    wait_until(lambda: synced(service), "a sync that was asked for has ended")
    assert service.stop() == 0
    with opened(service.duckdb_path) as copy:
        assert_equal(database.url, copy)


def _ask(service: Service) -> None:
    """Asks for a sync, unless one runs already; that no answer comes is the purpose."""
    with service.client() as client:
        try:
            service._ask(client, "POST", "/sync/incremental")
        except ReplicaError as error:
            print(error.message)


def synced(service: Service) -> bool:
    """Carries out a sync; False where the one of the start still runs."""
    try:
        service.post("/sync/incremental")
    except ReplicaError as error:
        if "a sync of this database is running" not in error.message:
            raise
        return False
    return True


def done_rows(service: Service) -> int:
    progress = service.get("/sync/progress")
    return sum(table["rowsDone"] for table in progress["tables"])
