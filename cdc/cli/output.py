"""How the command line prints: errors in two lines, tables on a terminal, JSON for scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cdc.errors import DucklingError
from cdc.logs import mask

_ENDLESS = 100_000
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_error(error: DucklingError) -> None:
    """`error: …` and `hint: …` on standard error."""
    print(f"error: {mask(' '.join(error.message.split()))}", file=sys.stderr)
    if error.hint:
        print(f"hint: {' '.join(error.hint.split())}", file=sys.stderr)


def print_json(body: object) -> None:
    """`body` as indented JSON on standard output."""
    sys.stdout.write(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode() + "\n")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on standard output; numbers to the right, nothing cut off."""
    table = Table()
    for heading in headings:
        table.add_column(cell(heading), overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    console().print(table)


def console() -> Console:
    """Standard output; lines are broken on a terminal only."""
    return Console(width=None if sys.stdout.isatty() else _ENDLESS, highlight=False)


def cell(value: Any, style: str = "") -> Text:
    """`value` as text without markup; control characters, which could steer the terminal, are escaped."""
    if value is None:
        return Text("NULL", style="dim")
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return Text(text, style=style, justify="right" if numeric else None)
