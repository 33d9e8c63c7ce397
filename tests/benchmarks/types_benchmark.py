"""`python -m tests.benchmarks.types_benchmark`: nanoseconds per value, for each type and both ways."""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table as Grid

from cdc.sandbox.databases import create_database
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import running
from cdc.values.text import text_column
from tests.types.cases import create, groups, insert
from tests.types.cells import Unconverted, gather, place_in_log

_ROWS_A_STATEMENT = 1_000


@dataclass(frozen=True)
class Speed:
    """Nanoseconds per value of one type, from text (copy) and from row images (stream) into Arrow."""

    kind: str
    copied: float
    streamed: float


def measure(flavor: Flavor, rows: int, repeat: int) -> Iterator[Speed]:
    """Every type of the server with `rows` generated values, the best of `repeat` runs."""
    cases = [case for group in groups(flavor).values() for case in group]
    r = random.Random(4711)
    with running(flavor) as server:
        database = create_database(server)
        since = place_in_log(database)
        writer = database.connect(sql_mode="")
        for i, case in enumerate(cases):
            database.execute(create(f"t{i}", [case], keyed=True))
            for first in range(0, rows, _ROWS_A_STATEMENT):
                ids = range(first, min(rows, first + _ROWS_A_STATEMENT))
                insert(writer, f"t{i}", [case], {number: [case.value(r)] for number in ids})
        with closing(gather(database, since)) as found:
            for each in found:
                yield _speed(cases[int(each.table.name[1:])].kind, each, repeat)
        database.drop()


def _speed(kind: str, found: Unconverted, repeat: int) -> Speed:
    column, cells = found.table.columns[1], found.copied[1]
    alone = replace(found.table, columns=(column,), primary_key=())
    copied = _best(repeat, lambda: text_column(column, cells))
    streamed = _best(repeat, lambda: found.streamed.to_arrow(alone))
    return Speed(kind, copied / len(cells), streamed / len(cells))


def _best(repeat: int, work: Callable[[], object]) -> float:
    """Nanoseconds of the fastest run."""
    took = []
    for _ in range(repeat):
        began = time.perf_counter_ns()
        work()
        took.append(time.perf_counter_ns() - began)
    return min(took)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.types_benchmark", description="Nanoseconds per value."
    )
    parser.add_argument("--server", choices=[str(flavor) for flavor in Flavor], default="mysql")
    parser.add_argument("--rows", type=int, default=5_000, metavar="N", help="values of each type (5000)")
    parser.add_argument(
        "--repeat", type=int, default=5, metavar="N", help="runs, the best of which counts (5)"
    )
    chosen = parser.parse_args(arguments)
    console = Console()
    load = os.getloadavg()[0]
    grid = Grid("type", title=f"{chosen.server}, {chosen.rows} values, load average {load:.1f}")
    grid.add_column("copy, ns", justify="right")
    grid.add_column("stream, ns", justify="right")
    for speed in measure(Flavor(chosen.server), chosen.rows, chosen.repeat):
        kind = speed.kind if len(speed.kind) <= 44 else speed.kind[:43] + "…"
        grid.add_row(kind, f"{speed.copied:.0f}", f"{speed.streamed:.0f}")
    console.print(grid)


if __name__ == "__main__":
    main()
