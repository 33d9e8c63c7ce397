"""What a supervisor and Prometheus see of a service that works, hangs, or has lost its source."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from cdc.pipeline import Pipeline
from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.servers import Server
from tests.api.conftest import replicated
from tests.waiting import wait_until

TABLE = "CREATE TABLE t (id INT PRIMARY KEY, a INT)"


def probe(client: httpx.Client, path: str) -> tuple[int, dict[str, str]]:
    """Status and reasons of a probe that is asked without a key."""
    answer = client.get(path, headers={"Authorization": ""})
    return answer.status_code, answer.json().get("reasons") or {}


def ready(client: httpx.Client) -> bool:
    return probe(client, "/readyz") == (200, {})


def shown(client: httpx.Client) -> dict[str, float]:
    """`name{label=value,…}` to value, without the label of the database."""
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()) if k != 'database')}}}": (
            sample.value
        )
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }


def test_a_wedged_writer_fails_livez_until_it_gets_on(database: Database, tmp_path: Path) -> None:
    database.execute(TABLE)
    go_on = threading.Event()
    with replicated(database.url, tmp_path, auto_start_sync=True, liveness_seconds=0.2) as (client, pipeline):
        wait_until(lambda: ready(client), "the service is ready")
        assert probe(client, "/livez") == (200, {})
        done = pipeline._engine.writer.submit(lambda _: go_on.wait())
        try:
            status, reasons = wait_until(
                lambda: (told := probe(client, "/livez"))[0] == 503 and told, "the writer is noticed"
            )
            assert status == 503
            assert reasons["default"].startswith("the writer has been at one piece of work for ")
            assert shown(client)["duckling_writer_busy_seconds{}"] > 0.2
        finally:
            go_on.set()
        done.result()
        wait_until(lambda: probe(client, "/livez") == (200, {}), "the writer lives again")
        wait_until(lambda: shown(client)["duckling_writer_busy_seconds{}"] == 0, "the writer is idle")


def test_a_thread_that_has_ended_fails_livez(database: Database, tmp_path: Path) -> None:
    database.execute(TABLE)
    with replicated(database.url, tmp_path, auto_start_sync=True) as (client, pipeline):
        wait_until(lambda: ready(client), "the service is ready")
        assert pipeline._engine.writer.stop(20)
        assert probe(client, "/livez") == (503, {"default": "the writer thread has ended"})
        status, reasons = probe(client, "/readyz")
        assert status == 503
        assert reasons["default"].startswith("failed")


def test_a_source_that_is_away_fails_readyz_with_the_reason_and_not_livez(
    server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    server = server_factory("mysql")
    database = create_database(server)
    database.execute(TABLE)
    options = {"auto_start_sync": True, "retry_max_seconds": 0.5}
    with replicated(database.url, tmp_path, **options) as (client, _):
        wait_until(lambda: ready(client), "the service is ready")
        assert client.get("/health").json()["status"] == "healthy"
        server.kill()
        wait_until(
            lambda: probe(client, "/readyz") == (503, {"default": "retrying (SOURCE_UNAVAILABLE)"}),
            "the reason is told",
        )
        assert probe(client, "/livez") == (200, {})
        health = client.get("/health")
        assert health.status_code == 503
        [told] = health.json()["databases"]
        assert (told["status"], told["errorCode"]) == ("unhealthy", "SOURCE_UNAVAILABLE")
        server.start()
        wait_until(lambda: ready(client), "the service is ready again")
        assert shown(client)["duckling_reconnects_total{}"] >= 1


def test_what_happens_is_counted_where_the_manual_says(database: Database, tmp_path: Path) -> None:
    database.execute(TABLE, "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
    with replicated(database.url, tmp_path, auto_start_sync=True) as (client, pipeline):
        wait_until(lambda: ready(client), "the service is ready")
        database.execute(
            "INSERT INTO t VALUES (4, 4), (5, 5)",
            "UPDATE t SET a = 9 WHERE id = 1",
            "DELETE FROM t WHERE id = 2",
            "TRUNCATE TABLE t",
        )
        client.post("/sync/incremental").raise_for_status()
        client.post("/sync/table/t", params={"mode": "full"}).raise_for_status()
        client.get("/sync/validate", params={"mode": "count"}).raise_for_status()
        told = shown(client)
        assert_counted(told, pipeline)


def assert_counted(told: dict[str, float], pipeline: Pipeline) -> None:
    rows = {
        name: told[f"duckling_rows_applied_total{{operation={name}}}"]
        for name in ("insert", "update", "delete")
    }
    assert rows == {"insert": 2, "update": 1, "delete": 1}
    assert told["duckling_rows_applied_total{operation=copy}"] == 3
    assert told["duckling_schema_changes_total{kind=truncate}"] == 1
    assert told["duckling_transactions_applied_total{}"] == 3
    assert sum(value for name, value in told.items() if name.startswith("duckling_batches_total")) >= 1
    assert told["duckling_sync_seconds_count{kind=full,result=success}"] == 1
    assert told["duckling_sync_seconds_count{kind=incremental,result=success}"] == 1
    assert told["duckling_sync_seconds_count{kind=table,result=success}"] == 1
    assert told["duckling_validations_total{result=equal}"] == 1
    assert told["duckling_validation_tables{result=equal}"] == 1
    assert told["duckling_validation_tables{result=different}"] == 0
    assert told["duckling_validation_timestamp_seconds{}"] > 1.7e9
    assert told["duckling_mode{mode=cdc}"] == 1
    assert told["duckling_mode{mode=polling}"] == 0
    assert told["duckling_tables{state=streaming}"] == 1
    assert told["duckling_pipeline_state{state=streaming}"] == 1
    assert told["duckling_replica_disk_free_bytes{}"] > 0
    assert told["duckling_replica_file_bytes{}"] > 0
    assert abs(told["duckling_source_clock_offset_seconds{}"]) < 60
    source = pipeline.status().source
    assert told["duckling_source_binlog_position_bytes{}"] <= (source.position or 0)
