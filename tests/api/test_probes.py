"""Probes and metrics, and how states become answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.routes.probes import not_ready, well
from cdc.metrics import Metrics
from cdc.pipeline import Pipeline
from cdc.registry import Registry
from cdc.sandbox.databases import Database
from cdc.status import PipelineState, PipelineStatus, TableState, TableStatus
from tests.api.conftest import make_settings, served
from tests.waiting import wait_until

Serve = Callable[..., httpx.Client]


def status(**changes: Any) -> PipelineStatus:
    fields: dict[str, Any] = {
        "id": "default",
        "state": PipelineState.STREAMING,
        "mode": "cdc",
        "running": True,
        "enabled": True,
        "lag_seconds": 0.0,
        **changes,
    }
    return PipelineStatus(**fields)


def test_probes_answer_without_databases(serve: Serve) -> None:
    client = serve()
    for path in ("/livez", "/readyz", "/health", "/api/livez", "/api/readyz", "/api/health"):
        assert client.get(path).status_code == 200
    assert client.get("/health").json()["status"] == "healthy"


def test_requests_are_counted_by_pattern_never_by_path(serve: Serve) -> None:
    client = serve()
    client.get("/tables/hush/count")
    client.get("/hush")
    text = client.get("/metrics").text
    assert 'route="/tables/{table:path}/count",status="404"' in text
    assert 'route="unknown",status="404"' in text
    assert "hush" not in text


def test_metrics_are_prometheus_text(serve: Serve) -> None:
    answer = serve().get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "duckling_build_info{" in answer.text


def test_a_head_request_has_no_body(serve: Serve) -> None:
    answer = serve().head("/livez")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_database_is_ready_while_it_streams_within_the_lag_limit() -> None:
    assert not_ready(status(), 60) is None
    assert not_ready(status(lag_seconds=60.0), 60) is None
    assert not_ready(status(lag_seconds=60.1), 60) == "lag of 60.1 s is over the limit of 60 s"
    assert not_ready(status(lag_seconds=None), 60) == "lag not known yet"


@pytest.mark.parametrize(
    "state", sorted(set(PipelineState) - {PipelineState.STREAMING, PipelineState.POLLING})
)
def test_a_database_that_does_not_stream_is_not_ready(state: PipelineState) -> None:
    reason = not_ready(status(state=state, last_error="text", last_error_code="SOURCE_UNAVAILABLE"), 60)
    assert reason == f"{state.value} (SOURCE_UNAVAILABLE)"


def test_a_database_that_is_polled_may_be_one_interval_older() -> None:
    polled = status(state=PipelineState.POLLING, mode="polling", lag_seconds=900.0)
    assert not_ready(polled, 60, 900) is None
    assert not_ready(polled, 60, 800) == "lag of 900.0 s is over the limit of 860 s"
    assert well(polled)


def test_each_database_may_be_as_old_as_its_own_interval_makes_it(
    mysql_database: Database, tmp_path: Path
) -> None:
    mysql_database.execute("CREATE TABLE items (id INT PRIMARY KEY AUTO_INCREMENT)")
    ahead = 0.0
    settings = make_settings(
        tmp_path, mysql_connection_string=mysql_database.url, cdc_enabled=False, sync_interval_minutes=60
    )
    pipeline = Pipeline(
        "slow", settings, Metrics().for_database("slow"), clock=lambda: time.monotonic() + ahead
    )
    registry = Registry([pipeline])
    with served(registry, settings.model_copy(update={"sync_interval_minutes": 1})) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200, "the first poll is done")
        ahead = 600.0
        assert client.get("/readyz").json() == {"status": "ready"}


def test_a_broken_table_makes_a_database_unhealthy_but_not_unready() -> None:
    told = status(tables=(TableStatus("orders", TableState.ERRORED, reason="…"),))
    assert not well(told)
    assert not_ready(told, 60) is None


def test_a_first_copy_is_healthy_and_not_ready() -> None:
    told = status(state=PipelineState.COPYING)
    assert well(told)
    assert not_ready(told, 60) is not None


def test_a_stopped_stream_is_unhealthy_only_where_it_is_wanted() -> None:
    assert not well(status(state=PipelineState.STOPPED))
    assert well(status(state=PipelineState.STOPPED, enabled=False))
