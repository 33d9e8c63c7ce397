"""Many clients at once while the stream runs.

`DUCKLING_LOAD_SECONDS` sets how long; the usual run of tests takes a few seconds of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import orjson

from cdc.sandbox.databases import Database
from tests.api.conftest import KEY
from tests.api.test_serve import running_service, streaming
from tests.api.test_sync import done

SECONDS = float(os.environ.get("DUCKLING_LOAD_SECONDS", "5"))
CLIENTS = 200
PATIENCE = 60.0
"""Seconds that one call may take on a busy machine before it counts as lost."""
GROWTH = 256 << 20
"""Bytes by which the process may grow between the first quarter of the load and its end: DuckDB's own memory
is bounded by a setting of that size."""
CALLS: tuple[tuple[str, str, dict[str, object] | None, str], ...] = (
    ("GET", "/livez", None, "*/*"),
    ("GET", "/readyz", None, "*/*"),
    ("GET", "/status", None, "*/*"),
    ("GET", "/cdc/status", None, "*/*"),
    ("GET", "/sync/status", None, "*/*"),
    ("GET", "/metrics", None, "*/*"),
    ("GET", "/tables/load/count", None, "*/*"),
    ("GET", "/tables/load/data?limit=50", None, "*/*"),
    ("GET", "/tables/counts/all", None, "*/*"),
    ("POST", "/query", {"sql": "SELECT count(*), sum(n) FROM load"}, "application/json"),
    ("POST", "/query", {"sql": "SELECT * FROM load LIMIT 1000"}, "text/csv"),
    ("POST", "/query", {"sql": "SELECT * FROM load LIMIT 1000"}, "application/vnd.apache.arrow.stream"),
    ("POST", "/query", {"sql": "DELETE FROM load"}, "application/json"),
    ("GET", "/tables/missing/count", None, "*/*"),
    ("GET", "/api/databases", None, "*/*"),
)


def memory(pid: int) -> int:
    """Bytes of memory that the process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def attack(base: httpx.URL, seconds: float) -> Counter[int]:
    """The statuses that `CLIENTS` clients get who call for `seconds`, each on a connection of its own.

    They speak through bare sockets: two hundred clients of a library would take more of the machine than the
    service does.
    """
    statuses: Counter[int] = Counter()
    deadline = time.monotonic() + seconds
    requests = [request(method, path, body, media) for method, path, body, media in CALLS]

    async def one(chance: random.Random) -> None:
        reader, writer = await asyncio.open_connection(base.host, base.port)
        try:
            while time.monotonic() < deadline:
                writer.write(chance.choice(requests))
                async with asyncio.timeout(PATIENCE):
                    statuses[await answered(reader)] += 1
        finally:
            writer.close()
            await writer.wait_closed()

    await asyncio.gather(*(one(random.Random(number)) for number in range(CLIENTS)))
    return statuses


def request(method: str, path: str, body: dict[str, object] | None, media: str) -> bytes:
    content = orjson.dumps(body) if body is not None else b""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nAccept: {media}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    ).encode() + content


async def answered(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, once all of it is there."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return int(head.split(b" ", 2)[1])


def test_two_hundred_clients_neither_break_the_service_nor_hold_the_stream_up(
    tmp_path: Path, mysql_database: Database
) -> None:
    mysql_database.execute("CREATE TABLE `load` (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")
    over = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        with mysql_database.connect() as connection, connection.cursor() as cursor:
            while not over.is_set():
                cursor.execute("INSERT INTO `load` (n) VALUES (1), (2), (3)")
                written += 3

    with running_service(tmp_path, mysql_database, max_lag_seconds=PATIENCE) as (process, client):
        streaming(client)
        writer = threading.Thread(target=write, name="writer")
        writer.start()
        try:
            statuses = asyncio.run(attack(client.base_url, SECONDS / 4))
            grown = memory(process.pid)
            statuses += asyncio.run(attack(client.base_url, SECONDS * 3 / 4))
            during = done(client.get("/tables/load/count"))["count"]
        finally:
            over.set()
            writer.join()
        assert [status for status in statuses if status >= 500] == [], statuses
        assert set(statuses) == {200, 400, 404}, statuses
        assert memory(process.pid) - grown < GROWTH
        # the stream went on meanwhile, and ends with all there is
        assert during > 0
        done(client.post("/sync/incremental"))
        assert done(client.get("/tables/load/count"))["count"] == written
        assert done(client.get("/sync/validate", params={"mode": "checksum"}))["accuracy"] == 100.0
        print(
            f"{sum(statuses.values())} calls in {SECONDS:.0f} s: {dict(statuses)}; {written} rows written,"
            f" {during} applied at the end of the load; {memory(process.pid) >> 20} MB"
        )
