"""Metrics: what a scrape shows."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cdc.metrics import Metrics
from cdc.observed import Observed
from cdc.status import PipelineState, PipelineStatus, PositionStatus, TableState, TableStatus

MANUAL = Path(__file__).parents[2] / "docs" / "metrics.md"


def samples(metrics: Metrics) -> dict[str, float]:
    """`name{label="value",…}` to value."""
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def status(**changes: object) -> PipelineStatus:
    fields: dict[str, object] = {
        "id": "default",
        "state": PipelineState.STREAMING,
        "mode": "cdc",
        "running": True,
        "enabled": True,
        **changes,
    }
    return PipelineStatus(**fields)  # type: ignore[arg-type]


def test_a_batch_moves_every_counter_that_it_concerns() -> None:
    metrics = Metrics()
    shop = metrics.for_database("shop")
    shop.batch_applied({"insert": 3, "update": 2}, transactions=4, seconds=0.25, reason="age")
    shop.batch_applied({"delete": 1}, transactions=1, seconds=0.5, reason="rows")
    shop.rows_copied(100)
    shop.error_met("BINLOG")
    shop.reconnected()
    shown = samples(metrics)
    assert shown["duckling_rows_applied_total{database=shop,operation=insert}"] == 3
    assert shown["duckling_rows_applied_total{database=shop,operation=update}"] == 2
    assert shown["duckling_rows_applied_total{database=shop,operation=delete}"] == 1
    assert shown["duckling_rows_applied_total{database=shop,operation=copy}"] == 100
    assert shown["duckling_transactions_applied_total{database=shop}"] == 5
    assert shown["duckling_batches_total{database=shop,reason=age}"] == 1
    assert shown["duckling_batch_seconds_sum{database=shop}"] == 0.75
    assert shown["duckling_batch_rows_sum{database=shop}"] == 6
    assert shown["duckling_errors_total{code=BINLOG,database=shop}"] == 1
    assert shown["duckling_reconnects_total{database=shop}"] == 1


def test_counters_of_a_database_exist_before_their_first_event() -> None:
    metrics = Metrics()
    metrics.for_database("shop")
    shown = samples(metrics)
    assert shown["duckling_rows_applied_total{database=shop,operation=delete}"] == 0
    assert shown["duckling_transactions_applied_total{database=shop}"] == 0
    assert shown["duckling_reconnects_total{database=shop}"] == 0
    assert shown["duckling_batch_seconds_count{database=shop}"] == 0


def test_gauges_are_read_at_each_scrape(tmp_path: Path) -> None:
    replica = tmp_path / "copy.db"
    current = status(lag_seconds=1.5, lag_bytes=10)
    metrics = Metrics()
    metrics.observe(lambda: [Observed(current, replica)])
    assert samples(metrics)["duckling_lag_seconds{database=default}"] == 1.5
    assert samples(metrics)["duckling_replica_file_bytes{database=default}"] == 0
    current = status(lag_seconds=0.0, queue_size=2)
    replica.write_bytes(b"x" * 100)
    Path(f"{replica}.wal").write_bytes(b"x" * 7)
    shown = samples(metrics)
    assert shown["duckling_lag_seconds{database=default}"] == 0
    assert shown["duckling_queue_batches{database=default}"] == 2
    assert shown["duckling_replica_file_bytes{database=default}"] == 100
    assert shown["duckling_replica_wal_bytes{database=default}"] == 7


def test_what_is_not_known_is_left_out_instead_of_zero(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.observe(lambda: [Observed(status(), tmp_path / "copy.db")])
    shown = samples(metrics)
    for name in ("lag_seconds", "lag_bytes", "source_binlog_position_bytes", "source_binlog_file_number"):
        assert f"duckling_{name}{{database=default}}" not in shown


def test_positions_are_file_number_and_offset(tmp_path: Path) -> None:
    metrics = Metrics()
    told = status(
        source=PositionStatus(filename="mysql-bin.000042", position=900),
        current=PositionStatus(filename="mysql-bin.000041", position=5_000_000_000),
        last_event_at=datetime(2024, 1, 1, tzinfo=UTC),
    )
    metrics.observe(lambda: [Observed(told, tmp_path / "copy.db")])
    shown = samples(metrics)
    assert shown["duckling_source_binlog_file_number{database=default}"] == 42
    assert shown["duckling_source_binlog_position_bytes{database=default}"] == 900
    assert shown["duckling_replica_binlog_file_number{database=default}"] == 41
    assert shown["duckling_replica_binlog_position_bytes{database=default}"] == 5e9
    assert shown["duckling_last_event_timestamp_seconds{database=default}"] == 1704067200


def test_exactly_one_state_of_a_pipeline_is_one(tmp_path: Path) -> None:
    metrics = Metrics()
    tables = (
        TableStatus("a", TableState.STREAMING),
        TableStatus("b", TableState.STREAMING),
        TableStatus("c", TableState.ERRORED),
    )
    told = status(state=PipelineState.RETRYING, tables=tables)
    metrics.observe(lambda: [Observed(told, tmp_path / "copy.db")])
    shown = samples(metrics)
    states = {name: value for name, value in shown.items() if name.startswith("duckling_pipeline_state")}
    assert len(states) == len(PipelineState)
    assert sum(states.values()) == states["duckling_pipeline_state{database=default,state=retrying}"] == 1
    assert shown["duckling_tables{database=default,state=streaming}"] == 2
    assert shown["duckling_tables{database=default,state=errored}"] == 1
    assert shown["duckling_tables{database=default,state=pending}"] == 0


def test_requests_are_counted_by_route_and_status() -> None:
    metrics = Metrics()
    metrics.request_answered("GET", "/tables/{table}/count", 200, 0.1)
    metrics.request_answered("GET", "/tables/{table}/count", 404, 0.1)
    shown = samples(metrics)
    assert shown["duckling_http_requests_total{method=GET,route=/tables/{table}/count,status=404}"] == 1
    assert shown["duckling_http_request_seconds_count{route=/tables/{table}/count}"] == 2


def test_two_instances_share_nothing() -> None:
    one, two = Metrics(), Metrics()
    one.for_database("shop").reconnected()
    two.for_database("shop")
    assert samples(two)["duckling_reconnects_total{database=shop}"] == 0


@pytest.fixture
def families(tmp_path: Path) -> dict[str, str]:
    """Name to type of everything a scrape can show."""
    metrics = Metrics()
    metrics.for_database("shop")
    metrics.observe(lambda: [Observed(status(), tmp_path / "copy.db")])
    text = metrics.render().decode()
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))


def test_names_follow_the_rules_of_prometheus(families: dict[str, str]) -> None:
    for name, kind in families.items():
        assert re.fullmatch(r"(duckling|process)_[a-z_]+", name)
        assert not re.search(r"_(ms|milliseconds|mb|kb)(_|$)", name)
        if kind == "counter":
            assert name.endswith("_total")


def test_every_metric_is_in_the_manual(families: dict[str, str]) -> None:
    manual = MANUAL.read_text()
    missing = [
        name
        for name in families
        if name.startswith("duckling_") and not name.endswith("_created") and f"`{name}" not in manual
    ]
    assert missing == []
