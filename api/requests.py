"""What handlers read from a request: the database it is about, its body, and threads to work in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import duckdb
import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from api.access import MAX_BODY_BYTES, body_too_large
from api.parameters import Parameter
from api.problems import MalformedError
from api.readers import Readers
from cdc.config import Settings
from cdc.deadlines import AGAIN_SECONDS
from cdc.metrics import Metrics
from cdc.pages import Cursors
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
    description: bytes = b""
    """The OpenAPI document."""
    docs: bytes = b""
    """The same as a page for people."""

    @property
    def cursors(self) -> Cursors:
        """What signs the cursors of pages."""
        return Cursors(self.settings.api_keys)


def service(request: Request) -> Service:
    """The service that answers `request`."""
    found: Service = request.app.state.service
    return found


def pipeline(request: Request) -> Pipeline:
    """The pipeline that `?db=` names, else `default`. Raises NotFoundError (DATABASE_NOT_FOUND)."""
    return service(request).registry.get(DATABASE.text(request))


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
        # From the text, not from objects: strict numbers and words, but lists and objects as JSON has them.
        orjson.loads(content)
        return model.model_validate_json(bytes(content))
    except orjson.JSONDecodeError:
        raise MalformedError("the body is not JSON", hint='send for example {"sql": "SELECT 1"}') from None
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in problem["loc"]) or "body"
        raise MalformedError(f"{place}: {problem['msg']}", hint="correct the body") from None


DATABASE = Parameter("db", "Id of the database; `default` without it.")


async def read(request: Request, found: Pipeline, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """What `work` reads through a cursor of `found`'s; interrupted when the client leaves.

    Raises StoppedError then, as at the service's stop.
    """
    known = service(request)
    gone = threading.Event()
    outcome: Callable[[], T] | None = None

    def run() -> T:
        with known.readers.reading(found, gone) as cursor:
            return work(cursor)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            continue
        gone.set()
        while True:
            known.readers.interrupt(gone)
            await anyio.sleep(AGAIN_SECONDS)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            result = await in_thread(known.threads.queries, run)
        except Exception as failure:  # noqa: BLE001 - raised again below, outside of the group that would wrap it
            outcome = partial(_raise, failure)
        else:
            outcome = partial(_same, result)
        tasks.cancel_scope.cancel()
    assert outcome is not None
    return outcome()


def _raise(failure: Exception) -> Any:
    raise failure


def _same(result: T) -> T:
    return result
