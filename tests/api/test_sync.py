"""Copies, incremental syncs, validation, clearing and the stream, on real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.access import MAX_BODY_BYTES
from cdc.sandbox.databases import Database
from tests.api.conftest import WAIT, replicated


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute(
        "CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(50), born DATE, paid DECIMAL(12,2))",
        "CREATE TABLE visits (page VARCHAR(50), at TIMESTAMP(6) NULL)",
        "INSERT INTO customers VALUES (1, 'Ann', '1990-01-02', 10.50), (2, 'Bob', NULL, NULL)",
        "INSERT INTO visits VALUES ('/home', '2024-02-29 01:02:03.5'), ('/home', '2024-02-29 01:02:03.5')",
    )
    return database


@pytest.fixture
def client(shop: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    """A service that has copied the shop and streams."""
    with replicated(shop.url, tmp_path) as (client, pipeline):
        done(client.post("/sync/full"))
        pipeline.wait_streaming(WAIT)
        yield client


def done(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert answer.status_code == status, body
    return body


def rows(client: httpx.Client, sql: str) -> list[list[Any]]:
    body = done(client.post("/query", json={"sql": sql}))
    return [list(row.values()) for row in body["result"]]


def test_a_full_sync_answers_when_every_table_is_copied(shop: Database, tmp_path: Path) -> None:
    with replicated(shop.url, tmp_path) as (client, _):
        body = done(client.post("/sync/full"))
        assert (body["totalTables"], body["successfulTables"], body["failedTables"]) == (2, 2, 0)
        assert body["totalRecords"] == 4
        assert isinstance(body["totalDuration"], int)
        assert body["errors"] == []
        assert set(body["syncDetails"]) == {"snapshots", "microBatches", "appendOperations"}
        assert rows(client, "SELECT id, name FROM customers ORDER BY id") == [[1, "Ann"], [2, "Bob"]]


def test_an_incremental_sync_answers_when_all_is_applied_that_was_committed_before(
    client: httpx.Client, shop: Database
) -> None:
    for number in range(3, 8):
        shop.execute(f"INSERT INTO customers VALUES ({number}, 'new', NULL, 0)")
        done(client.post("/api/sync/incremental"))
        assert rows(client, "SELECT max(id) FROM customers") == [[number]]


def test_one_table_is_copied_again_alone(client: httpx.Client) -> None:
    body = done(client.post("/sync/table/visits", params={"mode": "full"}))
    assert body["table"] == "visits"
    assert body["recordsProcessed"] == 2
    assert (body["status"], body["syncType"]) == ("success", "snapshot")
    assert isinstance(body["duration"], int)
    assert rows(client, "SELECT count(*) FROM visits") == [[2]]


def test_the_answer_is_of_the_table_that_was_asked_for_also_where_others_are_copied_with_it(
    database: Database, tmp_path: Path
) -> None:
    database.execute(
        "CREATE TABLE authors (id INT PRIMARY KEY)",
        "CREATE TABLE books (id INT PRIMARY KEY, author INT,"
        " FOREIGN KEY (author) REFERENCES authors (id) ON DELETE CASCADE)",
        "INSERT INTO authors VALUES (1)",
        "INSERT INTO books VALUES (1, 1), (2, 1)",
    )
    with replicated(database.url, tmp_path) as (client, pipeline):
        done(client.post("/sync/full"))
        pipeline.wait_streaming(WAIT)
        body = done(client.post("/sync/table/books", params={"mode": "full"}))
        assert (body["table"], body["recordsProcessed"]) == ("books", 2)


def test_a_table_that_does_not_exist_is_404(client: httpx.Client) -> None:
    for method, path in (
        ("POST", "/sync/table/missing"),
        ("GET", "/tables/missing/count"),
        ("GET", "/tables/missing/schema"),
        ("GET", "/sync/validate?table=missing"),
    ):
        assert done(client.request(method, path), 404)["code"] == "TABLE_NOT_FOUND"


def test_a_sync_that_is_not_waited_for_tells_where_to_look(client: httpx.Client) -> None:
    answer = client.post("/api/sync/full", params={"wait": "false", "db": "default"})
    body = done(answer, 202)
    location = answer.headers["Location"]
    assert location == body["location"] == f"/api/sync/runs/{body['runId']}?db=default"
    run = done(client.get(location))
    while not run["done"]:
        run = done(client.get(location))
    assert run["result"]["successfulTables"] == 2
    assert {table["state"] for table in run["tables"]} == {"done"}


def test_a_run_that_does_not_exist_is_404(client: httpx.Client) -> None:
    assert done(client.get("/sync/runs/missing"), 404)["code"] == "RUN_NOT_FOUND"


def test_a_second_sync_while_one_runs_is_409(client: httpx.Client, shop: Database) -> None:
    # A lock on the source holds the first one up, so that it is under way for sure.
    with shop.connect() as blocker, ThreadPoolExecutor(1) as pool, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES customers WRITE, visits WRITE")
        first = done(client.post("/sync/full", params={"wait": "false"}), 202)
        waiting = pool.submit(client.post, "/sync/full")
        second = waiting.result()
        cursor.execute("UNLOCK TABLES")
    body = done(second, 409)
    assert body["code"] == "SYNC_ALREADY_RUNNING"
    assert body["title"] == "Sync already running"
    assert body["hint"]
    run = done(client.get(first["location"]))
    while not run["done"]:
        run = done(client.get(first["location"]))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/sync/full?wait=perhaps"),
        ("POST", "/sync/table/visits?mode=half"),
        ("GET", "/sync/validate?mode=guess"),
    ],
)
def test_an_unknown_word_in_the_query_is_400(client: httpx.Client, method: str, path: str) -> None:
    assert done(client.request(method, path), 400)["code"] == "MALFORMED"


def test_the_status_tells_runs_and_tables(client: httpx.Client) -> None:
    body = done(client.get("/sync/status"))
    assert body["isRunning"] is False
    assert isinstance(body["watermarks"], list)
    assert {table["table"]: table["state"] for table in body["tables"]} == {
        "customers": "streaming",
        "visits": "streaming",
    }
    assert {table["table"]: table["rows"] for table in body["tables"]} == {"customers": 2, "visits": 2}
    logged = body["recentLogs"]
    assert logged
    assert set(logged[0]) == {
        "table",
        "syncType",
        "recordsProcessed",
        "duration",
        "status",
        "error",
        "createdAt",
    }
    created = datetime.fromisoformat(logged[0]["createdAt"])
    assert created.utcoffset() is not None
    assert logged[0]["createdAt"].endswith("Z")
    for name in ("tablesProcessed", "totalRecords", "successCount", "errorCount"):
        assert isinstance(body[name], int)


def test_without_a_run_there_is_no_progress(client: httpx.Client) -> None:
    assert done(client.get("/sync/progress")) == {"isRunning": False, "run": None, "tables": []}


def test_validation_compares_at_one_position(client: httpx.Client) -> None:
    body = done(client.get("/sync/validate"))
    assert body["mode"] == "count"
    assert body["position"]["gtid"] or body["position"]["filename"]
    assert (body["totalTables"], body["matchingTables"], body["mismatchedTables"]) == (2, 2, 0)
    assert body["accuracy"] == 100.0
    assert body["mismatches"] == []
    by_table = {result["table"]: result for result in body["results"]}
    assert by_table["visits"]["mysqlCount"] == by_table["visits"]["duckdbCount"] == 2
    assert by_table["visits"]["difference"] == 0
    assert isinstance(body["duration"], int)


def test_validation_has_no_false_alarm_under_load(client: httpx.Client, shop: Database) -> None:
    over = threading.Event()

    def write() -> None:
        with shop.connect() as connection, connection.cursor() as cursor:
            number = 100
            while not over.is_set():
                cursor.execute("INSERT INTO customers VALUES (%s, 'load', NULL, 0)", (number,))
                number += 1

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(10):
                assert done(client.get("/sync/validate"))["accuracy"] == 100.0
        finally:
            over.set()
        writing.result()


def test_clearing_drops_everything_and_a_full_sync_brings_it_back(client: httpx.Client) -> None:
    body = done(client.delete("/storage/clear-all"))
    assert body["success"] is True
    assert body["tablesDropped"] == 2
    assert done(client.get("/tables"))["tables"] == []
    assert done(client.get("/cdc/status"))["status"]["isRunning"] is False
    assert done(client.post("/sync/full"))["successfulTables"] == 2
    assert rows(client, "SELECT count(*) FROM customers") == [[2]]


def test_the_stream_stops_and_goes_on(client: httpx.Client, shop: Database) -> None:
    assert done(client.post("/cdc/stop"))["success"] is True
    assert done(client.post("/cdc/stop"))["success"] is True
    assert done(client.get("/cdc/status"))["status"]["isRunning"] is False
    shop.execute("DELETE FROM customers WHERE id = 2")
    assert rows(client, "SELECT count(*) FROM customers") == [[2]]
    assert done(client.post("/cdc/start"))["success"] is True
    assert done(client.post("/cdc/start"))["success"] is True
    done(client.post("/sync/incremental"))
    assert rows(client, "SELECT id FROM customers") == [[1]]


def test_the_stream_tells_what_it_does(client: httpx.Client, shop: Database) -> None:
    shop.execute("UPDATE customers SET name = 'Eve' WHERE id = 1", "DELETE FROM customers WHERE id = 2")
    done(client.post("/sync/incremental"))
    body = done(client.get("/cdc/status"))
    assert body["success"] is True
    assert body["enabled"] is True
    told = body["status"]
    assert told["isRunning"] is True
    assert (told["mode"], told["state"]) == ("cdc", "streaming")
    assert told["updatesProcessed"] == 1
    assert told["deletesProcessed"] == 1
    assert told["transactionsProcessed"] >= 2
    assert told["lastError"] is None
    assert datetime.fromisoformat(told["connectedAt"]).utcoffset() is not None
    assert set(told["currentPosition"]) == {"gtid", "filename", "position", "timestamp"}
    assert told["currentPosition"]["filename"]


def test_a_streaming_service_is_ready_and_healthy(client: httpx.Client) -> None:
    done(client.post("/sync/incremental"))
    assert done(client.get("/livez"))["status"] == "alive"
    health = done(client.get("/health"))
    assert health["status"] == "healthy"
    assert health["databases"][0]["id"] == "default"
    overview = done(client.get("/status"))
    assert overview["databases"][0]["state"] == "streaming"


def test_metrics_follow_the_stream(client: httpx.Client, shop: Database) -> None:
    shop.execute("INSERT INTO customers VALUES (3, 'Cy', NULL, 0)")
    done(client.post("/sync/incremental"))
    text = client.get("/metrics").text
    assert 'duckling_rows_applied_total{database="default",operation="insert"} 1.0' in text
    assert 'duckling_rows_applied_total{database="default",operation="copy"} 4.0' in text
    assert 'duckling_tables{database="default",state="streaming"} 2.0' in text
    assert 'duckling_pipeline_state{database="default",state="streaming"} 1.0' in text
    assert "duckling_replica_file_bytes" in text


def test_tables_tell_columns_and_counts(client: httpx.Client) -> None:
    assert sorted(done(client.get("/tables"))["tables"]) == ["customers", "visits"]
    columns = {c["name"]: c for c in done(client.get("/tables/customers/schema"))["columns"]}
    assert list(columns) == ["id", "name", "born", "paid"]
    assert columns["id"]["primaryKey"] is True
    assert columns["paid"]["type"] == "DECIMAL(12,2)"
    assert done(client.get("/tables/CUSTOMERS/count")) == {"table": "customers", "count": 2}
    assert done(client.get("/tables/counts/all"))["counts"] == {"customers": 2, "visits": 2}


def test_a_key_is_told_where_duckdb_has_no_index_of_it(shop: Database, tmp_path: Path) -> None:
    with replicated(shop.url, tmp_path, unindexed_tables="customers") as (client, _):
        done(client.post("/sync/full"))
        columns = done(client.get("/tables/customers/schema"))["columns"]
        assert [(c["name"], c["primaryKey"]) for c in columns if c["primaryKey"]] == [("id", True)]
        page = done(client.get("/tables/customers/data?limit=1"))
        assert [row["id"] for row in page["data"]] == [1]


def test_a_query_answers_columns_and_rows(client: httpx.Client) -> None:
    body = done(
        client.post(
            "/api/query",
            json={"sql": "SELECT id, paid, born FROM customers WHERE id = ?", "params": [1], "maxRows": 10},
        )
    )
    assert body["success"] is True
    assert [column["name"] for column in body["columns"]] == ["id", "paid", "born"]
    assert body["result"] == [{"id": 1, "paid": "10.50", "born": "1990-01-02"}]
    assert (body["rowCount"], body["truncated"]) == (1, False)
    assert isinstance(body["duration"], int)


def test_the_bookkeeping_can_be_read(client: httpx.Client) -> None:
    (position,) = rows(client, "SELECT database_id, filename, position FROM cdc_binlog_position")
    assert position[0] == "default"
    assert rows(client, "SELECT count(*) FROM table_states") == [[2]]
    assert rows(client, "SELECT count(*) > 0 FROM sync_log") == [[True]]
    assert rows(client, "SELECT count(*) FROM appender_watermarks") == [[0]]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM customers",
        "WITH w AS (DELETE FROM customers RETURNING *) SELECT * FROM w",
        "UPDATE _duckling.cdc_binlog_position SET position = 0",
        "SELECT * FROM read_text('/etc/hostname')",
        "COPY customers TO '/tmp/customers.csv'",
        "ATTACH ':memory:' AS other",
        "SELECT 1; SELECT 2",
    ],
)
def test_a_query_only_reads(client: httpx.Client, sql: str) -> None:
    assert done(client.post("/query", json={"sql": sql}), 400)["code"] == "READ_ONLY"
    assert rows(client, "SELECT count(*) FROM customers") == [[2]]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[]", "body"),
        (b"{}", "sql"),
        (b'{"sql": 1}', "sql"),
        (b'{"sql": "SELECT 1", "maxrows": 1}', "maxrows"),
        (b'{"sql": "SELECT 1", "maxRows": 0}', "maxRows"),
        (b'{"sql": "SELECT 1", "timeoutMs": "soon"}', "timeoutMs"),
        (b'{"sql": "SELECT 1", "params": 3}', "params"),
    ],
)
def test_a_body_that_can_not_be_read_is_400(client: httpx.Client, body: bytes, named: str) -> None:
    problem = done(client.post("/query", content=body), 400)
    assert problem["code"] == "MALFORMED"
    assert named in problem["error"]


def test_a_body_that_announces_no_length_is_cut_at_the_limit(client: httpx.Client) -> None:
    chunks = (b" " * 65_536 for _ in range(MAX_BODY_BYTES // 65_536 + 1))
    assert done(client.post("/query", content=chunks), 413)["code"] == "BODY_TOO_LARGE"


def test_a_query_over_its_time_is_422(client: httpx.Client) -> None:
    slow = {"sql": "SELECT sleep_ms(60000)", "timeoutMs": 50}
    assert done(client.post("/query", json=slow), 422)["code"] == "QUERY_TIMEOUT"


def test_probes_answer_while_syncs_are_waited_for(client: httpx.Client, shop: Database) -> None:
    with shop.connect() as blocker, ThreadPoolExecutor(16) as pool, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES customers WRITE, visits WRITE")
        held = [pool.submit(client.post, "/sync/full") for _ in range(16)]
        for path in ("/livez", "/health", "/cdc/status", "/metrics", "/tables"):
            assert client.get(path).status_code in {200, 503}
        cursor.execute("UNLOCK TABLES")
        statuses = sorted(answer.result().status_code for answer in held)
    assert set(statuses) <= {200, 409}
    assert 200 in statuses
