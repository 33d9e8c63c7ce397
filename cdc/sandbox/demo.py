"""`duckling demo`: a real MySQL, the sample shop, the service, a live load, and the contents compared."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType

import duckdb
from rich.console import Console

from cdc.errors import ConfigError, DucklingError
from cdc.sandbox import probe as probe_module
from cdc.sandbox import shop
from cdc.sandbox.board import Board
from cdc.sandbox.comparison import Comparison, compare_table
from cdc.sandbox.databases import Database, GivenServer, create_database, session
from cdc.sandbox.folders import PrivateFolder
from cdc.sandbox.installation import Flavor
from cdc.sandbox.load import Load, LoadFigures
from cdc.sandbox.monitor import Monitor, applied
from cdc.sandbox.probe import LagFigures, Probe
from cdc.sandbox.servers import running
from cdc.sandbox.service import Service

DATABASE = "duckling_demo"
LOAD_RATE = 300.0
"""Transactions a second; each changes several rows."""
COPY_SECONDS = 300.0
LOOK_SECONDS = 0.25
TABLES = (*shop.TABLES, probe_module.TABLE)

_SERVER_OPTIONS = ("--innodb-buffer-pool-size=256M",)


def run_demo(*, seconds: float, mysql_url: str | None = None, console: Console) -> int:
    """Runs the whole demo with a live load of `seconds`; returns the exit status.

    0: the copy equals the source. 1: it differs. 130: interrupted. `mysql_url` names an existing server,
    where the database `duckling_demo` is made and dropped; without it a MySQL of the demo's own is started.
    Whatever it started is ended in every case. Raises DucklingError where a part fails.
    """
    try:
        with _terminated_as_interrupt(), ExitStack() as stack:
            return _run(seconds, mysql_url, console, stack)
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return 130


def _run(seconds: float, mysql_url: str | None, console: Console, stack: ExitStack) -> int:
    database = stack.enter_context(_source(mysql_url, console))
    _load_shop(database, console)

    folder = stack.enter_context(PrivateFolder("demo")).path
    service = stack.enter_context(Service(database.url, folder))
    began = time.monotonic()
    service.start()
    console.print(f"duckling serve on port {service.port}", highlight=False)

    monitor = Monitor(database.connect(), service, TABLES)
    with Board(console) as board:
        copied = _watch_copy(monitor, board)
        copy_seconds = time.monotonic() - began
        load, lag = _run_load(seconds, database, service, monitor, board)
        service.post("/sync/incremental")
        stream = monitor.stream()
        board.show(monitor.streaming("all applied"))

    status = service.stop()
    if status != 0:
        raise DucklingError(
            f"duckling serve ended with status {status}", hint=_last_line(service.log) or "it wrote no log"
        )
    console.print("comparing every value of every row", highlight=False)
    equal = _compare(database, service.duckdb_path, console)
    _print_figures(console, copied, copy_seconds, applied(stream), load, lag)
    return 0 if equal else 1


@contextmanager
def _source(mysql_url: str | None, console: Console) -> Iterator[Database]:
    """An empty database `duckling_demo`, dropped at the end where the server is not ours."""
    if mysql_url:
        given = GivenServer(mysql_url)
        console.print(f"{given.flavor} {given.version}, the given server", highlight=False)
        _drop_own(given)
        database = create_database(given, DATABASE)
        try:
            yield database
        finally:
            database.drop()
        return
    with running(Flavor.MYSQL, *_SERVER_OPTIONS) as server:
        console.print(f"MySQL {server.version} on port {server.port}", highlight=False)
        database = create_database(server, DATABASE)
        try:
            yield database
        finally:
            database.drop()


def _drop_own(server: GivenServer) -> None:
    """Drops what an earlier demo left. Raises ConfigError where the database is somebody else's."""
    with session(server.url()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", (DATABASE,))
        if cursor.fetchone() is None:
            return
        cursor.execute(
            "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s",
            (DATABASE, "customers"),
        )
        row = cursor.fetchone()
    if row is None or row[0] != shop.MARK:
        raise ConfigError(
            f"the server has a database {DATABASE} that no demo made",
            hint=f"drop or rename {DATABASE}, or give another server",
        )
    Database(server, DATABASE).drop()


def _load_shop(database: Database, console: Console) -> None:
    began = time.monotonic()
    connection = database.connect()
    shop.create_tables(connection)
    Probe.create_table(database.url)
    rows = shop.fill_tables(connection)
    seconds = time.monotonic() - began
    console.print(
        f"sample shop: {rows:,} rows in {len(shop.TABLES)} tables, loaded in {seconds:.1f} s", highlight=False
    )


def _watch_copy(monitor: Monitor, board: Board) -> int:
    """Returns the number of copied rows when every table streams."""
    deadline = time.monotonic() + COPY_SECONDS
    while True:
        sight, done = monitor.copying()
        board.show(sight)
        if done:
            return sight.copy_rows
        if time.monotonic() > deadline:
            raise DucklingError(f"the copy was not done after {COPY_SECONDS:.0f} s", hint="try it once more")
        time.sleep(LOOK_SECONDS)


def _run_load(
    seconds: float, database: Database, service: Service, monitor: Monitor, board: Board
) -> tuple[LoadFigures, LagFigures]:
    def seen() -> int:
        [row] = service.query(f"SELECT coalesce(max(id), 0) AS id FROM {probe_module.TABLE}", client=reader)
        return int(row["id"])

    with closing(service.client()) as reader:
        probe = Probe(database.url, seen).start()
        load = Load(database.url, rate=LOAD_RATE).start()
        end = time.monotonic() + seconds
        try:
            while (left := end - time.monotonic()) > 0:
                board.show(monitor.streaming(f"live load, {left:.0f} s left", probe))
                load.check()
                time.sleep(min(LOOK_SECONDS, left))
        finally:
            # Also where a look failed: both threads end before the sessions and the server do.
            load.end()
            probe.end()
        return load.stop(), probe.stop()


def _compare(database: Database, path: Path, console: Console) -> bool:
    """Compares all tables and prints the differences; whether there are none."""
    source = database.connect()
    with duckdb.connect(str(path), read_only=True) as copy:
        results = [compare_table(source, copy, table) for table in TABLES]
    for result in results:
        if not result.equal:
            _print_difference(console, result)
    if all(result.equal for result in results):
        rows = sum(result.source_rows for result in results)
        console.print(f"[bold green]equal[/]: {rows:,} rows in {len(results)} tables", highlight=False)
        return True
    console.print("[bold red]different[/]")
    return False


def _print_difference(console: Console, result: Comparison) -> None:
    console.print(
        f"{result.table}: {result.source_rows:,} rows at the source, {result.copy_rows:,} in the copy; "
        f"{result.only_source:,} only at the source, {result.only_copy:,} only in the copy",
        highlight=False,
    )
    for sample in result.samples:
        console.print(f"  {sample}", highlight=False, markup=False, soft_wrap=True)


def _print_figures(
    console: Console, copied: int, copy_seconds: float, changes: int, load: LoadFigures, lag: LagFigures
) -> None:
    rate = copied / copy_seconds if copy_seconds else 0.0
    lines = [
        f"copied   {copied:,} rows in {copy_seconds:.1f} s, the service's start included: {rate:,.0f} rows/s",
        f"applied  {changes:,} changed rows; the load committed {load.transactions:,} transactions"
        f" and undid {load.rollbacks:,}",
    ]
    if lag.p50 is not None and lag.p95 is not None and lag.highest is not None:
        lines.append(
            f"lag      p50 {lag.p50:.0f} ms, p95 {lag.p95:.0f} ms, max {lag.highest:.0f} ms"
            f" ({lag.rows:,} probe rows, from commit to query)"
        )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1] if lines else ""


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM unwinds as Ctrl-C does; only the main thread may set a handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
