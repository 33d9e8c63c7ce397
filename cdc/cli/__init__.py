"""The command line: `duckling` and `python -m cdc.cli`.

Exit status: 0 fine, 1 failed, 2 wrong usage. Errors are two lines on standard error, `error: …`, `hint: …`.
"""

from __future__ import annotations

import sys

import typer

from cdc.cli import client, local
from cdc.cli.output import print_error
from cdc.errors import DucklingError

app = typer.Typer(
    name="duckling",
    help="Keeps a DuckDB file continuously equal to a MySQL or MariaDB database.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    local.serve,
    local.check,
    local.demo,
    client.sync,
    client.status,
    client.validate,
    client.query,
    client.clear,
):
    app.command()(command)


def main() -> None:
    """Runs the command that the arguments name and exits."""
    try:
        app()
    except DucklingError as error:
        print_error(error)
        sys.exit(1)
