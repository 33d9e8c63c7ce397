"""The HTTP application: paths, and what every request passes through."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import anyio.to_thread
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from api.access import Access, BodyLimit, KnownRoute
from api.auth import PROBES, BearerAuth
from api.problems import LastDefence, duckling_error, http_error
from api.requests import Service
from api.routes import data, probes, stream, sync
from cdc.config import Settings
from cdc.errors import DucklingError
from cdc.metrics import Metrics, Observed
from cdc.registry import Registry

log = structlog.get_logger(__name__)

Handler = Callable[[Request], Awaitable[Response]]

STOP_SECONDS = 8.0
"""What draining may take, so that the whole exit stays under 10 s."""

PATHS: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/livez", probes.livez),
    ("GET", "/readyz", probes.readyz),
    ("GET", "/health", probes.health),
    ("GET", "/status", probes.overview),
    ("GET", "/metrics", probes.metrics),
    ("POST", "/sync/full", sync.full),
    ("POST", "/sync/incremental", sync.incremental),
    ("POST", "/sync/table/{table:path}", sync.table),
    ("GET", "/sync/runs/{run}", sync.run_status),
    ("GET", "/sync/status", sync.status),
    ("GET", "/sync/progress", sync.progress),
    ("GET", "/sync/validate", sync.validate),
    ("DELETE", "/sync/clear-all", sync.clear),
    ("DELETE", "/storage/clear-all", sync.clear),
    ("POST", "/cdc/start", stream.start),
    ("POST", "/cdc/stop", stream.stop),
    ("GET", "/cdc/status", stream.status),
    ("POST", "/query", data.query),
    ("GET", "/tables", data.tables),
    ("GET", "/tables/counts/all", data.counts),
    ("GET", "/tables/{table:path}/schema", data.schema),
    ("GET", "/tables/{table:path}/count", data.count),
)
"""Every path; each one also answers under `/api`."""


def create_app(registry: Registry, settings: Settings, metrics: Metrics) -> Starlette:
    """The application. Its lifespan starts the registry's pipelines and drains them at the end."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(registry.start)
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(registry.stop, STOP_SECONDS)

    def observed() -> Iterator[Observed]:
        for pipeline in registry:
            try:
                yield Observed(pipeline.status(), pipeline.settings.duckdb_path)
            except DucklingError as error:
                # The counters, and the other databases, are worth showing all the same.
                log.warning(
                    "metrics.status_failed", database=pipeline.id, code=error.code, error=error.message
                )

    metrics.observe(observed)
    public = PROBES | {"/metrics"} if settings.metrics_public else PROBES
    app = Starlette(
        routes=[
            KnownRoute(f"{prefix}{path}", handler, methods=[method])
            for prefix in ("", "/api")
            for method, path, handler in PATHS
        ],
        middleware=[
            Middleware(Access, metrics=metrics),
            Middleware(LastDefence),
            Middleware(BearerAuth, keys=settings.api_keys, public=public),
            Middleware(BodyLimit),
        ],
        exception_handlers={DucklingError: duckling_error, HTTPException: http_error},
        lifespan=lifespan,
    )
    # A path with a slash too many is an unknown path, not a second name.
    app.router.redirect_slashes = False
    app.state.service = Service(registry, settings, metrics, started=time.monotonic())
    return app
