"""Is it alive, is it ready, is it healthy: open to all, so they tell states and codes, never texts."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from api.answers import Answer, Json, stream_status, table_state
from api.requests import Service, in_thread, service
from cdc import __version__
from cdc.metrics import CONTENT_TYPE
from cdc.status import PipelineState, PipelineStatus, TableState

_WELL = frozenset({PipelineState.STARTING, PipelineState.COPYING, PipelineState.STREAMING})
_BROKEN_TABLES = frozenset({TableState.ERRORED, TableState.NEEDS_RESYNC})


async def livez(request: Request) -> Response:
    """200 as long as the process answers and every pipeline tells its state."""
    await _statuses(request)
    return Answer({"status": "alive"})


async def readyz(request: Request) -> Response:
    """200 where every enabled database streams or polls within the lag limit, else 503 and the reasons."""
    limit = service(request).settings.max_lag_seconds
    reasons = {
        status.id: reason
        for status in await _statuses(request)
        if status.enabled and (reason := not_ready(status, limit)) is not None
    }
    if reasons:
        return Answer({"status": "not ready", "reasons": reasons}, status_code=503)
    return Answer({"status": "ready"})


async def health(request: Request) -> Response:
    """A readable summary; 503 where something needs a look."""
    entries = [
        {
            "id": status.id,
            "status": "healthy" if well(status) else "unhealthy",
            "state": status.state.value,
            "mode": status.mode,
            "lagSeconds": status.lag_seconds,
            "tables": len(status.tables),
            "brokenTables": sum(table.state in _BROKEN_TABLES for table in status.tables),
            "errorCode": None if well(status) else status.last_error_code,
        }
        for status in await _statuses(request)
    ]
    healthy = all(entry["status"] == "healthy" for entry in entries)
    body = {"status": "healthy" if healthy else "unhealthy", "version": __version__, "databases": entries}
    return Answer(body, status_code=200 if healthy else 503)


async def overview(request: Request) -> Response:
    """Everything that the pipelines tell about themselves; it needs a key."""
    databases: list[Json] = [
        {
            "id": status.id,
            "enabled": status.enabled,
            **stream_status(status),
            "tables": [table_state(table) for table in status.tables],
        }
        for status in await _statuses(request)
    ]
    return Answer(
        {
            "version": __version__,
            "uptime": round((time.monotonic() - service(request).started) * 1000),
            "databases": databases,
        }
    )


async def metrics(request: Request) -> Response:
    """Prometheus's text format."""
    known = service(request)
    return Response(await in_thread(known.threads.probes, known.metrics.render), media_type=CONTENT_TYPE)


def not_ready(status: PipelineStatus, max_lag_seconds: float) -> str | None:
    """Why a database is not ready; None where it is."""
    if status.state is not PipelineState.STREAMING:
        code = f" ({status.last_error_code})" if status.last_error_code else ""
        return f"{status.state.value}{code}"
    if status.lag_seconds is None:
        return "lag not known yet"
    if status.lag_seconds > max_lag_seconds:
        return f"lag of {status.lag_seconds:.1f} s is over the limit of {max_lag_seconds:g} s"
    return None


def well(status: PipelineStatus) -> bool:
    """Whether nothing about a database needs a look."""
    if any(table.state in _BROKEN_TABLES for table in status.tables):
        return False
    return not status.enabled or status.state in _WELL


async def _statuses(request: Request) -> list[PipelineStatus]:
    known: Service = service(request)
    return [await in_thread(known.threads.probes, each.status) for each in known.registry]
