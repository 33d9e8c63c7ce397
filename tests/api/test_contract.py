"""What the manual of the interface promises, row by row, through a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.endpoints import ENDPOINTS
from cdc.sandbox.databases import Database
from tests.api.conftest import WAIT, replicated
from tests.api.test_sync import done
from tests.waiting import wait_until

SYNC = {
    "totalTables",
    "successfulTables",
    "failedTables",
    "totalRecords",
    "totalDuration",
    "errors",
    "syncDetails",
}
STREAM = {
    "isRunning",
    "mode",
    "state",
    "connectedAt",
    "lastEventAt",
    "lagSeconds",
    "lagBytes",
    "eventsProcessed",
    "insertsProcessed",
    "updatesProcessed",
    "deletesProcessed",
    "transactionsProcessed",
    "errors",
    "lastError",
    "queueSize",
    "currentPosition",
    "sourcePosition",
}
DATABASE = {
    "id",
    "name",
    "mysqlConnectionString",
    "duckdbPath",
    "includedTables",
    "excludedTables",
    "cdcEnabled",
    "syncIntervalMinutes",
}


@pytest.fixture
def shop(mysql_database: Database) -> Database:
    mysql_database.execute(
        "CREATE TABLE orders (id INT PRIMARY KEY, note VARCHAR(50))",
        "INSERT INTO orders VALUES (1, 'one'), (2, 'two')",
    )
    return mysql_database


@pytest.fixture
def client(shop: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    with replicated(shop.url, tmp_path, auto_start_sync=True) as (client, pipeline):
        pipeline.wait_streaming(WAIT)
        yield client


ROWS: tuple[tuple[str, str, Any, set[str]], ...] = (
    ("POST", "/sync/full", None, SYNC),
    ("POST", "/sync/incremental", None, SYNC),
    ("POST", "/sync/table/orders", None, {"table", "recordsProcessed", "duration", "status", "syncType"}),
    (
        "POST",
        "/sync/table/orders?mode=full",
        None,
        {"table", "recordsProcessed", "duration", "status", "syncType"},
    ),
    (
        "GET",
        "/sync/status",
        None,
        {
            "isRunning",
            "watermarks",
            "recentLogs",
            "tables",
            "tablesProcessed",
            "totalRecords",
            "successCount",
            "errorCount",
        },
    ),
    ("GET", "/sync/progress", None, {"isRunning", "tables"}),
    ("GET", "/sync/runs", None, {"runs"}),
    (
        "GET",
        "/sync/validate",
        None,
        {
            "mode",
            "position",
            "totalTables",
            "matchingTables",
            "mismatchedTables",
            "mismatches",
            "accuracy",
            "results",
            "duration",
        },
    ),
    ("POST", "/cdc/start", None, {"success", "message"}),
    ("GET", "/cdc/status", None, {"success", "enabled", "status"}),
    (
        "POST",
        "/query",
        {"sql": "SELECT 1 AS one"},
        {"success", "columns", "result", "rowCount", "truncated", "duration"},
    ),
    ("GET", "/tables", None, {"tables"}),
    ("GET", "/tables/orders/schema", None, {"table", "columns", "history"}),
    ("GET", "/tables/orders/count", None, {"table", "count"}),
    ("GET", "/tables/orders/data?limit=1", None, {"data", "nextCursor", "columns", "rowCount"}),
    ("GET", "/tables/counts/all", None, {"counts"}),
    (
        "POST",
        "/validation/table-details",
        {"tableName": "orders"},
        {"duckdb", "mysql", "columnsMatch", "missingColumns", "extraColumns", "errorType", "errorMessage"},
    ),
    ("GET", "/databases", None, {"databases"}),
    ("GET", "/databases/default", None, DATABASE),
    ("POST", "/databases/default/test", None, {"success", "findings"}),
    ("GET", "/livez", None, {"status"}),
    ("GET", "/readyz", None, {"status"}),
    ("GET", "/health", None, {"status", "databases"}),
    ("GET", "/status", None, {"databases"}),
    ("GET", "/openapi.json", None, {"openapi", "paths"}),
    ("POST", "/cdc/stop", None, {"success", "message"}),
    ("DELETE", "/sync/clear-all", None, {"success", "message", "tablesDropped"}),
    ("DELETE", "/storage/clear-all", None, {"success", "message", "tablesDropped"}),
)


def test_every_row_answers_its_fields_with_and_without_the_prefix(client: httpx.Client) -> None:
    for prefix in ("", "/api"):
        for method, path, body, fields in ROWS:
            answer = (
                client.request(method, prefix + path, json=body)
                if body
                else client.request(method, prefix + path)
            )
            assert set(done(answer)) >= fields, path
        assert client.post(f"{prefix}/sync/full").status_code == 200
        assert client.post(f"{prefix}/cdc/start").status_code == 200


def test_every_row_takes_the_database_in_its_query(client: httpx.Client) -> None:
    here = {"default", "nobody"}
    for endpoint in ENDPOINTS:
        if not any(each.name == "db" for each in endpoint.query):
            continue
        path = endpoint.path.replace("{table:path}", "orders").replace("{run}", "none")
        for name in here - {"default"}:
            answer = client.request(endpoint.method, path, params={"db": name}, json={"sql": "SELECT 1"})
            assert done(answer, 404)["code"] == "DATABASE_NOT_FOUND", path
    assert done(client.get("/tables", params={"db": "default"}))["tables"] == ["orders"]
    assert done(client.get("/tables?db=default&db=nobody"), 400)["code"] == "MALFORMED"


def test_a_method_that_a_path_does_not_take_is_405_and_told_which_it_does(client: httpx.Client) -> None:
    for endpoint in ENDPOINTS:
        allowed = {each.method for each in ENDPOINTS if each.path == endpoint.path}
        path = endpoint.path.replace("{table:path}", "orders").replace("{", "").replace("}", "")
        answer = client.request("PATCH", path)
        assert done(answer, 405)["code"] == "METHOD_NOT_ALLOWED"
        assert set(answer.headers["Allow"].replace(" ", "").split(",")) - {"HEAD"} == allowed


def test_the_details_of_the_stream_are_all_there(client: httpx.Client) -> None:
    told = done(client.get("/cdc/status"))["status"]
    assert set(told) >= STREAM
    for place in ("currentPosition", "sourcePosition"):
        assert set(told[place]) >= {"gtid", "filename", "position", "timestamp"}


def test_a_second_sync_is_409_with_a_hint(client: httpx.Client, shop: Database) -> None:
    with shop.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES orders WRITE")
        first = done(client.post("/sync/full", params={"wait": "false"}), 202)
        for path in ("/sync/full", "/sync/table/orders?mode=full"):
            body = done(client.post(path), 409)
            assert set(body) >= {"status", "title", "error", "code", "hint"}
            assert (body["status"], body["code"]) == (409, "SYNC_ALREADY_RUNNING")
        assert done(client.delete("/sync/clear-all"), 409)["code"] == "SYNC_ALREADY_RUNNING"
        progress = done(client.get("/sync/progress"))
        assert (progress["isRunning"], progress["run"]["id"]) == (True, first["runId"])
        cursor.execute("UNLOCK TABLES")
    wait_until(lambda: done(client.get(first["location"]))["done"], "the sync has ended")


@pytest.mark.parametrize(("method", "suffix"), [("DELETE", ""), ("POST", "/cancel")])
def test_a_run_can_be_cancelled_and_is_recorded_so(
    client: httpx.Client, shop: Database, method: str, suffix: str
) -> None:
    with shop.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES orders WRITE")
        run = done(client.post("/sync/full", params={"wait": "false"}), 202)
        with ThreadPoolExecutor(1) as pool:
            cancelled = pool.submit(client.request, method, f"/sync/runs/{run['runId']}{suffix}")
            assert done(cancelled.result())["runId"] == run["runId"]
            wait_until(lambda: done(client.get(run["location"]))["done"], "the run has ended")
        cursor.execute("UNLOCK TABLES")
    ended = done(client.get(run["location"]))
    assert ended["error"]["code"] == "SYNC_CANCELLED"
    # a cancelled run stays as it is, and the copy is whole
    assert done(client.request(method, f"/sync/runs/{run['runId']}{suffix}")) == ended
    recorded = {each["runId"]: each for each in done(client.get("/sync/runs"))["runs"]}
    assert recorded[run["runId"]]["status"] == "cancelled"
    assert done(client.get("/tables/orders/count"))["count"] == 2
    assert done(client.request(method, f"/sync/runs/none{suffix}"), 404)["code"] == "RUN_NOT_FOUND"


def test_the_runs_are_listed_newest_first(client: httpx.Client) -> None:
    done(client.post("/sync/full"))
    done(client.post("/sync/incremental"))
    listed = done(client.get("/sync/runs", params={"limit": 2}))["runs"]
    assert [each["kind"] for each in listed] == ["incremental", "full"]
    assert {each["status"] for each in listed} == {"success"}
    assert [each["automatic"] for each in listed] == [False, False]
    assert done(client.get("/sync/runs", params={"limit": 0}), 400)["code"] == "MALFORMED"


def test_a_post_may_come_with_an_empty_body_or_none(client: httpx.Client) -> None:
    for path in ("/sync/incremental", "/cdc/start"):
        for content in (None, b"", b"{}"):
            assert client.post(path, content=content).status_code == 200
