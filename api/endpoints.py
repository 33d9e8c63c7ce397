"""Every path of the service, once: what answers it, what it takes, and what it says. OpenAPI is made from this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api import models
from api.auth import PROBES
from api.parameters import Parameter
from api.requests import DATABASE
from api.routes import data, databases, description, probes, stream, sync, validation
from cdc.databases import DatabaseDefinition

Handler = Callable[[Request], Awaitable[Response]]
Model = type[BaseModel]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path. Its handler's docstring says what it does."""

    method: str
    path: str
    handler: Handler
    answer: Model | str
    """The shape of what it answers, or a media type where that is no JSON."""
    query: tuple[Parameter, ...] = ()
    body: Model | None = None
    status: int = 200
    others: dict[int, Model] = field(default_factory=dict)
    """Further statuses with shapes of their own."""
    media: tuple[str, ...] = ()
    """Media types that may be answered instead of JSON."""

    @property
    def paths(self) -> tuple[str, str]:
        """Where it answers: as it stands, and under `/api` or without it."""
        bare = self.path.removeprefix("/api")
        return self.path, bare if bare != self.path else f"/api{self.path}"

    @property
    def public(self) -> bool:
        """Whether it takes no key."""
        return self.path in PROBES

    @property
    def tag(self) -> str:
        """The part of the API that it belongs to: that of the handler's module."""
        return self.handler.__module__.rpartition(".")[2]


_RUN = (DATABASE,)
_WAIT = (DATABASE, sync.WAIT)
_ACCEPTED: dict[int, Model] = {202: models.RunAccepted}
_NOT_READY: dict[int, Model] = {503: models.Readiness}

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("GET", "/livez", probes.livez, models.Alive, others={503: models.Alive}),
    Endpoint("GET", "/readyz", probes.readyz, models.Readiness, others=_NOT_READY),
    Endpoint("GET", "/health", probes.health, models.Health, others={503: models.Health}),
    Endpoint("GET", "/status", probes.overview, models.Overview, (probes.ONE,)),
    Endpoint("GET", "/metrics", probes.metrics, "text/plain"),
    Endpoint("GET", "/openapi.json", description.openapi, "application/json"),
    Endpoint("GET", "/docs", description.docs, "text/html"),
    Endpoint("POST", "/sync/full", sync.full, models.SyncAnswer, _WAIT, others=_ACCEPTED),
    Endpoint("POST", "/sync/incremental", sync.incremental, models.SyncAnswer, _WAIT, others=_ACCEPTED),
    Endpoint(
        "POST",
        "/sync/table/{table:path}",
        sync.table,
        models.TableResultAnswer,
        (*_WAIT, sync.FRESH),
        others=_ACCEPTED,
    ),
    Endpoint("GET", "/sync/runs", sync.runs, models.RunsAnswer, (DATABASE, sync.LIMIT)),
    Endpoint("GET", "/sync/runs/{run}", sync.run_status, models.RunAnswer, _RUN),
    Endpoint("DELETE", "/sync/runs/{run}", sync.cancel, models.RunAnswer, _RUN),
    Endpoint("POST", "/sync/runs/{run}/cancel", sync.cancel, models.RunAnswer, _RUN),
    Endpoint("GET", "/sync/status", sync.status, models.SyncStatusAnswer, _RUN),
    Endpoint("GET", "/sync/progress", sync.progress, models.ProgressAnswer, _RUN),
    Endpoint(
        "GET",
        "/sync/validate",
        validation.validate,
        models.ValidationAnswer,
        (*_WAIT, sync.COMPARE, sync.TABLE, sync.REPAIR),
        others=_ACCEPTED,
    ),
    Endpoint("GET", "/sync/validations/{run}", validation.run_status, models.ValidationRunAnswer, _RUN),
    Endpoint("DELETE", "/sync/validations/{run}", validation.cancel, models.Done, _RUN),
    Endpoint(
        "POST",
        "/api/validation/table-details",
        validation.table_details,
        models.TableDetailsAnswer,
        _RUN,
        body=models.TableDetailsRequest,
    ),
    Endpoint("DELETE", "/sync/clear-all", sync.clear, models.Cleared, _RUN),
    Endpoint("DELETE", "/storage/clear-all", sync.clear, models.Cleared, _RUN),
    Endpoint("POST", "/cdc/start", stream.start, models.Done, _RUN),
    Endpoint("POST", "/cdc/stop", stream.stop, models.Done, _RUN),
    Endpoint("GET", "/cdc/status", stream.status, models.StreamStatusAnswer, _RUN),
    Endpoint(
        "POST",
        "/query",
        data.query,
        models.QueryAnswer,
        _RUN,
        body=models.QueryRequest,
        media=tuple(data.MEDIA),
    ),
    Endpoint("GET", "/tables", data.tables, models.TablesAnswer, _RUN),
    Endpoint("GET", "/tables/counts/all", data.counts, models.CountsAnswer, _RUN),
    Endpoint("GET", "/tables/{table:path}/schema", data.schema, models.SchemaAnswer, _RUN),
    Endpoint("GET", "/tables/{table:path}/count", data.count, models.CountAnswer, _RUN),
    Endpoint(
        "GET",
        "/tables/{table:path}/data",
        data.page,
        models.PageAnswer,
        (DATABASE, data.LIMIT, data.CURSOR),
    ),
    Endpoint("GET", "/api/databases", databases.listed, models.DatabasesAnswer),
    Endpoint(
        "POST", "/api/databases", databases.add, models.DatabaseAnswer, body=DatabaseDefinition, status=201
    ),
    Endpoint("GET", "/api/databases/{id}", databases.one, models.DatabaseAnswer),
    Endpoint("PUT", "/api/databases/{id}", databases.change, models.DatabaseAnswer, body=DatabaseDefinition),
    Endpoint(
        "DELETE", "/api/databases/{id}", databases.remove, models.DatabaseRemoved, (databases.DELETE_FILE,)
    ),
    Endpoint("POST", "/api/databases/{id}/test", databases.test, models.DatabaseTest),
)
"""Every path; each one also answers under `/api`, those that stand there without it."""
