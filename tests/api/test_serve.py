"""`duckling serve` as a process: what stops its start, and how it ends."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import httpx
import pytest

from cdc.config import Settings
from cdc.sandbox.databases import Database
from tests.api.conftest import KEY, WAIT

ROOT = Path(__file__).parents[2]


def environment(**settings: object) -> dict[str, str]:
    """This process's environment without its settings, and with those given."""
    names = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name.upper() not in names}
    given = {name.upper(): str(value) for name, value in settings.items()}
    return {**kept, "PYTHONPATH": str(ROOT), **given}


def duckling(folder: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cdc.cli", *arguments],
        env=environment(**settings),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running_service(
    folder: Path, database: Database, **settings: object
) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A `duckling serve` on a port of its own, and a client of it, once it listens."""
    log = folder / "service.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cdc.cli", "serve", "--port", "0"],
            env=environment(
                **{
                    "mysql_connection_string": database.url,
                    "duckdb_path": folder / "copy.db",
                    "duckling_api_key": KEY,
                    **settings,
                }
            ),
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    try:
        port = _port(process, log)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=WAIT,
            trust_env=False,
        ) as client:
            yield process, client
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """The port that the log of the last start names."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline and process.poll() is None:
        for line in reversed(log.read_text().splitlines()):
            if '"service.listening"' in line:
                record = json.loads(line)
                if record["pid"] == process.pid:
                    return int(record["port"])
    raise AssertionError(log.read_text())


def streaming(client: httpx.Client) -> None:
    """Returns when the first copy is done and the stream runs."""
    deadline = time.monotonic() + WAIT
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, client.get("/status").text


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute(
        "CREATE TABLE orders (id INT PRIMARY KEY, note VARCHAR(50))",
        "INSERT INTO orders VALUES (1, 'one'), (2, 'two')",
    )
    return database


def assert_refused(done: subprocess.CompletedProcess[str], *named: str) -> None:
    """One line of error that names the cause, one line of hint, exit status 1, no traceback."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 1, done.stderr
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert "Traceback" not in done.stderr + done.stdout
    for word in named:
        assert word in lines[0], lines[0]


GOOD: dict[str, object] = {"duckling_api_key": KEY, "port": 0}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"mysql_connection_string": "mysql://u@127.0.0.1/db"}, "DUCKLING_API_KEY is not set"),
        (
            {"mysql_connection_string": "mysql://u@127.0.0.1/db", "duckling_api_key": "short"},
            "DUCKLING_API_KEY",
        ),
        (
            {"mysql_connection_string": "mysql://u@127.0.0.1/db", "host": "0.0.0.0", "insecure": "true"},
            "DUCKLING_API_KEY",
        ),
        (GOOD, "MYSQL_CONNECTION_STRING is not set"),
        ({**GOOD, "mysql_connection_string": "postgres://u:hush@h/db"}, "mysql://"),
        ({**GOOD, "mysql_connection_string": "mysql://u:hush@127.0.0.1:3306/"}, "no database"),
        ({**GOOD, "mysql_connection_string": "mysql://u:hush@127.0.0.1:1/db"}, "127.0.0.1:1"),
        ({**GOOD, "mysql_connection_string": "mysql://u:hush@no.such.host.invalid/db"}, "no.such.host"),
        ({**GOOD, "mysql_connection_string": "mysql://u:hush@127.0.0.1/db", "host": "192.0.2.1"}, "HOST"),
        ({**GOOD, "batch_size": "many"}, "batch_size"),
    ],
)
def test_wrong_settings_stop_the_start(tmp_path: Path, settings: dict[str, object], named: str) -> None:
    done = duckling(tmp_path, "serve", **settings)
    assert_refused(done, named)
    assert "hush" not in done.stdout + done.stderr


def test_an_unknown_setting_in_the_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "duckling.toml").write_text("batch_sise = 1\n")
    assert_refused(duckling(tmp_path, "serve", **GOOD), "batch_sise")


def test_an_unknown_option_is_wrong_usage(tmp_path: Path) -> None:
    done = duckling(tmp_path, "serve", "--colour", "green")
    assert done.returncode == 2
    assert "--colour" in done.stderr


def test_a_wrong_password_stops_the_start(tmp_path: Path, shop: Database) -> None:
    with account(shop, "hush-right") as name:
        url = with_login(shop.url, name, "hush-wrong")
        done = duckling(tmp_path, "serve", mysql_connection_string=url, **GOOD)
    assert_refused(done, "Access denied")
    assert "hush" not in done.stdout + done.stderr


def test_a_database_that_does_not_exist_stops_the_start(tmp_path: Path, shop: Database) -> None:
    done = duckling(tmp_path, "serve", mysql_connection_string=f"{shop.url}_missing", **GOOD)
    assert_refused(done, "missing")


def test_a_port_in_use_stops_the_start(tmp_path: Path, shop: Database) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = duckling(tmp_path, "serve", mysql_connection_string=shop.url, **{**GOOD, "port": port})
    assert_refused(done, str(port), "in use")


def test_a_folder_that_can_not_be_written_stops_the_start(tmp_path: Path, shop: Database) -> None:
    (tmp_path / "file").write_text("")
    done = duckling(
        tmp_path,
        "serve",
        mysql_connection_string=shop.url,
        duckdb_path=tmp_path / "file" / "copy.db",
        **GOOD,
    )
    assert_refused(done, "file")


def test_a_file_that_is_no_database_stops_the_start_and_stays(tmp_path: Path, shop: Database) -> None:
    path = tmp_path / "copy.db"
    path.write_text("my diary\n" * 1000)
    done = duckling(tmp_path, "serve", mysql_connection_string=shop.url, duckdb_path=path, **GOOD)
    assert_refused(done, "copy.db")
    assert path.read_text() == "my diary\n" * 1000


def test_a_file_that_another_process_has_open_stops_the_start(tmp_path: Path, shop: Database) -> None:
    path = tmp_path / "copy.db"
    with duckdb.connect(str(path)):
        done = duckling(tmp_path, "serve", mysql_connection_string=shop.url, duckdb_path=path, **GOOD)
    assert_refused(done, "open")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_drains_and_ends_with_status_0(
    tmp_path: Path, shop: Database, number: signal.Signals
) -> None:
    with running_service(tmp_path, shop) as (process, client):
        streaming(client)
        shop.execute("INSERT INTO orders VALUES (3, 'three')")
        client.post("/sync/incremental").raise_for_status()
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(WAIT) == 0
        assert time.monotonic() - began < 10
    with duckdb.connect(str(tmp_path / "copy.db"), read_only=True) as copy:
        assert copy.execute("SELECT count(*) FROM orders").fetchone() == (3,)
    assert not (tmp_path / "copy.db.wal").exists()


def test_a_stop_under_load_is_quick_and_a_restart_goes_on(tmp_path: Path, shop: Database) -> None:
    with running_service(tmp_path, shop) as (process, client):
        streaming(client)
        with closing(shop.connect()) as connection, connection.cursor() as cursor:
            for number in range(10, 500):
                cursor.execute("INSERT INTO orders VALUES (%s, 'load')", (number,))
                if number == 250:
                    process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(WAIT) == 0
        assert time.monotonic() - began < 10
    with running_service(tmp_path, shop) as (process, client):
        streaming(client)
        client.post("/sync/incremental").raise_for_status()
        body = client.get("/sync/validate").json()
        assert (body["accuracy"], body["results"][0]["duckdbCount"]) == (100.0, 492)


def test_a_sync_that_is_waited_for_does_not_hold_the_exit_up(tmp_path: Path, shop: Database) -> None:
    with running_service(tmp_path, shop) as (process, client):
        streaming(client)
        with closing(shop.connect()) as blocker, blocker.cursor() as cursor:
            cursor.execute("LOCK TABLES orders WRITE")
            client.post("/sync/full", params={"wait": "false"}).raise_for_status()
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT) == 0
            assert time.monotonic() - began < 10


def test_a_long_query_does_not_hold_the_exit_up(tmp_path: Path, shop: Database) -> None:
    with running_service(tmp_path, shop) as (process, client), ThreadPoolExecutor(2) as pool:
        streaming(client)
        asked = {"sql": "SELECT sleep_ms(60000)"}
        slow = [pool.submit(client.post, "/query", json=asked) for _ in range(2)]
        deadline = time.monotonic() + WAIT
        while 'duckling_http_requests_running{route="/query"} 2.0' not in client.get("/metrics").text:
            assert time.monotonic() < deadline
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT) == 0
        assert time.monotonic() - began < 10
        assert {answer.result().json()["code"] for answer in slow} == {"STOPPING"}


def test_no_secret_is_logged_nor_in_the_list_of_processes(tmp_path: Path, shop: Database) -> None:
    with account(shop, "hush-word") as name:
        shop.execute(f"GRANT ALL ON *.* TO '{name}'@'%'")
        with running_service(
            tmp_path, shop, mysql_connection_string=with_login(shop.url, name, "hush-word")
        ) as (process, client):
            streaming(client)
            told = "".join(
                client.get(path).text for path in ("/status", "/health", "/metrics", "/cdc/status")
            )
            command = Path(f"/proc/{process.pid}/cmdline").read_text()
        log = (tmp_path / "service.log").read_text()
    for text in (told, command, log):
        assert "hush-word" not in text
        assert KEY not in text


@contextmanager
def account(database: Database, password: str) -> Iterator[str]:
    """An account of the server without privileges."""
    name = f"t{secrets.token_hex(6)}"
    database.execute(f"CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'")
    try:
        yield name
    finally:
        database.execute(f"DROP USER '{name}'@'%'")


def with_login(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}").geturl()
