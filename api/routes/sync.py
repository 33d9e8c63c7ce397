"""Copies, incremental syncs and their progress, validation, and clearing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from api import answers
from api.answers import Answer, Json
from api.problems import problem_body
from api.requests import choice, flag, in_thread, pipeline, service
from cdc.errors import DucklingError

if TYPE_CHECKING:
    from cdc.runs import Run

LOG_ENTRIES = 100


async def full(request: Request) -> Response:
    """Copies every table again."""
    found = pipeline(request)
    wait = flag(request, "wait", default=True)
    run = await in_thread(service(request).threads.control, found.start_full_sync)
    return await _answer(request, run, wait)


async def incremental(request: Request) -> Response:
    """Returns when everything is applied that the source had committed before the call."""
    found = pipeline(request)
    wait = flag(request, "wait", default=True)
    run = await in_thread(service(request).threads.control, found.start_incremental_sync)
    return await _answer(request, run, wait)


async def table(request: Request) -> Response:
    """One table."""
    found = pipeline(request)
    wait = flag(request, "wait", default=True)
    mode = cast(Literal["full"] | None, choice(request, "mode", ("full",)))
    run = await in_thread(
        service(request).threads.control, found.start_table_sync, request.path_params["table"], mode
    )
    if not wait:
        return _accepted(request, run)
    result = await in_thread(service(request).threads.runs, run.wait)
    return Answer(answers.table_result(result.tables[0]))


async def run_status(request: Request) -> Response:
    """One run, under way or done: where the `Location` of an answer 202 points."""
    found = pipeline(request)
    threads = service(request).threads
    run = await in_thread(threads.control, found.run, request.path_params["run"])
    return Answer(await in_thread(threads.control, _run_body, run))


async def status(request: Request) -> Response:
    """Watermarks, the log of runs, and where each table stands."""
    found = pipeline(request)

    def read() -> Json:
        log = found.sync_log(LOG_ENTRIES)
        return {
            "isRunning": found.current_run() is not None,
            "watermarks": found.watermarks(),
            "recentLogs": [answers.log_entry(entry) for entry in log],
            "tables": [answers.table_state(each) for each in found.status().tables],
            "tablesProcessed": len({entry.table for entry in log if entry.table is not None}),
            "totalRecords": sum(entry.records for entry in log),
            "successCount": sum(entry.status == "success" for entry in log),
            "errorCount": sum(entry.status == "error" for entry in log),
        }

    return Answer(await in_thread(service(request).threads.control, read))


async def progress(request: Request) -> Response:
    """The run under way, table by table."""
    found = pipeline(request)

    def read() -> Json:
        run = found.current_run()
        if run is None:
            return {"isRunning": False, "run": None, "tables": []}
        return {
            "isRunning": True,
            "run": {"id": run.id, "kind": run.kind},
            "tables": [answers.table_progress(each) for each in run.progress()],
        }

    return Answer(await in_thread(service(request).threads.control, read))


async def validate(request: Request) -> Response:
    """Source and copy compared at one position."""
    found = pipeline(request)
    mode = choice(request, "mode", ("count", "checksum")) or "count"
    report = await in_thread(
        service(request).threads.runs,
        found.validate,
        cast(Literal["count", "checksum"], mode),
        request.query_params.get("table"),
    )
    return Answer(answers.validation(report))


async def clear(request: Request) -> Response:
    """Drops every replicated table and all state."""
    found = pipeline(request)
    dropped = await in_thread(service(request).threads.runs, found.clear)
    return Answer({"success": True, "message": f"{dropped} tables dropped", "tablesDropped": dropped})


async def _answer(request: Request, run: Run, wait: bool) -> Response:
    if not wait:
        return _accepted(request, run)
    result = await in_thread(service(request).threads.runs, run.wait)
    return Answer(answers.sync_result(result))


def _accepted(request: Request, run: Run) -> Response:
    prefix = "/api" if request.url.path.startswith("/api/") else ""
    location = f"{prefix}/sync/runs/{quote(run.id, safe='')}"
    database = request.query_params.get("db")
    if database:
        location = f"{location}?{urlencode({'db': database})}"
    body = {"runId": run.id, "kind": run.kind, "location": location}
    return Answer(body, status_code=202, headers={"Location": location})


def _run_body(run: Run) -> Json:
    body: Json = {
        "runId": run.id,
        "kind": run.kind,
        "done": run.done,
        "tables": [answers.table_progress(each) for each in run.progress()],
    }
    if body["done"]:
        try:
            result = run.wait(0)
        except DucklingError as error:
            body["error"] = problem_body(error)
        else:
            body["result"] = {
                **answers.sync_result(result),
                "tables": [answers.table_result(each) for each in result.tables],
            }
    return body
