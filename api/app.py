"""The HTTP application: paths, and what every request passes through."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import orjson
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from api import docs_page
from api.access import Access, BodyLimit, KnownRoute
from api.auth import PROBES, BearerAuth
from api.endpoints import ENDPOINTS, Endpoint, Handler
from api.openapi import describe
from api.problems import LastDefence, duckling_error, http_error
from api.requests import Service
from cdc.config import Settings
from cdc.errors import DucklingError
from cdc.metrics import Metrics
from cdc.observed import Observed
from cdc.registry import Registry

log = structlog.get_logger(__name__)

STOP_SECONDS = 8.0
"""What draining may take, so that the whole exit stays under 10 s."""

Handlers = dict[str, Handler]


def _by_path(endpoints: Iterable[Endpoint]) -> dict[str, Handlers]:
    """The handlers of each path by method, in the order of the paths."""
    found: dict[str, Handlers] = {}
    for endpoint in endpoints:
        for path in endpoint.paths:
            found.setdefault(path, {})[endpoint.method] = endpoint.handler
    return found


def by_method(handlers: Handlers) -> Handler:
    """One route for all methods of a path, so that a refused one is told of all that there are."""

    async def handle(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await handlers[method](request)

    return handle


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
        for entry in registry:
            try:
                yield Observed(entry.status(), Path(entry.definition.duckdb_path if entry.definition else ""))
            except DucklingError as error:
                # The counters, and the other databases, are worth showing all the same.
                log.warning("metrics.status_failed", database=entry.id, code=error.code, error=error.message)

    metrics.observe(observed)
    public = PROBES | {"/metrics"} if settings.metrics_public else PROBES
    app = Starlette(
        routes=[
            KnownRoute(path, by_method(handlers), methods=list(handlers))
            for path, handlers in _by_path(ENDPOINTS).items()
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
    described = describe(ENDPOINTS)
    app.state.service = Service(
        registry,
        settings,
        metrics,
        started=time.monotonic(),
        description=orjson.dumps(described),
        docs=docs_page.page(described).encode(),
    )
    return app
