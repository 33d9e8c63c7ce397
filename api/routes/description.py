"""The description of the API: for programs, and as a page for people."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.requests import service


async def openapi(request: Request) -> Response:
    """This description, as OpenAPI 3.1."""
    return Response(service(request).description, media_type="application/json")


async def docs(request: Request) -> Response:
    """This description as a page that needs nothing from elsewhere."""
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(service(request).docs, media_type="text/html", headers=headers)
