"""The stream: start, stop, status."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.answers import Answer, stream_status
from api.models import Done, StreamStatusAnswer
from api.requests import DATABASE, in_thread, pipeline, service
from cdc.registry import DEFAULT


async def start(request: Request) -> Response:
    """Starts the stream; fine where it runs already."""
    found = pipeline(request)
    await in_thread(service(request).threads.control, found.start_stream)
    return Answer(Done(success=True, message="the stream is started"))


async def stop(request: Request) -> Response:
    """Stops the stream after the batch in hand; fine where it stands already."""
    found = pipeline(request)
    await in_thread(service(request).threads.control, found.stop_stream)
    return Answer(Done(success=True, message="the stream is stopped"))


async def status(request: Request) -> Response:
    """Where the stream stands; also of a database that could not be started."""
    known = service(request)
    entry = known.registry.entry(DATABASE.text(request) or DEFAULT)
    told = await in_thread(known.threads.probes, entry.status)
    return Answer(StreamStatusAnswer(success=True, enabled=told.enabled, status=stream_status(told)))
