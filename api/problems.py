"""Errors as answers: `application/problem+json` (RFC 9457) from the error tree, never internals."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.answers import Answer
from api.models import ProblemAnswer
from cdc.errors import DucklingError

log = structlog.get_logger(__name__)


class MalformedError(DucklingError):
    """The request can't be read."""

    code = "MALFORMED"
    status = 400
    title = "Malformed request"


class UnauthorizedError(DucklingError):
    """No key, or a wrong one."""

    code = "UNAUTHORIZED"
    status = 401
    title = "Key needed"


class BodyTooLargeError(DucklingError):
    """The request's body is larger than the limit."""

    code = "BODY_TOO_LARGE"
    status = 413
    title = "Body too large"


class Problem(Answer):
    """`{"status", "title", "error", "code", "hint"}`."""

    media_type = "application/problem+json"

    def __init__(self, error: DucklingError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem_answer(error), status_code=error.status, headers=headers)
        if isinstance(error, UnauthorizedError):
            self.headers["WWW-Authenticate"] = "Bearer"


def problem_answer(error: DucklingError) -> ProblemAnswer:
    """The fields of an error, as answers carry them."""
    optional = {} if error.table is None else {"table": error.table}
    return ProblemAnswer(
        status=error.status,
        title=_title(error),
        error=error.message,
        code=error.code,
        hint=error.hint,
        **optional,
    )


def _title(error: DucklingError) -> str:
    """The class's title, unless the error has a code of its own: then that code in words."""
    return error.title if error.code == type(error).code else error.code.replace("_", " ").capitalize()


async def duckling_error(_request: Request, error: Exception) -> Response:
    """Answers an error that was raised on purpose."""
    assert isinstance(error, DucklingError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR and error.code == DucklingError.code:
        log.error("http.failed", exc_info=error)
    return Problem(error)


class _HttpError(DucklingError):
    def __init__(self, error: HTTPException) -> None:
        status = HTTPStatus(error.status_code)
        code, hint = {
            HTTPStatus.NOT_FOUND: ("NOT_FOUND", "check the path"),
            HTTPStatus.METHOD_NOT_ALLOWED: ("METHOD_NOT_ALLOWED", "the Allow header names the methods"),
        }.get(status, (status.name, ""))
        super().__init__(
            {
                HTTPStatus.NOT_FOUND: "there is no such path",
                HTTPStatus.METHOD_NOT_ALLOWED: "this path does not take that method",
            }.get(status, status.phrase),
            hint=hint,
            code=code,
        )
        self.status = error.status_code
        self.title = status.phrase


async def http_error(_request: Request, error: Exception) -> Response:
    """Answers what Starlette raises: no such path, method not allowed."""
    assert isinstance(error, HTTPException)
    return Problem(_HttpError(error), headers=error.headers)


class LastDefence:
    """Answers an unexpected exception with 500 and no detail; the trace goes to the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            log.exception("http.crashed", method=scope["method"])
            if started:
                raise
            error = DucklingError("the request failed inside Duckling", hint="the log has the details")
            await Problem(error)(scope, receive, send)
