"""Source and copy compared: at one position, and one table's details side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import quote, urlencode

import anyio
from starlette.requests import Request
from starlette.responses import Response

from api import answers
from api.answers import Answer
from api.models import (
    Done,
    RunAccepted,
    SideAnswer,
    TableDetailsAnswer,
    TableDetailsRequest,
    ValidationRunAnswer,
)
from api.problems import problem_answer
from api.requests import in_thread, pipeline, read_body, service
from api.routes.sync import COMPARE, REPAIR, TABLE, WAIT
from cdc.errors import DucklingError, NotFoundError
from cdc.validation.details import SideDetails
from cdc.validation.validations import ValidationRun

if TYPE_CHECKING:
    from cdc.status import ValidationReport

_ASK_SECONDS = 0.5
"""How often a waiting request asks whether its client is still there."""


async def validate(request: Request) -> Response:
    """Source and copy compared at one position; who goes away ends it."""
    found = pipeline(request)
    mode = cast(Literal["count", "checksum"], COMPARE.read(request) or "count")
    table, repair, wait = TABLE.text(request), REPAIR.read(request), WAIT.read(request)
    threads = service(request).threads
    run = await in_thread(threads.runs, found.start_validation, mode, table, repair=repair)
    if not wait:
        return _accepted(request, run)
    return Answer(answers.validation(await _report(request, run)))


async def run_status(request: Request) -> Response:
    """One validation, under way or done: where the `Location` of an answer 202 points."""
    run = await _run(request)
    return Answer(_run_answer(run))


async def cancel(request: Request) -> Response:
    """Ends a validation that is under way."""
    run = await _run(request)
    running = not run.done
    if running:
        await in_thread(service(request).threads.control, run.cancel)
    message = "the validation is cancelled" if running else "the validation had ended"
    return Answer(Done(success=True, message=message))


async def table_details(request: Request) -> Response:
    """Columns, rows, largest key and checksum of one table on both sides."""
    found = pipeline(request)
    asked = await read_body(request, TableDetailsRequest)
    details = await in_thread(
        service(request).threads.runs,
        found.table_details,
        asked.table_name,
        skip_source_count=asked.skip_source_count,
    )
    error = details.error
    return Answer(
        TableDetailsAnswer(
            duckdb=_side(details.copy),
            mysql=_side(details.source),
            columns_match=details.copy.columns == details.source.columns,
            missing_columns=list(details.missing_columns),
            extra_columns=list(details.extra_columns),
            error_type=error.code if error is not None else None,
            error_message=error.message if error is not None else None,
        )
    )


async def _report(request: Request, run: ValidationRun) -> ValidationReport:
    """What the run finds. It is cancelled when the client hangs up."""

    async def watch() -> None:
        while not await request.is_disconnected():
            await anyio.sleep(_ASK_SECONDS)
        run.cancel()

    failure: DucklingError | None = None
    report: ValidationReport | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            report = await in_thread(service(request).threads.runs, run.report)
        except DucklingError as error:
            failure = error  # raised outside of the group, which would wrap it
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    assert report is not None
    return report


async def _run(request: Request) -> ValidationRun:
    found = pipeline(request)
    run = await in_thread(service(request).threads.control, found.run, request.path_params["run"])
    if not isinstance(run, ValidationRun):
        raise NotFoundError(
            "there is no such validation", hint="GET /sync/validate?wait=false", code="RUN_NOT_FOUND"
        )
    return run


def _accepted(request: Request, run: ValidationRun) -> Response:
    prefix = "/api" if request.url.path.startswith("/api/") else ""
    location = f"{prefix}/sync/validations/{quote(run.id, safe='')}"
    database = request.query_params.get("db")
    if database:
        location = f"{location}?{urlencode({'db': database})}"
    body = RunAccepted(run_id=run.id, kind=run.kind, location=location)
    return Answer(body, status_code=202, headers={"Location": location})


def _run_answer(run: ValidationRun) -> ValidationRunAnswer:
    done = run.done  # before the tables: what is done has no more progress
    tables = [answers.table_progress(each) for each in run.progress()]
    if not done:
        return ValidationRunAnswer(run_id=run.id, kind="validation", done=False, tables=tables)
    try:
        result = answers.validation(run.report(0))
    except DucklingError as error:
        problem = problem_answer(error)
        return ValidationRunAnswer(run_id=run.id, kind="validation", done=True, tables=tables, error=problem)
    return ValidationRunAnswer(run_id=run.id, kind="validation", done=True, tables=tables, result=result)


def _side(side: SideDetails) -> SideAnswer:
    return SideAnswer(
        exists=side.exists,
        column_count=len(side.columns),
        record_count=side.rows,
        columns=list(side.columns),
        max_id=side.max_id,
        checksum=side.checksum,
    )
