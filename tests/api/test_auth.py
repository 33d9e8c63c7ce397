"""Keys: closed by default."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from api.app import create_app
from api.endpoints import ENDPOINTS
from cdc.metrics import Metrics
from cdc.registry import Registry
from tests.api.conftest import KEY, OTHER_KEY, make_settings

Serve = Callable[..., httpx.Client]
OPEN = {"/livez", "/readyz", "/health"}


def bare(client: httpx.Client) -> httpx.Client:
    """A client of the same service, without the key."""
    return httpx.Client(base_url=client.base_url, trust_env=False)


def test_every_path_but_the_probes_is_closed_without_a_key(serve: Serve) -> None:
    with bare(serve()) as stranger:
        for endpoint in ENDPOINTS:
            for path in endpoint.paths:
                answer = stranger.request(endpoint.method, re.sub(r"\{[^}]*\}", "t", path))
                assert (answer.status_code == 401) == (path.removeprefix("/api") not in OPEN), path


def test_no_route_exists_beside_those_of_the_table(tmp_path: Path) -> None:
    app = create_app(Registry(), make_settings(tmp_path), Metrics())
    routes = {(path, method) for path, methods in routes_of(app) for method in methods - {"HEAD"}}
    assert routes == {(path, each.method) for each in ENDPOINTS for path in each.paths}


def routes_of(app: Starlette) -> Iterator[tuple[str, set[str]]]:
    for route in app.routes:
        assert isinstance(route, Route)
        yield route.path, set(route.methods or ())


def test_an_unknown_path_tells_a_stranger_nothing(serve: Serve) -> None:
    with bare(serve()) as stranger:
        assert stranger.get("/nothing/here").status_code == 401
        assert stranger.request("BREW", "/livez/").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", f"Bearer {KEY[:-1]}")],
        [("Authorization", f"Bearer {KEY}x")],
        [("Authorization", f"Bearer {KEY},{OTHER_KEY}")],
        [("Authorization", f"Basic {KEY}")],
        [("Authorization", KEY)],
        [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")],
        [("Authorization", "Bearer wrong"), ("Authorization", f"Bearer {KEY}")],
        [("X-API-Key", KEY)],
    ],
)
def test_anything_but_one_right_key_is_refused(serve: Serve, headers: list[tuple[str, str]]) -> None:
    with bare(serve()) as stranger:
        answer = stranger.get("/status", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "UNAUTHORIZED"
    assert KEY not in answer.text


def test_a_key_in_the_query_is_refused(serve: Serve) -> None:
    with bare(serve()) as stranger:
        assert stranger.get("/status", params={"key": KEY, "api_key": KEY}).status_code == 401


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"Bearer {OTHER_KEY}", f"bearer  {KEY}"])
def test_each_of_the_keys_opens(serve: Serve, header: str) -> None:
    with bare(serve()) as stranger:
        assert stranger.get("/status", headers={"Authorization": header}).status_code == 200


def test_keys_are_compared_as_bytes(serve: Serve) -> None:
    key = "ключ-для-проверки"
    with bare(serve(duckling_api_key=key)) as stranger:
        right = {b"Authorization": b"Bearer " + key.encode()}
        wrong = {b"Authorization": b"Bearer \xff\xfe\x80"}
        assert stranger.get("/status", headers=right).status_code == 200
        assert stranger.get("/status", headers=wrong).status_code == 401


def test_metrics_take_the_key_unless_they_are_public(serve: Serve) -> None:
    with bare(serve()) as stranger:
        assert stranger.get("/metrics").status_code == 401
    with bare(serve(metrics_public=True)) as stranger:
        assert stranger.get("/metrics").status_code == 200
        assert stranger.get("/api/metrics").status_code == 200
        assert stranger.get("/status").status_code == 401


def test_without_keys_an_insecure_service_is_open(serve: Serve) -> None:
    with bare(serve(duckling_api_key="", insecure=True)) as stranger:
        assert stranger.get("/status").status_code == 200
