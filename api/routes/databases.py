"""The databases of the service: added, changed, tested and removed while it runs."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from api import answers
from api.answers import Answer
from api.models import (
    DatabaseAnswer,
    DatabaseRemoved,
    DatabasesAnswer,
    DatabaseTest,
    FindingAnswer,
    ServerAnswer,
)
from api.parameters import Flag
from api.problems import MalformedError, problem_answer
from api.requests import in_thread, read_body, service
from cdc.databases import DatabaseDefinition
from cdc.errors import DucklingError
from cdc.inspection import inspect_source
from cdc.registered import Registered

DELETE_FILE = Flag("deleteFile", "Delete the DuckDB file too.", default=False)


async def listed(request: Request) -> Response:
    """All databases; passwords are masked."""
    known = service(request)

    def read() -> list[DatabaseAnswer]:
        return [answers.database(entry) for entry in known.registry]

    return Answer(DatabasesAnswer(databases=await in_thread(known.threads.probes, read)))


async def one(request: Request) -> Response:
    """One database."""
    entry = service(request).registry.entry(request.path_params["id"])
    return await _answer(request, entry)


async def add(request: Request) -> Response:
    """Adds a database and starts it; the answer's `state` and `error` say whether it could be."""
    known = service(request)
    definition = await read_body(request, DatabaseDefinition)
    entry = await in_thread(known.threads.control, known.registry.add, definition)
    prefix = "/api" if request.url.path.startswith("/api/") else ""
    return await _answer(request, entry, 201, {"Location": f"{prefix}/databases/{entry.id}"})


async def change(request: Request) -> Response:
    """Replaces a database's definition; a masked password stands for the one that is known.

    It is stopped and started again unless only its name is another. Fields that are left out get their
    defaults; a masked password is taken for the same user, host and port only.
    """
    known = service(request)
    known.registry.entry(request.path_params["id"])
    definition = await read_body(request, DatabaseDefinition)
    if definition.id != request.path_params["id"]:
        raise MalformedError("the id in the body is another than that in the path", hint="ids can't change")
    entry = await in_thread(known.threads.runs, known.registry.replace, definition)
    return await _answer(request, entry)


async def remove(request: Request) -> Response:
    """Stops and forgets a database. Its DuckDB file stays, unless it is asked away."""
    known = service(request)
    delete = DELETE_FILE.read(request)
    deleted = await in_thread(
        known.threads.runs, known.registry.remove, request.path_params["id"], delete_file=delete
    )
    message = "the database is removed, its file deleted" if deleted else "the database is removed"
    return Answer(DatabaseRemoved(success=True, message=message, file_deleted=deleted))


async def test(request: Request) -> Response:
    """Connects and runs every preflight check; changes nothing."""
    known = service(request)
    entry = known.registry.entry(request.path_params["id"])

    def look() -> DatabaseTest:
        assert entry.definition is not None
        settings = known.settings if entry.fixed else entry.definition.settings(known.settings)
        try:
            found = inspect_source(settings)
        except DucklingError as error:
            return DatabaseTest(
                success=False, server=None, tables=[], findings=[], error=problem_answer(error)
            )
        return DatabaseTest(
            success=found.replicable,
            server=ServerAnswer(flavor=str(found.server.flavor), version=found.version),
            tables=[table.name for table in found.tables],
            findings=[FindingAnswer(**asdict(finding)) for finding in found.findings],
            error=None,
        )

    return Answer(await in_thread(known.threads.control, look))


async def _answer(
    request: Request, entry: Registered, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    body = await in_thread(service(request).threads.probes, answers.database, entry)
    return Answer(body, status, headers)
