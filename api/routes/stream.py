"""The stream: start, stop, status."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.answers import Answer, stream_status
from api.requests import in_thread, pipeline, service


async def start(request: Request) -> Response:
    """Starts the stream; fine where it runs already."""
    found = pipeline(request)
    await in_thread(service(request).threads.control, found.start_stream)
    return Answer({"success": True, "message": "the stream is started"})


async def stop(request: Request) -> Response:
    """Stops the stream after the batch in hand; fine where it stands already."""
    found = pipeline(request)
    await in_thread(service(request).threads.control, found.stop_stream)
    return Answer({"success": True, "message": "the stream is stopped"})


async def status(request: Request) -> Response:
    """Where the stream stands."""
    found = pipeline(request)
    told = await in_thread(service(request).threads.probes, found.status)
    return Answer({"success": True, "enabled": told.enabled, "status": stream_status(told)})
