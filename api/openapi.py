"""The OpenAPI 3.1 document, made from the paths and the shapes that the service works with."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.endpoints import Endpoint
from api.models import ProblemAnswer
from cdc import __version__

_REFERENCES = "#/components/schemas/{model}"
_PLACE = re.compile(r"\{(\w+)(:path)?\}")
_PROBLEM = "application/problem+json"
_ERRORS = {
    400: "The request can't be read.",
    401: "No key, or a wrong one.",
    404: "No such database, table, run or path.",
    405: "The path does not take that method.",
    406: "None of the formats that the client takes can be answered.",
    409: "The same work is under way, or the name is taken.",
    413: "The body is too large.",
    422: "It can be read, but not be done.",
    503: "The source or the file is not available.",
}
_ABOUT = (
    "Keeps a DuckDB file continuously equal to a MySQL or MariaDB database. Every path answers under `/api` too."
    " Keys are camelCase, times ISO 8601 in UTC, durations whole milliseconds. Keys may be added to answers, none"
    " is renamed. A POST may come without a body where none is described."
)

Document = dict[str, Any]


def describe(endpoints: Iterable[Endpoint]) -> Document:
    """The document for `endpoints`."""
    endpoints = tuple(endpoints)
    schemas = _schemas(endpoints)
    paths: dict[str, Document] = {}
    for endpoint in endpoints:
        path = _PLACE.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Duckling", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "DUCKLING_API_KEY"}
            },
        },
    }


def _schemas(endpoints: tuple[Endpoint, ...]) -> Document:
    shapes: dict[type[BaseModel], None] = {ProblemAnswer: None}
    for endpoint in endpoints:
        for shape in (endpoint.answer, endpoint.body, *endpoint.others.values()):
            if isinstance(shape, type):
                shapes[shape] = None
    # "validation" is what a shape requires: a field with a default may be missing from an answer.
    _, found = models_json_schema([(shape, "validation") for shape in shapes], ref_template=_REFERENCES)
    schemas: Document = found["$defs"]
    return schemas


def _operation(endpoint: Endpoint) -> Document:
    summary, _, rest = inspect.cleandoc(endpoint.handler.__doc__ or "").partition("\n")
    if rest.lstrip().startswith("\n") or not rest or rest.startswith("\n"):
        text = rest.strip()
    else:
        summary, text = f"{summary} {rest.partition(chr(10) * 2)[0]}", rest.partition("\n\n")[2]
    operation: Document = {
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}")
        .replace("_path", "")
        .strip("_"),
        "tags": [endpoint.tag],
        "summary": " ".join(summary.split()),
        "parameters": [*_places(endpoint), *_query(endpoint)],
        "responses": _responses(endpoint),
    }
    if text:
        operation["description"] = " ".join(text.split())
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(endpoint.body)}},
        }
    if endpoint.public:
        operation["security"] = []
    return operation


def _places(endpoint: Endpoint) -> list[Document]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name, _ in _PLACE.findall(endpoint.path)
    ]


def _query(endpoint: Endpoint) -> list[Document]:
    return [
        {
            "name": each.name,
            "in": "query",
            "required": False,
            "description": each.description,
            "schema": each.schema,
        }
        for each in endpoint.query
    ]


def _responses(endpoint: Endpoint) -> Document:
    if isinstance(endpoint.answer, str):
        content: Document = {endpoint.answer: {"schema": {}}}
        meaning = "As its media type says."
    else:
        content = {"application/json": {"schema": _reference(endpoint.answer)}}
        meaning = _meaning(endpoint.answer)
    content |= {media: {"schema": {}} for media in endpoint.media}
    responses: Document = {str(endpoint.status): {"description": meaning, "content": content}}
    for status, shape in endpoint.others.items():
        answer: Document = {"application/json": {"schema": _reference(shape)}}
        responses[str(status)] = {"description": _meaning(shape), "content": answer}
    problem = {_PROBLEM: {"schema": _reference(ProblemAnswer)}}
    for status, meaning in _ERRORS.items():
        if not _may_answer(endpoint, status):
            continue
        if str(status) in responses:
            responses[str(status)]["content"] |= problem
        else:
            responses[str(status)] = {"description": meaning, "content": problem}
    return responses


def _may_answer(endpoint: Endpoint, status: int) -> bool:
    """Whether a request to `endpoint` can fail in that way."""
    if endpoint.public:
        return status in {405, 413}
    if status == 406:
        return bool(endpoint.media)
    if status in {400, 404, 409, 422}:
        return bool(endpoint.query or endpoint.body or "{" in endpoint.path)
    return True


def _reference(shape: type[BaseModel]) -> Document:
    return {"$ref": _REFERENCES.format(model=shape.__name__)}


def _meaning(shape: type[BaseModel]) -> str:
    return " ".join((shape.__doc__ or shape.__name__).split())
