"""`python -m tests.benchmarks`: measures, prints a table, writes docs/benchmarks.md after a whole run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from cdc.sandbox.folders import PrivateFolder
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import running
from tests.benchmarks import (
    backlog,
    plots,
    report,
    scenarios,
    steady,
    validation_scenarios,
    watermark_scenarios,
)
from tests.benchmarks.figures import Figure
from tests.benchmarks.scenarios import Bench

PLOTS = Path(__file__).parents[2] / "docs" / "benchmarks"
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_SERVER_OPTIONS = ("--innodb-buffer-pool-size=512M", "--max-binlog-size=1G")

Scenario = Callable[[Bench, int], list[Figure]]

_SCENARIOS: dict[str, Scenario] = {
    "many": lambda bench, part: scenarios.catch_up(
        bench, "catching up, events of many rows", "rows/s", 300_000, 500_000 // part, backlog.insert_many
    ),
    "single": lambda bench, part: scenarios.catch_up(
        bench, "catching up, single-row transactions", "transactions/s", 50_000, 100_000 // part,
        backlog.insert_singly,
    ),
    "update": lambda bench, part: scenarios.catch_up(
        bench, "catching up, updates of many rows", "rows/s", None, 250_000 // part,
        backlog.update_many, before=backlog.insert_many,
    ),
    "copy": lambda bench, part: scenarios.copy(bench, "copy with primary key", 350_000, 1_000_000 // part),
    "copy-unindexed": lambda bench, part: scenarios.copy(
        bench, "copy", 350_000, 1_000_000 // part, unindexed=True
    ),
    "polling": watermark_scenarios.few_changes,
    "poll-large": watermark_scenarios.one_large_table,
    "overlap": watermark_scenarios.overlap,
    "freshness": lambda bench, part: scenarios.freshness(bench, max(20, 200 // part)),
    "load": lambda bench, part: steady.under_load(bench, 3_000, max(5, 100 // part)),
    "validation": lambda bench, part: validation_scenarios.validate(bench, 5.0, 1_000_000 // part),
    "idle": lambda bench, part: steady.idle(bench, 20 / part),
    "batches": lambda bench, part: steady.batch_sizes(
        bench, [500, 2_000, 10_000, 50_000, 200_000] if part == 1 else [2_000, 50_000], 500_000 // part
    ),
    "scattered": lambda bench, part: steady.scattered(
        bench, [size // (part * part) for size in (1_000_000, 10_000_000)],
        3_000_000 // (part * part), 5_000 // part, max(5, 100 // part),
    ),
    "scattered-unindexed": lambda bench, part: steady.scattered_unindexed(
        bench, 10_000_000 // (part * part), 3_000_000 // (part * part)
    ),
    "huge": lambda bench, part: steady.scattered(
        bench, [size // (part * part) for size in (1_000_000, 50_000_000)],
        3_000_000 // (part * part), 5_000 // part, max(5, 100 // part),
    ),
}  # fmt: skip
_NOT_UNASKED = {"huge"}
"""Takes a quarter of an hour and 30 GB: `--only huge`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="The figures of speed.")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the sizes; writes no page")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each figure (3)")
    parser.add_argument("--only", nargs="+", choices=_SCENARIOS, help="some of them; writes no page")
    parser.add_argument("--server", choices=[str(f) for f in Flavor], default="mysql", help="the source")
    parser.add_argument(
        "--own-peers", action="store_true", help="without peers that have to be installed; writes no page"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of the service that are not its defaults; writes no page",
    )
    chosen = parser.parse_args(arguments)
    console = Console()
    load = os.getloadavg()[0]
    if not console.is_terminal:
        console = Console(width=180)
    settings = dict(pair.split("=", 1) for pair in chosen.set)
    figures: list[Figure] = []
    failed: list[str] = []
    with (
        running(Flavor(chosen.server), *_SERVER_OPTIONS) as server,
        PrivateFolder("bench") as folder,
    ):
        # Service and peers start as installed programs do, from bytecode.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder.path / "bytecode")
        source = f"{server.flavor} {server.version}"
        console.print(f"{source}; load average {load:.1f}", highlight=False)
        bench = Bench(
            server,
            folder.path,
            chosen.repeat,
            settings,
            lambda text: console.print(text, highlight=False),
            foreign=not chosen.own_peers,
        )
        names = chosen.only or [name for name in _SCENARIOS if name not in _NOT_UNASKED]
        for at, name in enumerate(names):
            try:
                figures += _SCENARIOS[name](bench, 20 if chosen.quick else 1)
            except Exception:  # noqa: BLE001 - the figures of the others are worth having; it is told, and the end is 1
                console.print_exception()
                failed.append(name)
            except KeyboardInterrupt:  # what was measured until then is worth having as well
                failed += names[at:]
                break
        part = chosen.quick or chosen.only or chosen.set or chosen.own_peers
        written = not part and chosen.server == "mysql"
        plots.draw(bench.samples, PLOTS if written else folder.path)
    console.print(report.table(figures))
    if written:
        PAGE.write_text(report.page(figures, source=source, repeat=chosen.repeat, load=load, failed=failed))
        console.print(f"written: {PAGE.relative_to(PAGE.parents[1])}")
    if failed:
        console.print(f"failed: {', '.join(failed)}", style="red")
        sys.exit(1)


if __name__ == "__main__":
    main()
