"""Commands that talk to the running service: sync, status, validate, query, clear."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console

from cdc.cli.output import AsJson, print_json, print_table
from cdc.cli.validation import print_validation
from cdc.config import load_settings
from cdc.errors import ConfigError, DucklingError

if TYPE_CHECKING:
    import httpx
    from rich.progress import TaskID

ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings file instead of duckling.toml.")]
Url = Annotated[str | None, typer.Option("--url", help="The service's address instead of HOST and PORT.")]
Database = Annotated[str | None, typer.Option("--db", help="Id of the database.")]

_POLL_SECONDS = 0.2
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class ServiceError(DucklingError):
    """The service answered with a problem, or not at all."""

    code = "SERVICE"


def sync(
    full: Annotated[bool, typer.Option("--full", help="Copy again.")] = False,
    incremental: Annotated[bool, typer.Option("--incremental", help="Apply what changed (default).")] = False,
    table: Annotated[str | None, typer.Option(help="One table alone.")] = None,
    db: Database = None,
    url: Url = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Copy or bring up to date, and wait for it."""
    if full and incremental:
        raise typer.BadParameter("give --full or --incremental, not both")
    params = {"wait": "false"}
    if table is not None:
        path = f"/sync/table/{quote(table, safe='')}"
        if full:
            params["mode"] = "full"
    else:
        path = "/sync/full" if full else "/sync/incremental"
    with _service(url, config, db) as service:
        result = _result(service, _answer(service.post(path, params=params)), quiet=as_json)
    if as_json:
        print_json(result)
    else:
        print(
            f"{result['successfulTables']} of {result['totalTables']} tables,"
            f" {result['totalRecords']} rows in {result['totalDuration']} ms"
        )
        for each in result["tables"]:
            if each["status"] == "error":
                print(f"{each['table']}: {each.get('error', 'failed')}")
    if result["failedTables"]:
        raise typer.Exit(1)


def status(db: Database = None, url: Url = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show where every database and table stands."""
    with _service(url, config) as service:
        body = _answer(service.get("/status"))
    if db is not None:
        body["databases"] = [each for each in body["databases"] if each["id"] == db]
        if not body["databases"]:
            raise ServiceError(
                "there is no such database", hint="duckling status names them", code="DATABASE_NOT_FOUND"
            )
    if as_json:
        print_json(body)
        return
    for database in body["databases"]:
        lag = database["lagSeconds"]
        behind = "lag unknown" if lag is None else f"{lag:.3f} s behind"
        print(f"{database['id']}: {database['state']}, {behind}")
        if database["lastError"]:
            print(f"  last error: {database['lastError']}")
        if database["hint"]:
            print(f"  hint: {database['hint']}")
        if database["tables"]:
            print_table(
                ("table", "state", "rows", "error"),
                ((t["table"], t["state"], t["rows"], t["error"] or "") for t in database["tables"]),
            )


def validate(
    checksum: Annotated[bool, typer.Option("--checksum", help="Compare contents, not counts.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Write rows that differ again; needs --checksum.")
    ] = False,
    table: Annotated[str | None, typer.Option(help="One table alone.")] = None,
    db: Database = None,
    url: Url = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare source and copy at one position; exit status 1 where they differ and are not repaired."""
    if repair and not checksum:
        raise typer.BadParameter("--repair needs --checksum: counts don't tell which rows differ")
    params = {"mode": "checksum" if checksum else "count", "wait": "false"}
    if table is not None:
        params["table"] = table
    if repair:
        params["repair"] = "true"
    with _service(url, config, db) as service:
        body = _result(service, _answer(service.get("/sync/validate", params=params)), quiet=as_json)
    if as_json:
        print_json(body)
    else:
        print_validation(body)
    if any("repair" not in each for each in body["mismatches"]):
        raise typer.Exit(1)


def query(
    sql: Annotated[str, typer.Argument(help="One reading statement.")],
    max_rows: Annotated[int | None, typer.Option(min=1, help="Rows to print at most.")] = None,
    db: Database = None,
    url: Url = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Run a read-only query on the copy."""
    asked: dict[str, Any] = {"sql": sql}
    if max_rows is not None:
        asked["maxRows"] = max_rows
    with _service(url, config, db) as service:
        body = _answer(service.post("/query", json=asked))
    if as_json:
        print_json(body)
        return
    names = [column["name"] for column in body["columns"]]
    print_table(names, ([row[name] for name in names] for row in body["result"]))
    more = ", more would follow" if body["truncated"] else ""
    print(f"{body['rowCount']} rows in {body['duration']} ms{more}")


def clear(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    db: Database = None,
    url: Url = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Stop the stream and drop every replicated table and all state."""
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("give --yes where nobody can be asked")
        typer.confirm("Drop every replicated table?", abort=True)
    with _service(url, config, db) as service:
        body = _answer(service.delete("/sync/clear-all"))
    if as_json:
        print_json(body)
    else:
        print(body["message"])


@contextmanager
def _service(url: str | None, config: Path | None, db: str | None = None) -> Iterator[httpx.Client]:
    import httpx  # here: `serve` shares this module, and would start a tenth of a second later

    settings = load_settings(config)
    host = _EVERY_ADDRESS.get(settings.host, settings.host)
    base = url or f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    headers = {"Authorization": f"Bearer {settings.api_keys[0].decode()}"} if settings.api_keys else {}
    try:
        # A sync or a validation takes as long as it takes; only reaching the service has a limit.
        with httpx.Client(
            base_url=base,
            headers=headers,
            params={"db": db} if db else None,
            timeout=httpx.Timeout(None, connect=5.0),
            trust_env=False,
        ) as client:
            yield client
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise ConfigError("--url is not an address", hint="for example http://127.0.0.1:3001") from None
    except httpx.TransportError:
        raise ServiceError(
            f"no service answers at {base}",
            hint="start it with duckling serve, or set HOST and PORT to where it runs",
            code="SERVICE_UNREACHABLE",
        ) from None


def _result(service: httpx.Client, accepted: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """The result of the run that was `accepted`, once it is done; Ctrl-C cancels it. Raises its error."""
    try:
        run = _follow(service, accepted["location"], quiet=quiet)
    except KeyboardInterrupt:
        service.delete(accepted["location"])
        raise
    if "error" in run:
        raise _problem(run["error"])
    result: dict[str, Any] = run["result"]
    return result


def _problem(body: dict[str, Any]) -> ServiceError:
    """The error that a problem document tells."""
    return ServiceError(
        str(body.get("error", "the request failed")),
        hint=str(body.get("hint", "")),
        code=str(body.get("code", ServiceError.code)),
    )


def _answer(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ServiceError(
            f"something other than Duckling answers there (status {response.status_code})",
            hint="check HOST and PORT",
        )
    if response.is_success:
        return body
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        raise ServiceError(str(body.get("error")), hint="set DUCKLING_API_KEY to the service's key")
    raise _problem(body)


def _follow(service: httpx.Client, location: str, *, quiet: bool) -> dict[str, Any]:
    """The run at `location` once it is done; meanwhile a bar a table, on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=quiet or not sys.stderr.isatty(),
    )
    tasks: dict[str, TaskID] = {}
    with bars:
        while True:
            run = _answer(service.get(location))
            for each in run["tables"]:
                name = each["table"]
                if name not in tasks:
                    tasks[name] = bars.add_task(name)
                done = each["state"] == "done"
                total = each["rowsDone"] if done else max(each["estimatedRows"], each["rowsDone"])
                bars.update(tasks[name], completed=each["rowsDone"], total=total)
            if run["done"]:
                return run
            time.sleep(_POLL_SECONDS)
