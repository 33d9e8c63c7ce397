"""The data itself: read-only SQL as JSON or as a file, and tables with their columns, counts and pages."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from typing import IO, TYPE_CHECKING, cast

import anyio
import anyio.to_thread
import duckdb
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.answers import Answer
from api.models import (
    ColumnAnswer,
    CountAnswer,
    CountsAnswer,
    PageAnswer,
    QueryAnswer,
    QueryRequest,
    SchemaAnswer,
    SchemaChangeEntry,
    TableColumn,
    TablesAnswer,
)
from api.negotiation import JSON, accepted
from api.parameters import Number, Parameter
from api.requests import in_thread, pipeline, read, read_body, service
from cdc.errors import NotFoundError
from cdc.export import Export, Format, export_query
from cdc.pages import read_page
from cdc.query import ResultColumn, run_query
from cdc.replica import state
from cdc.replica.schema_history import read_changes
from cdc.schema import quote_duckdb

if TYPE_CHECKING:
    from cdc.pipeline import Pipeline

LIMIT = Number("limit", "Rows on a page.", default=100, low=1, high=10_000)
CURSOR = Parameter("cursor", "`nextCursor` of the page before.")
MEDIA: dict[str, Format] = {
    "text/csv": "csv",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.parquet": "parquet",
}
"""Formats of `POST /query` besides JSON, by media type."""
_CHUNK = 1 << 18


async def query(request: Request) -> Response:
    """Runs one reading statement. Limits above the service's are lowered to them.

    The `Accept` header chooses JSON, CSV, an Arrow IPC stream or Parquet. The last three tell their number of
    rows and whether more would have followed in the headers `X-Row-Count` and `X-Truncated`.
    """
    media = accepted(request.headers.get("accept"), (JSON, *MEDIA))
    found = pipeline(request)
    asked = await read_body(request, QueryRequest)
    settings = service(request).settings
    timeout_ms = min(asked.timeout_ms or settings.query_timeout_ms, settings.query_timeout_ms)
    if media != JSON:
        rows = min(asked.max_rows or settings.export_max_rows, settings.export_max_rows)
        return await _file(request, found, asked, media, rows, timeout_ms)
    rows = min(asked.max_rows or settings.query_max_rows, settings.query_max_rows)
    result = await read(
        request,
        found,
        lambda cursor: run_query(cursor, asked.sql, asked.params, rows, timeout_ms, settings.query_max_bytes),
    )
    return Answer(
        QueryAnswer.model_construct(
            success=True,
            columns=_columns(result.columns),
            result=result.rows,
            row_count=len(result.rows),
            truncated=result.truncated,
            duration=result.duration_ms,
        )
    )


async def _file(
    request: Request, found: Pipeline, asked: QueryRequest, media: str, rows: int, timeout_ms: int
) -> Response:
    """The result by way of a file without a name, beside the DuckDB file: it is gone when it is closed."""
    settings = service(request).settings

    def write(cursor: duckdb.DuckDBPyConnection) -> tuple[IO[bytes], Export]:
        file = cast(IO[bytes], tempfile.TemporaryFile(dir=found.settings.duckdb_path.parent))  # noqa: SIM115 - the answer closes it
        try:
            export = export_query(
                cursor,
                asked.sql,
                asked.params,
                file,
                MEDIA[media],
                max_rows=rows,
                timeout_ms=timeout_ms,
                max_bytes=settings.export_max_bytes,
            )
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file, export

    file, export = await read(request, found, write)
    headers = {
        "Content-Length": str(export.size),
        "X-Row-Count": str(export.rows),
        "X-Truncated": str(export.truncated).lower(),
    }
    content_type = "text/csv; charset=utf-8; header=present" if media == "text/csv" else media
    return StreamingResponse(
        _chunks(file), media_type=content_type, headers=headers, background=BackgroundTask(file.close)
    )


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    try:
        while chunk := await anyio.to_thread.run_sync(file.read, _CHUNK):
            yield chunk
    finally:
        file.close()


async def tables(request: Request) -> Response:
    """The names of the replicated tables."""
    found = pipeline(request)
    names = await in_thread(service(request).threads.queries, found.table_names)
    return Answer(TablesAnswer(tables=names))


async def schema(request: Request) -> Response:
    """A table's columns, in order, and its schema changes, the latest first."""
    found = pipeline(request)
    name = await _known_table(request, found)

    def shape(cursor: duckdb.DuckDBPyConnection) -> SchemaAnswer:
        return SchemaAnswer(table=name, columns=_table_columns(cursor, name), history=_history(cursor, name))

    return Answer(await read(request, found, shape))


def _table_columns(cursor: duckdb.DuckDBPyConnection, name: str) -> list[TableColumn]:
    comments = cursor.execute(
        "SELECT column_name, comment FROM duckdb_columns() WHERE schema_name = 'main' AND table_name = ?",
        [name],
    ).fetchall()
    declared = dict(comments)
    key = _key(cursor, name)
    rows = cursor.execute(f"DESCRIBE {_qualified(name)}").fetchall()
    return [
        TableColumn(
            name=column,
            type=type_name,
            source_type=declared.get(column),
            nullable=nullable == "YES",
            primary_key=column in key,
            default=default,
        )
        for column, type_name, nullable, _, default, _ in rows
    ]


def _history(cursor: duckdb.DuckDBPyConnection, name: str) -> list[SchemaChangeEntry]:
    return [
        SchemaChangeEntry(
            statement=change.statement,
            kind=change.kind,
            outcome=change.outcome.value,
            reason=change.reason,
            file=change.file,
            position=change.offset,
            gtid=change.gtid,
            source_time=change.source_time,
            recorded_at=change.recorded_at,
        )
        for change in read_changes(cursor, name)
    ]


async def page(request: Request) -> Response:
    """A page of a table, in the order of its primary key; `nextCursor` leads to the next one.

    Rows that come or go between two calls are met or missed by the place of their key; none is met twice. A
    table without a primary key has no order that lasts, hence one page and no cursor.
    """
    limit, cursor = LIMIT.read(request), CURSOR.text(request)
    found = pipeline(request)
    name = await _known_table(request, found)
    known = service(request)
    result = await read(
        request,
        found,
        lambda reader: read_page(
            reader,
            known.cursors,
            found.id,
            name,
            _key(reader, name),
            limit=limit,
            cursor=cursor,
            timeout_ms=known.settings.query_timeout_ms,
            max_bytes=known.settings.query_max_bytes,
        ),
    )
    return Answer(
        PageAnswer.model_construct(
            table=name,
            columns=_columns(result.columns),
            data=result.rows,
            row_count=len(result.rows),
            next_cursor=result.next_cursor,
            truncated=result.truncated,
        )
    )


async def count(request: Request) -> Response:
    """A table's number of rows."""
    found = pipeline(request)
    name = await _known_table(request, found)
    counts = await read(request, found, lambda cursor: _count(cursor, [name]))
    return Answer(CountAnswer(table=name, count=counts[name]))


async def counts(request: Request) -> Response:
    """The number of rows of every table, all of one moment."""
    found = pipeline(request)
    names = await in_thread(service(request).threads.queries, found.table_names)
    found_counts = await read(request, found, lambda cursor: _count(cursor, names))
    return Answer(CountsAnswer(counts=found_counts, total=sum(found_counts.values())))


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


def _key(cursor: duckdb.DuckDBPyConnection, table: str) -> tuple[str, ...]:
    """The columns of a table's primary key at the source, in its order; none where it has no key."""
    record = state.load_tables(cursor).get(table)
    return record.definition.primary_key if record is not None and record.definition is not None else ()


def _columns(columns: tuple[ResultColumn, ...]) -> list[ColumnAnswer]:
    return [ColumnAnswer(name=column.name, type=column.type) for column in columns]


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
