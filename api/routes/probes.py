"""Is it alive, is it ready, is it healthy: open to all, so they tell states and codes, never texts."""

from __future__ import annotations

import time

import structlog
from starlette.requests import Request
from starlette.responses import Response

from api.answers import Answer, stream_status, table_state
from api.models import Alive, DatabaseHealth, DatabaseOverview, Health, Overview, Readiness
from api.parameters import Parameter
from api.requests import Service, in_thread, service
from cdc import __version__
from cdc.errors import DucklingError
from cdc.metrics import CONTENT_TYPE
from cdc.registered import Registered
from cdc.status import PipelineState, PipelineStatus, TableState

log = structlog.get_logger(__name__)

ONE = Parameter("db", "Id of the database; all of them without it.")

_FOLLOWS = frozenset({PipelineState.STREAMING, PipelineState.POLLING})
_WELL = _FOLLOWS | {PipelineState.STARTING, PipelineState.COPYING}
_BROKEN_TABLES = frozenset({TableState.ERRORED, TableState.NEEDS_RESYNC})


async def livez(request: Request) -> Response:
    """200 as long as the process answers, every thread lives and no writer is wedged; else 503 and why."""
    # Asked here, not in a thread: those may all be waiting for a file that hangs.
    dead = {each.id: why for each in service(request).registry if (why := each.lifeless()) is not None}
    if dead:
        for database, reason in dead.items():
            log.error("probe.not_alive", database=database, reason=reason)
        return Answer(Alive(status="not alive", reasons=dead), status_code=503)
    return Answer(Alive(status="alive"))


async def readyz(request: Request) -> Response:
    """200 where every enabled database streams or polls within the lag limit, else 503 and the reasons."""
    known = service(request)
    limit = known.settings.max_lag_seconds
    reasons: dict[str, str] = {}
    for entry in known.registry:
        status = await in_thread(known.threads.probes, _status, entry)
        if status.enabled and (reason := not_ready(status, limit, entry.between_polls)):
            reasons[entry.id] = reason
    if reasons:
        return Answer(Readiness(status="not ready", reasons=reasons), status_code=503)
    return Answer(Readiness(status="ready"))


async def health(request: Request) -> Response:
    """A readable summary; 503 where something needs a look."""
    entries = [
        DatabaseHealth(
            id=status.id,
            status="healthy" if well(status) else "unhealthy",
            state=status.state.value,
            mode=status.mode,
            lag_seconds=status.lag_seconds,
            tables=len(status.tables),
            broken_tables=sum(table.state in _BROKEN_TABLES for table in status.tables),
            error_code=None if well(status) else status.last_error_code,
        )
        for status in await _statuses(request)
    ]
    healthy = all(entry.status == "healthy" for entry in entries)
    body = Health(status="healthy" if healthy else "unhealthy", version=__version__, databases=entries)
    return Answer(body, status_code=200 if healthy else 503)


async def overview(request: Request) -> Response:
    """Everything that the pipelines, or the one that `?db=` names, tell about themselves; it needs a key."""
    known, wanted = service(request), ONE.text(request)
    asked = [known.registry.entry(wanted)] if wanted else list(known.registry)
    databases = [
        DatabaseOverview(
            **dict(stream_status(status)),
            id=status.id,
            enabled=status.enabled,
            tables=[table_state(table) for table in status.tables],
        )
        for status in [await in_thread(known.threads.probes, _status, each) for each in asked]
    ]
    uptime = round((time.monotonic() - known.started) * 1000)
    return Answer(Overview(version=__version__, uptime=uptime, databases=databases))


async def metrics(request: Request) -> Response:
    """Prometheus's text format."""
    known = service(request)
    return Response(await in_thread(known.threads.probes, known.metrics.render), media_type=CONTENT_TYPE)


def not_ready(status: PipelineStatus, max_lag_seconds: float, between_polls: float = 0.0) -> str | None:
    """Why a database is not ready; None where it is. One that is polled may be `between_polls` s older."""
    if status.state not in _FOLLOWS:
        code = f" ({status.last_error_code})" if status.last_error_code else ""
        return f"{status.state.value}{code}"
    if status.lag_seconds is None:
        return "lag not known yet"
    limit = max_lag_seconds + (between_polls if status.state is PipelineState.POLLING else 0.0)
    if status.lag_seconds > limit:
        return f"lag of {status.lag_seconds:.1f} s is over the limit of {limit:g} s"
    return None


def well(status: PipelineStatus) -> bool:
    """Whether nothing about a database needs a look."""
    if any(table.state in _BROKEN_TABLES for table in status.tables):
        return False
    return not status.enabled or status.state in _WELL


async def _statuses(request: Request) -> list[PipelineStatus]:
    known: Service = service(request)
    return [await in_thread(known.threads.probes, _status, each) for each in known.registry]


def _status(database: Registered) -> PipelineStatus:
    """Its status; `failed` where its file does not even let that be read."""
    try:
        return database.status()
    except DucklingError as error:
        log.warning("probe.status_failed", database=database.id, code=error.code, error=error.message)
        return PipelineStatus(
            id=database.id,
            state=PipelineState.FAILED,
            mode="none",
            running=False,
            enabled=True,
            last_error=error.message,
            last_error_code=error.code,
            hint=error.hint,
        )
