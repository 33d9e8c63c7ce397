"""What the engine is measured against: python-mysql-replication and PyMySQL, each in a process of its own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import pyarrow as pa
import pymysql.cursors
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import UpdateRowsEvent, WriteRowsEvent

from cdc.sandbox.databases import Database, session
from tests.benchmarks.backlog import COLUMNS, TABLE, Stretch, stretch
from tests.benchmarks.memory import peak_megabytes

STREAM = "python-mysql-replication, decoding alone"
COPY = "PyMySQL SSCursor, Arrow, INSERT into DuckDB with the key"
FOLLOW = "python-mysql-replication, INSERT OR REPLACE into DuckDB, no query"

_FETCH_ROWS = 50_000
_REPLICA = (
    "CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR, amt DECIMAL(12,2), note VARCHAR,"
    " ts TIMESTAMP, n INTEGER, d DOUBLE, st TINYINT)"
)


def in_own_process(work: Callable[..., float], *arguments: Any) -> tuple[float, float]:
    """Seconds that `work` returns, and the peak memory of the process that did it, in MB."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        seconds = pool.submit(work, *arguments).result()
        return seconds, pool.submit(peak_megabytes).result()


def _reader(url: str, mariadb: bool, server_id: int, **options: Any) -> Any:
    parts = urlsplit(url)
    settings = {"host": parts.hostname, "port": parts.port, "user": parts.username, "passwd": ""}
    return BinLogStreamReader(
        connection_settings=settings,
        server_id=server_id,
        is_mariadb=mariadb,
        only_events=[WriteRowsEvent, UpdateRowsEvent],
        **options,
    )


def decode(url: str, mariadb: bool, part: Stretch, rows: int) -> float:
    """Seconds in which python-mysql-replication turns a stretch of the binary log into Python rows."""
    began = time.perf_counter()
    seen = 0
    reader = _reader(url, mariadb, 4_000_001, log_file=part.file, log_pos=4, resume_stream=True)
    with closing(reader):
        for event in reader:
            seen += len(event.rows)
    seconds = time.perf_counter() - began
    if seen != rows:
        raise RuntimeError(f"the peer decoded {seen} rows, not {rows}")
    return seconds


def copy(url: str, folder: str, memory_limit: str) -> float:
    """Seconds in which a plain script copies the test table into a new DuckDB file."""
    path = Path(folder) / "peer.db"
    path.unlink(missing_ok=True)
    began = time.perf_counter()
    with (
        duckdb.connect(str(path), config={"memory_limit": memory_limit}) as replica,
        session(url, cursorclass=pymysql.cursors.SSCursor) as connection,
        connection.cursor() as cursor,
    ):
        replica.execute(_REPLICA)
        cursor.execute(f"SELECT {', '.join(COLUMNS)} FROM {TABLE}")
        kinds = (
            pa.int64(), pa.string(), pa.decimal128(12, 2), pa.string(),
            pa.timestamp("us"), pa.int32(), pa.float64(), pa.int8(),
        )  # fmt: skip
        while fetched := cursor.fetchmany(_FETCH_ROWS):
            columns = zip(*fetched, strict=True)
            rows = pa.table(
                [pa.array(cells, kind) for cells, kind in zip(columns, kinds, strict=True)], names=COLUMNS
            )
            replica.from_arrow(rows).insert_into("t")
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def follow(url: str, mariadb: bool, here: Stretch, path: str, moments: Any) -> None:
    """Applies each row to a DuckDB table as it comes, and puts its id and the moment of its commit.

    A row whose id is 0 or less ends it.
    """
    for left in (Path(path), Path(f"{path}.wal")):
        left.unlink(missing_ok=True)
    with (
        duckdb.connect(path) as replica,
        closing(
            _reader(
                url,
                mariadb,
                4_000_002,
                log_file=here.file,
                log_pos=here.end,
                resume_stream=True,
                blocking=True,
            )
        ) as reader,
    ):
        replica.execute(_REPLICA)
        moments.put((0, 0.0))
        for event in reader:
            for row in event.rows:
                values = row["values"]
                if values["id"] <= 0:
                    return
                replica.execute(
                    f"INSERT OR REPLACE INTO t VALUES ({', '.join('?' * len(COLUMNS))})",
                    [values[column] for column in COLUMNS],
                )
                moments.put((values["id"], time.perf_counter()))


class Follower:
    """The peer `follow` in its process; both clocks are the machine's (CLOCK_MONOTONIC)."""

    def __init__(self, database: Database, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._moments: Any = context.Queue()
        arguments = (
            database.url,
            database.flavor == "mariadb",
            stretch(database),
            str(folder / "follower.db"),
            self._moments,
        )
        self._process = context.Process(target=follow, args=arguments, daemon=True)
        self._process.start()
        self.committed(0)

    def committed(self, number: int) -> float:
        """The moment at which the peer had committed the row. Raises queue.Empty after 20 seconds."""
        while True:
            found, moment = self._moments.get(timeout=20)
            if found == number:
                return float(moment)

    def join(self) -> None:
        """Waits for its end, which a row of id 0 or less brings; after ten seconds it is ended."""
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()


@contextmanager
def following(database: Database, folder: Path, end: Callable[[], object]) -> Iterator[Follower]:
    """A peer that follows the binary log from now on; `end` must insert a row of id 0 or less."""
    follower = Follower(database, folder)
    try:
        yield follower
    finally:
        end()
        follower.join()
