"""Errors as answers."""

from __future__ import annotations

import logging
from collections.abc import Callable

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from api.access import MAX_BODY_BYTES, KnownRoute
from cdc.errors import ConflictError, SourceUnavailableError

Serve = Callable[..., httpx.Client]
FIELDS = {"status", "title", "error", "code", "hint"}


def problem(answer: httpx.Response) -> dict[str, object]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert set(body) >= FIELDS
    assert body["status"] == answer.status_code
    return body


def test_an_unknown_path_is_404(serve: Serve) -> None:
    client = serve()
    for path in ("/nothing", "/api/nothing", "/status/", "/api", "/"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert problem(answer)["code"] == "NOT_FOUND"


def test_a_wrong_method_is_405_and_names_the_right_ones(serve: Serve) -> None:
    answer = serve().delete("/status")
    assert answer.status_code == 405
    assert problem(answer)["code"] == "METHOD_NOT_ALLOWED"
    assert "GET" in answer.headers["Allow"]


def test_reading_never_changes_state(serve: Serve) -> None:
    client = serve()
    for path in ("/sync/full", "/sync/incremental", "/cdc/start", "/cdc/stop", "/sync/clear-all"):
        assert client.get(path).status_code == 405


def test_an_unknown_database_is_404(serve: Serve) -> None:
    client = serve()
    for method, path in (("GET", "/cdc/status"), ("POST", "/sync/full"), ("GET", "/tables")):
        answer = client.request(method, path, params={"db": "missing"})
        assert answer.status_code == 404
        assert problem(answer)["code"] == "DATABASE_NOT_FOUND"


def test_a_body_beyond_the_limit_is_413(serve: Serve) -> None:
    client = serve()
    announced = client.post("/query", content=b"x" * (MAX_BODY_BYTES + 1))
    assert announced.status_code == 413
    assert problem(announced)["code"] == "BODY_TOO_LARGE"


def test_errors_of_the_tree_carry_code_hint_and_status(serve: Serve) -> None:
    async def busy(_request: Request) -> Response:
        raise ConflictError("a sync runs", hint="wait for it", table="orders")

    async def away(_request: Request) -> Response:
        raise SourceUnavailableError("the source does not answer", hint="is it up?")

    client = serve(KnownRoute("/busy", busy), KnownRoute("/away", away))
    answer = client.get("/busy")
    assert answer.status_code == 409
    assert problem(answer) == {
        "status": 409,
        "title": "Sync already running",
        "error": "a sync runs",
        "code": "SYNC_ALREADY_RUNNING",
        "hint": "wait for it",
        "table": "orders",
    }
    assert client.get("/away").status_code == 503


def test_an_error_with_a_code_of_its_own_has_that_title(serve: Serve) -> None:
    answer = serve().get("/tables", params={"db": "missing"})
    assert problem(answer)["title"] == "Database not found"


def test_an_unexpected_error_is_logged_and_answered_without_its_text(
    serve: Serve, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)

    async def crash(_request: Request) -> Response:
        raise RuntimeError("SELECT hush FROM /var/lib/hush")

    client = serve(KnownRoute("/crash", crash))
    answer = client.get("/crash")
    assert answer.status_code == 500
    assert problem(answer)["code"] == "INTERNAL"
    assert "hush" not in answer.text
    assert client.get("/livez").status_code == 200
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "http.crashed" in logged
    assert "RuntimeError" in logged
