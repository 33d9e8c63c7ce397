"""Copies, incremental syncs and their progress, and clearing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from api import answers
from api.answers import Answer
from api.models import (
    Cleared,
    ProgressAnswer,
    RunAccepted,
    RunAnswer,
    RunName,
    RunsAnswer,
    SyncStatusAnswer,
)
from api.parameters import Choice, Flag, Number, Parameter
from api.problems import problem_answer
from api.requests import DATABASE, in_thread, pipeline, service
from cdc.errors import DucklingError

if TYPE_CHECKING:
    from cdc.runs import Run

LOG_ENTRIES = 100
WAIT = Flag("wait", "Whether to answer when it is done, else 202 and where to look.", default=True)
FRESH = Choice("mode", "`full` forces a fresh copy.", words=("full",))
COMPARE = Choice("mode", "Compare numbers of rows (default), or contents.", words=("count", "checksum"))
TABLE = Parameter("table", "This table alone.")
REPAIR = Flag("repair", "Copy the rows that differ again.", default=False)
LIMIT = Number("limit", "How many at most.", default=100, low=1, high=1000)


async def full(request: Request) -> Response:
    """Copies every table again."""
    found = pipeline(request)
    wait = WAIT.read(request)
    run = await in_thread(service(request).threads.control, found.start_full_sync)
    return await _answer(request, run, wait)


async def incremental(request: Request) -> Response:
    """Returns when everything is applied that the source had committed before the call."""
    found = pipeline(request)
    wait = WAIT.read(request)
    run = await in_thread(service(request).threads.control, found.start_incremental_sync)
    return await _answer(request, run, wait)


async def table(request: Request) -> Response:
    """One table."""
    found = pipeline(request)
    wait = WAIT.read(request)
    mode = cast(Literal["full"] | None, FRESH.read(request))
    name: str = request.path_params["table"]
    run = await in_thread(service(request).threads.control, found.start_table_sync, name, mode)
    if not wait:
        return _accepted(request, run)
    result = await in_thread(service(request).threads.runs, run.wait)
    # Tables that a foreign key ties to it are copied with it.
    asked = min(result.tables, key=lambda each: (each.table != name, each.table.lower() != name.lower()))
    return Answer(answers.table_result(asked))


async def run_status(request: Request) -> Response:
    """One run, under way or done: where the `Location` of an answer 202 points."""
    found = pipeline(request)
    threads = service(request).threads
    run = await in_thread(threads.control, found.run, request.path_params["run"])
    return Answer(await in_thread(threads.control, _run_answer, run))


async def runs(request: Request) -> Response:
    """The latest runs as recorded, newest first; one that a restart cut short is `interrupted`."""
    found = pipeline(request)
    records = await in_thread(service(request).threads.control, found.recent_runs, LIMIT.read(request))
    return Answer(RunsAnswer(runs=[answers.run_entry(record) for record in records]))


async def cancel(request: Request) -> Response:
    """Asks a run to end; what it has not made live is dropped. One that has ended stays as it is."""
    found = pipeline(request)
    threads = service(request).threads
    run = await in_thread(threads.control, found.cancel_run, request.path_params["run"])
    return Answer(await in_thread(threads.control, _run_answer, run))


async def status(request: Request) -> Response:
    """Watermarks, the log of runs, and where each table stands."""
    found = pipeline(request)

    def read() -> SyncStatusAnswer:
        log = found.sync_log(LOG_ENTRIES)
        return SyncStatusAnswer(
            is_running=found.current_run() is not None,
            watermarks=[answers.watermark(each) for each in found.watermarks()],
            recent_logs=[answers.log_entry(entry) for entry in log],
            tables=[answers.table_state(each) for each in found.status().tables],
            tables_processed=len({entry.table for entry in log if entry.table is not None}),
            total_records=sum(entry.records for entry in log),
            success_count=sum(entry.status == "success" for entry in log),
            error_count=sum(entry.status == "error" for entry in log),
        )

    return Answer(await in_thread(service(request).threads.control, read))


async def progress(request: Request) -> Response:
    """The run under way, table by table."""
    found = pipeline(request)

    def read() -> ProgressAnswer:
        run = found.current_run()
        if run is None:
            return ProgressAnswer(is_running=False, run=None, tables=[])
        return ProgressAnswer(
            is_running=True,
            run=RunName(id=run.id, kind=run.kind),
            tables=[answers.table_progress(each) for each in run.progress()],
        )

    return Answer(await in_thread(service(request).threads.control, read))


async def clear(request: Request) -> Response:
    """Drops every replicated table and all state."""
    found = pipeline(request)
    dropped = await in_thread(service(request).threads.runs, found.clear)
    return Answer(Cleared(success=True, message=f"{dropped} tables dropped", tables_dropped=dropped))


async def _answer(request: Request, run: Run, wait: bool) -> Response:
    if not wait:
        return _accepted(request, run)
    result = await in_thread(service(request).threads.runs, run.wait)
    return Answer(answers.sync_result(result))


def _accepted(request: Request, run: Run) -> Response:
    prefix = "/api" if request.url.path.startswith("/api/") else ""
    location = f"{prefix}/sync/runs/{quote(run.id, safe='')}"
    database = DATABASE.text(request)
    if database:
        location = f"{location}?{urlencode({'db': database})}"
    body = RunAccepted(run_id=run.id, kind=run.kind, location=location)
    return Answer(body, status_code=202, headers={"Location": location})


def _run_answer(run: Run) -> RunAnswer:
    done = run.done
    tables = [answers.table_progress(each) for each in run.progress()]
    if not done:
        return RunAnswer(run_id=run.id, kind=run.kind, done=False, tables=tables)
    try:
        result = answers.sync_result(run.wait(0))
    except DucklingError as error:
        return RunAnswer(run_id=run.id, kind=run.kind, done=True, tables=tables, error=problem_answer(error))
    return RunAnswer(run_id=run.id, kind=run.kind, done=True, tables=tables, result=result)
