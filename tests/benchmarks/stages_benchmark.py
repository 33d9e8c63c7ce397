"""`python -m tests.benchmarks.stages_benchmark`: what each stage of a row's way costs, one after the other.

A backlog is read from a real server once and kept; each stage then works alone on what the one before it gave, so
that none waits for another, nor for Python's lock. In the service the first two run beside the others.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import duckdb
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table as Grid

from cdc.config import Settings
from cdc.position import Position
from cdc.replica import state
from cdc.replica import tables as replica_tables
from cdc.replica.apply import apply_rows
from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import running
from cdc.schema import NameCase, Table
from cdc.source.batcher import Batch, Batcher
from cdc.source.binlog import BinlogDump, Stretch
from cdc.source.catalog import load_tables
from cdc.source.connection import SourceEndpoint
from cdc.source.rows import RowBuffer
from cdc.source.server import collation_names, server_facts
from cdc.source.stream import BinlogReader
from cdc.types import TypeChoices
from tests.benchmarks import backlog

_SERVER_ID = 4_000_021
_FRAMES, _DECODE, _ARROW, _APPLY, _COMMIT, _CHECKPOINT = (
    "socket → events", "events → rows", "rows → Arrow", "Arrow → DuckDB", "position, commit",
    "checkpoint",
)  # fmt: skip
_STAGES = {
    _FRAMES: "reader",
    _DECODE: "reader",
    _ARROW: "writer",
    _APPLY: "writer",
    _COMMIT: "writer",
    _CHECKPOINT: "writer",
}


@dataclass(frozen=True, slots=True)
class Work:
    """A backlog of `count` rows or transactions, on top of what `before` wrote."""

    name: str
    count: int
    write: Callable[[Database, int], None]
    before: Callable[[Database, int], None] | None = None


_WORKS = (
    Work("inserts, events of many rows", 500_000, backlog.insert_many),
    Work("updates, events of many rows", 250_000, backlog.update_many, backlog.insert_many),
    Work("inserts, a transaction each", 40_000, backlog.insert_singly),
)


class _Replayed:
    """A dump that was read before: the events of `kept`, then a source with nothing more to say."""

    def __init__(self, kept: list[Stretch], checksum: bool) -> None:
        self.checksum = checksum
        self._kept = kept
        self.at_end: Callable[[], None] = lambda: None

    def stretches(self) -> Iterator[Stretch | None]:
        """All of them."""
        yield from self._kept
        self.at_end()
        yield None

    def wake(self) -> None:
        """Nobody waits."""


class Profile:
    """Seconds of each stage, in one pass over the backlog of one work."""

    def __init__(self, database: Database, work: Work, folder: Path) -> None:
        self.seconds = dict.fromkeys(_STAGES, 0.0)
        self._settings = Settings(mysql_connection_string=SecretStr(database.url))
        endpoint = SourceEndpoint(self._settings)
        with closing(endpoint.connect(purpose="a benchmark")) as connection:
            facts, self._collations = server_facts(connection), collation_names(connection)
            [found] = load_tables(connection, database.name)
        table = TypeChoices().applied_to(found)
        part = backlog.stretch(database)
        position = Position(facts.flavor, facts.server_uuid, part.file, 4)
        kept, checksum = self._read(endpoint, position, part.end)
        batches = self._decode(database.name, table, position, _Replayed(kept, checksum))
        if (seen := sum(batch.rows for batch in batches)) != work.count:
            raise RuntimeError(f"the reader found {seen} rows, not {work.count}")
        self._write(folder / "replica.db", table, batches, work)

    @contextmanager
    def _timed(self, stage: str, clock: Callable[[], float] = time.perf_counter) -> Iterator[None]:
        began = clock()
        yield
        self.seconds[stage] += clock() - began

    def _read(self, endpoint: SourceEndpoint, position: Position, end: int) -> tuple[list[Stretch], bool]:
        kept: list[Stretch] = []
        connection = endpoint.connect(purpose="a benchmark")
        dump = BinlogDump(connection, position, server_id=_SERVER_ID, heartbeat=10.0, gtid=False)
        with closing(dump):
            # The thread's own time: the source works for the same rows, and we wait for it.
            with self._timed(_FRAMES, time.thread_time):
                for stretch in dump.stretches():
                    if stretch is None:
                        continue
                    kept.append(stretch)
                    buffer, start = stretch.buffer, stretch.begins[-1]
                    if int.from_bytes(buffer[start + 13 : start + 17], "little") >= end:
                        break
            return kept, dump.checksum

    def _decode(self, schema: str, table: Table, position: Position, dump: _Replayed) -> list[Batch]:
        batches: list[Batch] = []
        batcher = Batcher(
            batches.append,
            lambda: False,
            max_rows=self._settings.batch_size,
            max_bytes=self._settings.batch_bytes,
            max_age=self._settings.batch_age,
        )
        reader = BinlogReader(
            cast(BinlogDump, dump),
            position,
            batcher,
            schema=schema,
            tables={table.name: table},
            names=NameCase(),
            collations=self._collations,
            on_schema_change=lambda _changes, _position: None,
            position_interval=3600.0,
        )
        dump.at_end = reader.stop
        with self._timed(_DECODE):
            reader.run()
        return batches

    def _write(self, path: Path, table: Table, batches: list[Batch], work: Work) -> None:
        path.unlink(missing_ok=True)
        with duckdb.connect(str(path)) as connection, connection.cursor() as cursor:
            cursor.execute("SET checkpoint_threshold = '1TB'")
            state.prepare(cursor, "default", "the benchmark's")
            replica_tables.create(cursor, table, table.name)
            if work.before is not None:
                cursor.execute(
                    f"INSERT INTO {backlog.TABLE} SELECT range, 'customer', 1.5, NULL, TIMESTAMP '2024-01-01',"
                    f" 1, 0.5, 1 FROM range(1, {work.count + 1})"
                )
            cursor.execute("CHECKPOINT")
            is_open = False
            for batch in batches:
                # As the writer does it: parts of a transaction replace, and are committed with its last one.
                replace = is_open or batch.position is None
                if not is_open:
                    cursor.execute("BEGIN")
                for _, rows in batch.buffers:
                    assert isinstance(rows, RowBuffer)
                    with self._timed(_ARROW):
                        columns, operations = rows.to_arrow(table), rows.operations()
                    with self._timed(_APPLY):
                        apply_rows(
                            cursor, table, table.name, columns, operations, overlap=False, replace=replace
                        )
                is_open = batch.position is None
                if batch.position is not None:
                    with self._timed(_COMMIT):
                        state.save_position(cursor, "default", batch.position)
                        cursor.execute("COMMIT")
            with self._timed(_CHECKPOINT):
                cursor.execute("CHECKPOINT")
            counted = cursor.execute(f"SELECT count(*) FROM {backlog.TABLE}").fetchall()[0][0]
            if counted != work.count:
                raise RuntimeError(f"the table holds {counted} rows, not {work.count}")


def measure(flavor: Flavor, repeat: int) -> Iterator[tuple[Work, dict[str, float]]]:
    """Microseconds a row or transaction of each stage, the best of `repeat` runs, for each work."""
    with running(flavor, "--innodb-buffer-pool-size=512M", "--max-binlog-size=1G") as server:
        for work in _WORKS:
            database = create_database(server)
            backlog.create_table(database)
            if work.before is not None:
                work.before(database, work.count)
            backlog.begin_file(database)
            work.write(database, work.count)
            with tempfile.TemporaryDirectory() as folder:
                runs = [Profile(database, work, Path(folder)).seconds for _ in range(repeat)]
            yield work, {stage: min(run[stage] for run in runs) / work.count * 1e6 for stage in _STAGES}
            database.drop()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.stages_benchmark", description="What each stage costs."
    )
    parser.add_argument("--server", choices=[str(flavor) for flavor in Flavor], default="mysql")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="runs, the best counts (5)")
    chosen = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    found = list(measure(Flavor(chosen.server), chosen.repeat))
    grid = Grid("stage", "thread", title=f"{chosen.server}, µs a row, load average {load:.1f}")
    for work, _ in found:
        grid.add_column(work.name, justify="right")
    for stage, thread in _STAGES.items():
        grid.add_row(stage, thread, *(f"{costs[stage]:.2f}" for _, costs in found))
    grid.add_section()
    for each in ("reader", "writer"):
        sums = [sum(costs[stage] for stage in _STAGES if _STAGES[stage] == each) for _, costs in found]
        grid.add_row("alone, rows/s", each, *(f"{1e6 / cost:,.0f}" for cost in sums))
    Console(width=140).print(grid)


if __name__ == "__main__":
    main()
