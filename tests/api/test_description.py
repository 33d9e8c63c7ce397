"""The OpenAPI document and its page: made from the routes, and true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.endpoints import ENDPOINTS
from cdc.sandbox.databases import Database
from tests.api.conftest import KEY, WAIT, replicated
from tests.api.test_sync import done

EXAMPLES = examples(
    max_examples=12,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""Requests generated for each path."""
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
"""That an answer of 503 is a failure is not checked: a database that is away is described."""


@pytest.fixture
def client(mysql_database: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    mysql_database.execute(
        "CREATE TABLE orders (id INT PRIMARY KEY, note VARCHAR(50))", "INSERT INTO orders VALUES (1, 'one')"
    )
    with replicated(mysql_database.url, tmp_path, auto_start_sync=True) as (client, pipeline):
        pipeline.wait_streaming(WAIT)
        yield client


def test_every_path_is_described_with_what_it_takes_and_says(client: httpx.Client) -> None:
    document = done(client.get("/openapi.json"))
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(each.method, re.sub(r":path", "", each.path)) for each in ENDPOINTS}
    names = set()
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"].endswith("."), operation
            names.add(operation["operationId"])
    assert len(names) == len(ENDPOINTS)
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
    query = document["components"]["schemas"]["QueryRequest"]["properties"]
    assert set(query) == {"sql", "params", "maxRows", "timeoutMs"}
    assert done(client.get("/api/openapi.json")) == document


class Links(HTMLParser):
    """What a page loads, links to and names."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: set[str] = set()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.names.add(value)
            if tag == "a" and name == "href" and value:
                self.links.add(value)
            elif name in {"src", "href"} and value:
                self.loads.append(value)
        if tag in {"script", "iframe", "object", "img"}:
            self.loads.append(tag)


def test_the_page_needs_nothing_from_elsewhere_and_its_links_lead_somewhere(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    found = Links()
    found.feed(answer.text)
    assert found.loads == []
    assert {link.removeprefix("#") for link in found.links} <= found.names
    assert "http://" not in answer.text.replace("http://127.0.0.1", "")
    for endpoint in ENDPOINTS:
        assert re.sub(r":path", "", endpoint.path) in answer.text


@pytest.mark.timeout(600)
def test_generated_requests_get_only_answers_that_are_described(client: httpx.Client) -> None:
    schema = schemathesis.openapi.from_dict(done(client.get("/openapi.json")))
    schema.config.update(base_url=str(client.base_url))
    headers = {"Authorization": f"Bearer {KEY}"}
    met = set()
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()

        @EXAMPLES
        @given(case=operation.as_strategy())
        def call(case: schemathesis.Case[Any]) -> None:
            answer = case.call(headers=headers, timeout=WAIT)
            assert answer.status_code != 500, answer.text
            case.validate_response(answer, checks=CHECKS, headers=headers)

        call()
        met.add((operation.method.upper(), operation.path))
    assert len(met) == len(ENDPOINTS)
