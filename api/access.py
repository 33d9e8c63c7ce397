"""Every request counted, timed and logged, by the route's pattern: paths and queries may carry values."""

from __future__ import annotations

import time

import structlog
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import BodyTooLargeError, Problem
from cdc.metrics import Metrics

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 1 << 20


class Access:
    """Outermost: sees the answers of everything below, refusals included."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499  # what nginx logs where the client left before the answer
        started = time.monotonic()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            seconds = time.monotonic() - started
            route = scope.get("duckling.route", "unknown")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.request_answered(method, route, status, seconds)
            log.debug("http.answered", method=method, route=route, status=status, ms=round(seconds * 1000))


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class KnownRoute(Route):
    """A route that is counted while it answers, and leaves its pattern in the scope for `Access`."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the request."""
        scope["duckling.route"] = self.path
        metrics: Metrics = scope["app"].state.service.metrics
        with metrics.request_running(self.path):
            await super().handle(scope, receive, send)


class BodyLimit:
    """Refuses a body that is announced larger than `MAX_BODY_BYTES`; `read_body` counts the others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name.lower() == b"content-length" and value.isdigit() and int(value) > MAX_BODY_BYTES:
                    await Problem(body_too_large(), headers={"Connection": "close"})(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def body_too_large() -> BodyTooLargeError:
    """The error for a body beyond the limit."""
    return BodyTooLargeError(f"the body is larger than {MAX_BODY_BYTES} bytes", hint="send a smaller one")
