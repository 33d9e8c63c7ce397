"""The data itself: read-only SQL, and tables with their columns and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import duckdb
from starlette.requests import Request
from starlette.responses import Response

from api.answers import Answer, Json
from api.requests import QueryRequest, in_thread, pipeline, read_body, service
from cdc.errors import NotFoundError
from cdc.query import run_query
from cdc.schema import quote_duckdb

if TYPE_CHECKING:
    from cdc.pipeline import Pipeline

T = TypeVar("T")


async def query(request: Request) -> Response:
    """Runs one reading statement; limits above the service's are lowered to them."""
    found = pipeline(request)
    asked = await read_body(request, QueryRequest)
    settings = service(request).settings
    result = await _read(
        request,
        found,
        lambda cursor: run_query(
            cursor,
            asked.sql,
            asked.params,
            min(asked.max_rows or settings.query_max_rows, settings.query_max_rows),
            min(asked.timeout_ms or settings.query_timeout_ms, settings.query_timeout_ms),
        ),
    )
    return Answer(
        {
            "success": True,
            "columns": [{"name": column.name, "type": column.type} for column in result.columns],
            "result": result.rows,
            "rowCount": len(result.rows),
            "truncated": result.truncated,
            "duration": result.duration_ms,
        }
    )


async def tables(request: Request) -> Response:
    """The names of the replicated tables."""
    found = pipeline(request)
    names = await in_thread(service(request).threads.queries, found.table_names)
    return Answer({"tables": names})


async def schema(request: Request) -> Response:
    """A table's columns, in order."""
    found = pipeline(request)
    name = await _known_table(request, found)

    def read(cursor: duckdb.DuckDBPyConnection) -> list[Json]:
        rows = cursor.execute(f"DESCRIBE {_qualified(name)}").fetchall()
        return [
            {
                "name": column,
                "type": type_name,
                "nullable": nullable == "YES",
                "primaryKey": key == "PRI",
                "default": default,
            }
            for column, type_name, nullable, key, default, _ in rows
        ]

    return Answer({"table": name, "columns": await _read(request, found, read)})


async def count(request: Request) -> Response:
    """A table's number of rows."""
    found = pipeline(request)
    name = await _known_table(request, found)
    counts = await _read(request, found, lambda cursor: _count(cursor, [name]))
    return Answer({"table": name, "count": counts[name]})


async def counts(request: Request) -> Response:
    """The number of rows of every table, all of one moment."""
    found = pipeline(request)
    names = await in_thread(service(request).threads.queries, found.table_names)
    found_counts = await _read(request, found, lambda cursor: _count(cursor, names))
    return Answer({"counts": found_counts, "total": sum(found_counts.values())})


async def _read(request: Request, found: Pipeline, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    def run() -> T:
        with service(request).readers.reading(found) as cursor:
            return work(cursor)

    return await in_thread(service(request).threads.queries, run)


async def _known_table(request: Request, found: Pipeline) -> str:
    """The table of the path, spelled as the copy spells it. Raises NotFoundError (TABLE_NOT_FOUND)."""
    asked: str = request.path_params["table"]
    names = await in_thread(service(request).threads.queries, found.table_names)
    for name in names:
        if name.lower() == asked.lower():
            return name
    raise NotFoundError(
        "there is no such table in the copy", hint="GET /tables names them", code="TABLE_NOT_FOUND"
    )


def _count(cursor: duckdb.DuckDBPyConnection, names: list[str]) -> dict[str, int]:
    """Counts in one statement, hence of one moment."""
    if not names:
        return {}
    values = ", ".join(f"(SELECT count(*) FROM {_qualified(name)})" for name in names)
    row = cursor.execute(f"SELECT {values}").fetchone()
    assert row is not None
    return dict(zip(names, row, strict=True))


def _qualified(name: str) -> str:
    return f"main.{quote_duckdb(name)}"
