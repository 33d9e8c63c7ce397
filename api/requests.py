"""What handlers read from a request: the database it is about, its body, and threads to work in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from api.access import MAX_BODY_BYTES, body_too_large
from api.problems import MalformedError
from api.readers import Readers
from cdc.config import Settings
from cdc.metrics import Metrics
from cdc.registry import Registry

if TYPE_CHECKING:
    from cdc.pipeline import Pipeline

T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class Threads:
    """Threads by purpose, so that syncs that are waited for can't starve probes, nor queries control."""

    probes: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(4))
    control: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(8))
    queries: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(8))
    runs: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(64))


@dataclass(frozen=True)
class Service:
    """What the handlers work with; it hangs on `app.state.service`."""

    registry: Registry
    settings: Settings
    metrics: Metrics
    started: float
    """Monotonic seconds."""
    threads: Threads = field(default_factory=Threads)
    readers: Readers = field(default_factory=Readers)


class QueryRequest(BaseModel):
    """The body of `POST /query`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sql: str
    params: list[Any] | dict[str, Any] | None = None
    max_rows: int | None = Field(default=None, ge=1, alias="maxRows")
    timeout_ms: int | None = Field(default=None, ge=1, alias="timeoutMs")


def service(request: Request) -> Service:
    """The service that answers `request`."""
    found: Service = request.app.state.service
    return found


def pipeline(request: Request) -> Pipeline:
    """The pipeline that `?db=` names, else `default`. Raises NotFoundError (DATABASE_NOT_FOUND)."""
    return service(request).registry.get(request.query_params.get("db"))


async def in_thread(limiter: anyio.CapacityLimiter, work: Callable[..., T], *args: Any, **named: Any) -> T:
    """`work`'s result, from a thread of `limiter`'s."""
    return await anyio.to_thread.run_sync(
        partial(work, *args, **named), limiter=limiter, abandon_on_cancel=True
    )


async def read_body(request: Request, model: type[Body]) -> Body:
    """The JSON body as `model`. Raises MalformedError, BodyTooLargeError."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise body_too_large()
    try:
        return model.model_validate(orjson.loads(content))
    except orjson.JSONDecodeError:
        raise MalformedError("the body is not JSON", hint='send for example {"sql": "SELECT 1"}') from None
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "body"
        raise MalformedError(f"{place}: {problem['msg']}", hint="correct the body") from None


def choice(request: Request, name: str, allowed: tuple[str, ...]) -> str | None:
    """The query parameter `name`, one of `allowed`, or None. Raises MalformedError."""
    value = request.query_params.get(name)
    if value is None or value in allowed:
        return value
    raise MalformedError(f"{name} has an unknown value", hint=f"one of: {', '.join(allowed)}")


def flag(request: Request, name: str, default: bool) -> bool:
    """The query parameter `name`, true or false. Raises MalformedError."""
    value = choice(request, name, ("true", "false", "1", "0"))
    return default if value is None else value in {"true", "1"}
