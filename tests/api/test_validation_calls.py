"""Validation through a socket: what is told, what is repaired, and who ends it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cdc.pipeline import Pipeline
from cdc.sandbox.databases import Database
from tests.api.conftest import KEY, WAIT, replicated
from tests.api.test_sync import done
from tests.waiting import wait_until


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute(
        "CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(50), paid DECIMAL(12,2))",
        "CREATE TABLE visits (page VARCHAR(50))",
        "INSERT INTO customers VALUES (1, 'Ann', 10.50), (2, 'Bob', NULL), (3, 'Cy', 0)",
        "INSERT INTO visits VALUES ('/home'), ('/home')",
    )
    return database


@pytest.fixture
def service(shop: Database, tmp_path: Path) -> Iterator[tuple[httpx.Client, Pipeline]]:
    """A service that has copied the shop and streams."""
    with replicated(shop.url, tmp_path) as (client, pipeline):
        done(client.post("/sync/full"))
        pipeline.wait_streaming(WAIT)
        yield client, pipeline


def spoil(pipeline: Pipeline, sql: str) -> None:
    pipeline._engine.writer.submit(lambda cursor: cursor.execute(sql)).result()


def test_equal_contents_are_said_to_be_equal(service: tuple[httpx.Client, Pipeline]) -> None:
    body = done(service[0].get("/sync/validate", params={"mode": "checksum"}))
    assert (body["mode"], body["totalTables"], body["matchingTables"]) == ("checksum", 2, 2)
    assert (body["mismatches"], body["accuracy"], body["atOnePosition"]) == ([], 100.0, True)
    assert body["position"]["filename"]


def test_rows_that_differ_are_named_and_repaired_on_request(service: tuple[httpx.Client, Pipeline]) -> None:
    client, pipeline = service
    spoil(pipeline, "UPDATE customers SET paid = 10.51 WHERE id = 1")
    spoil(pipeline, "DELETE FROM customers WHERE id = 3")
    assert done(client.get("/sync/validate"))["mismatches"][0]["difference"] == 1
    body = done(client.get("/api/sync/validate?mode=checksum&table=customers&repair=true"))
    [found] = body["mismatches"]
    assert found == {
        "table": "customers",
        "mysqlCount": 3,
        "duckdbCount": 2,
        "difference": 1,
        "matches": False,
        "missing": 1,
        "extra": 0,
        "changed": 1,
        "complete": True,
        "firstDifferences": [
            {"kind": "changed", "key": {"id": "1"}},
            {"kind": "missing", "key": {"id": "3"}},
        ],
        "repair": {"rows": 2, "copiedAgain": False},
    }
    assert (body["mismatchedTables"], body["accuracy"]) == (1, 0.0)
    again = done(client.get("/sync/validate?mode=checksum"))
    assert again["accuracy"] == 100.0
    log = done(client.get("/sync/status"))["recentLogs"][0]
    assert (log["table"], log["syncType"], log["recordsProcessed"]) == ("customers", "repair", 2)
    assert (
        'duckling_rows_repaired_total{database="default",table="customers"} 2.0'
        in client.get("/metrics").text
    )


def test_a_validation_that_is_not_waited_for_tells_where_to_look(
    service: tuple[httpx.Client, Pipeline],
) -> None:
    client, _ = service
    answer = client.get("/api/sync/validate?mode=checksum&wait=false&db=default")
    body = done(answer, 202)
    location = answer.headers["Location"]
    assert location == body["location"] == f"/api/sync/validations/{body['runId']}?db=default"
    run = done(client.get(location))
    while not run["done"]:
        run = done(client.get(location))
    assert run["result"]["accuracy"] == 100.0
    assert {table["table"]: table["state"] for table in run["tables"]} == {
        "customers": "done",
        "visits": "done",
    }
    assert done(client.delete(location))["message"] == "the validation had ended"
    assert done(client.get("/sync/validations/missing"), 404)["code"] == "RUN_NOT_FOUND"


def test_a_repair_by_counts_is_refused(service: tuple[httpx.Client, Pipeline]) -> None:
    assert done(service[0].get("/sync/validate?repair=true"), 422)["code"] == "REPAIR_NEEDS_CHECKSUM"
    assert done(service[0].get("/sync/validate?repair=perhaps"), 400)["code"] == "MALFORMED"


def test_a_client_that_hangs_up_ends_its_validation(
    service: tuple[httpx.Client, Pipeline], shop: Database
) -> None:
    client, pipeline = service
    with shop.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES customers WRITE, visits WRITE")
        address = (str(client.base_url.host), int(client.base_url.port or 0))
        with socket.create_connection(address) as asking:
            asking.sendall(
                b"GET /sync/validate?mode=checksum HTTP/1.1\r\nHost: duckling\r\n"
                b"Authorization: Bearer " + KEY.encode() + b"\r\n\r\n"
            )
            wait_until(lambda: pipeline._validations._comparing is not None, "the validation begins")
        run = pipeline._validations._comparing
        assert run is not None
        wait_until(lambda: run.done, "the validation has ended")
        assert run.cancelled
        second = done(client.get("/sync/validate?mode=checksum&wait=false"), 202)
        cancelled = done(client.delete(second["location"]))
        assert cancelled["message"] == "the validation is cancelled"
        body = wait_until(lambda: _ended(client, second["location"]), "it has ended")
        assert body["error"]["code"] == "SYNC_CANCELLED"
        cursor.execute("UNLOCK TABLES")
    assert done(client.get("/sync/validate?mode=checksum"))["accuracy"] == 100.0


def _ended(client: httpx.Client, location: str) -> dict[str, dict[str, object]]:
    body = done(client.get(location))
    return body if body["done"] else {}


def test_details_show_a_table_on_both_sides(service: tuple[httpx.Client, Pipeline]) -> None:
    client, pipeline = service
    body = done(client.post("/api/validation/table-details", json={"tableName": "customers"}))
    side = {
        "exists": True,
        "columnCount": 3,
        "recordCount": 3,
        "columns": ["id", "name", "paid"],
        "maxId": 3,
        "checksum": body["mysql"]["checksum"],
    }
    assert body == {
        "duckdb": side,
        "mysql": side,
        "columnsMatch": True,
        "missingColumns": [],
        "extraColumns": [],
        "errorType": None,
        "errorMessage": None,
    }
    assert int(side["checksum"]) > 0
    spoil(pipeline, "UPDATE customers SET name = 'Anne' WHERE id = 1")
    asked = {"tableName": "customers", "skipMySQLCount": True}
    body = done(client.post("/validation/table-details", json=asked))
    assert body["duckdb"]["checksum"] != side["checksum"]
    assert (body["mysql"]["recordCount"], body["mysql"]["checksum"]) == (None, None)
    body = done(client.post("/validation/table-details", json={"tableName": "nowhere"}))
    assert (body["duckdb"]["exists"], body["mysql"]["exists"]) == (False, False)
    assert done(client.post("/validation/table-details", json={"table": "x"}), 400)["code"] == "MALFORMED"
