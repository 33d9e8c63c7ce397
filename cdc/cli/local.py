"""Commands that work by themselves: serve, check, demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cdc.cli.output import AsJson, cell, console, print_json
from cdc.config import Settings, load_settings
from cdc.errors import ConfigError
from cdc.inspection import Inspection, inspect_source
from cdc.logs import configure_logs
from cdc.source.preflight import Finding

ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings file instead of duckling.toml.")]


def serve(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    duckdb_path: Annotated[Path | None, typer.Option(help="The DuckDB file.")] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Serve without a key, on loopback only.")
    ] = None,
) -> None:
    """Copy the source, follow its binary log, and answer on HTTP, until SIGTERM or Ctrl-C."""
    from api.serve import serve as serve_http

    settings = load_settings(config, host=host, port=port, duckdb_path=duckdb_path, insecure=insecure)
    configure_logs(settings.log_level, settings.log_format)
    serve_http(settings)


def check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Connect to the source and list what keeps it from being replicated, with the mending statements."""
    settings = load_settings(config)
    found = _preflight(settings)
    facts, tables, findings = found.server, found.tables, found.findings
    if as_json:
        print_json(
            {
                "ok": found.replicable,
                "server": {"flavor": facts.flavor, "version": found.version},
                "tables": len(tables),
                "findings": [asdict(finding) for finding in findings],
            }
        )
    else:
        print(f"{facts.flavor} {found.version}, {len(tables)} tables to replicate")
        for finding in findings:
            _print_finding(finding)
        print(_verdict(findings))
    if not found.replicable:
        raise typer.Exit(1)


_COLOURS = {"error": "bold red", "warning": "yellow", "info": "dim"}


def _print_finding(finding: Finding) -> None:
    """Severity and sentence; the mending statement on a line of its own, whole, to be copied."""
    out = console()
    out.print(cell(f"{finding.severity}:", _COLOURS[finding.severity]), cell(finding.message), soft_wrap=True)
    if finding.fix:
        out.print("   ", cell(finding.fix), soft_wrap=True)


def _verdict(findings: Sequence[Finding]) -> str:
    errors = [finding for finding in findings if finding.severity == "error"]
    if any(finding.table is None for finding in errors):
        return "not ready: mend the errors above"
    without = sorted({finding.table for finding in errors if finding.table is not None})
    return f"ready, without {', '.join(without)}" if without else "ready"


def _preflight(settings: Settings) -> Inspection:
    if not settings.mysql_connection_string.get_secret_value():
        raise ConfigError(
            "MYSQL_CONNECTION_STRING is not set", hint="set it to mysql://user:password@host:3306/database"
        )
    return inspect_source(settings)


def demo(
    seconds: Annotated[
        float, typer.Option(envvar="DEMO_SECONDS", min=1, help="How long the live load runs.")
    ] = 20,
    mysql_url: Annotated[
        str | None, typer.Option(envvar="DEMO_MYSQL", help="An existing server: mysql://…")
    ] = None,
) -> None:
    """Start a throw-away MySQL with a sample shop, replicate it under load, and compare the contents."""
    from cdc.sandbox.demo import run_demo

    raise typer.Exit(run_demo(seconds=seconds, mysql_url=mysql_url, console=Console()))
