"""What strangers and careless scripts send: never a 500, never a secret."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.endpoints import ENDPOINTS
from cdc.sandbox.databases import Database
from tests.api.conftest import KEY, WAIT, replicated
from tests.api.test_serve import account, running_service, streaming, with_login
from tests.api.test_sync import done

SECRET = "hush-w0rd-of-the-test"
REQUESTS = 1_000
PIECES = (
    "",
    "'",
    '"',
    "`",
    ";",
    "--",
    "/*",
    "%00",
    "%0d%0aX-Injected:%201",
    "..%2f..%2fetc%2fpasswd",
    "%ff%fe",
    "🦆",
    "' OR '1'='1",
    "orders; DROP TABLE orders",
    "../../etc/passwd",
    "true",
    "-1",
    "99999999999999999999",
    "NaN",
    "null",
    "[]",
    "{}",
    "${jndi:ldap://x}",
    "a" * 3000,
    "default",
    "orders",
)
BODIES = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"0",
    b'"x"',
    b"{",
    b"\xff\xfe",
    b'{"sql": null}',
    b'{"sql": "SELECT 1", "params": [1e400]}',
    b'{"sql": "SELECT ?", "params": [{"a": [1]}]}',
    b'{"sql": "SELECT $a", "params": {"b": 1}}',
    b'{"sql": "SELECT ?", "params": [99999999999999999999999999999999999999999999]}',
    b'{"sql": "SELECT \\u0000"}',
    b'{"sql": "SELECT \\ud800"}',
    b'{"sql": ""}',
    b'{"sql": "SELECT 1", "maxRows": 99999999999999999999}',
    b'{"sql": "SELECT 1", "timeoutMs": 1}',
    b'{"sql": "SELECT * FROM test_all_types()"}',
    b'{"sql": "SELECT 1", "sql": "DROP TABLE orders"}',
    b'{"tableName": "orders"}',
    b'{"tableName": "x\\u0000"}',
    b'{"id": "x", "mysqlConnectionString": "mysql://u:p@[::1/d"}',
    b'{"id": "y", "mysqlConnectionString": "mysql://u:p@h:99999/d"}',
    b'{"id": "z", "mysqlConnectionString": "mysql://u:p@h/d", "duckdbPath": "\\ud800"}',
    b"[" * 5000,
    b'{"sql": ' * 500,
)


@pytest.fixture
def client(mysql_database: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    mysql_database.execute("CREATE TABLE orders (id INT PRIMARY KEY)", "INSERT INTO orders VALUES (1)")
    with replicated(mysql_database.url, tmp_path, auto_start_sync=True) as (client, pipeline):
        pipeline.wait_streaming(WAIT)
        yield client


@pytest.mark.timeout(600)
def test_a_thousand_malformed_requests_meet_no_internal_error(client: httpx.Client) -> None:
    chance = random.Random(20_260_101)
    # what would hold a request up for as long as the source likes is asked not to wait
    endpoints = [
        each for each in ENDPOINTS if "clear" not in each.path and not each.path.startswith("/cdc/st")
    ]
    statuses = set()
    for _ in range(REQUESTS):
        endpoint = chance.choice(endpoints)
        path = endpoint.path
        for place in ("{table:path}", "{run}", "{id}"):
            path = path.replace(place, chance.choice(PIECES))
        query = "&".join(
            f"{each.name}={chance.choice(PIECES)}" for each in endpoint.query if chance.random() < 0.4
        )
        method = chance.choice((endpoint.method,) * 9 + ("BREW",))
        target = f"{path}?wait=false&{query}".replace(" ", "+")
        media = chance.choice(("*/*", "application/json", "text/csv", chance.choice(PIECES)[:50]))
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            f"Connection: close\r\nAccept: {media}\r\n"
        )
        body = chance.choice(BODIES) if endpoint.body or chance.random() < 0.2 else b""
        status, text = send(client, head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert status != 500, (head, body, text)
        assert b"Traceback" not in text
        assert b"X-Injected" not in text.partition(b"\r\n\r\n")[0]
        statuses.add(status)
    assert {200, 400, 404} <= statuses
    assert client.get("/livez").status_code == 200
    assert done(client.get("/tables"))["tables"] == ["orders"]


def send(client: httpx.Client, request: bytes) -> tuple[int, bytes]:
    """The status and the whole of an answer to bytes that no client library would send."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=WAIT) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    return int(answer.split(b" ", 2)[1]), answer


def test_a_head_that_no_server_should_take_is_refused(client: httpx.Client) -> None:
    key = f"Authorization: Bearer {KEY}\r\n".encode()
    for request in (
        b"GET /status HTTP/1.1\r\n" + key + b"Connection: close\r\n\r\n",
        b"POST /query HTTP/1.1\r\nHost: x\r\n" + key + b"Content-Length: -5\r\n\r\n",
        b"POST /query HTTP/1.1\r\nHost: x\r\n" + key + b"Content-Length: 99999999999999\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ):
        status, _ = send(client, request)
        assert 400 <= status < 500
    assert client.get("/livez").status_code == 200


def test_no_secret_is_told_anywhere_whatever_goes_wrong(tmp_path: Path, mysql_database: Database) -> None:
    mysql_database.execute("CREATE TABLE orders (id INT PRIMARY KEY)")
    told = []
    with account(mysql_database, SECRET) as name:
        mysql_database.execute(f"GRANT ALL ON *.* TO '{name}'@'%'")
        url = with_login(mysql_database.url, name, SECRET)
        with running_service(tmp_path, mysql_database, mysql_connection_string=url, log_level="DEBUG") as (
            process,
            client,
        ):
            streaming(client)
            stored = {"id": "other", "mysqlConnectionString": url, "excludedTables": ["none"]}
            told.append(client.post("/api/databases", json=stored).text)
            for wrong in (
                {**stored, "id": "a", "mysqlConnectionString": f"mysql://u:{SECRET}@127.0.0.1:1/d"},
                {**stored, "id": "b", "mysqlConnectionString": f"mysql://u:{SECRET}@no.such.host.invalid/d"},
                {**stored, "id": "c", "mysqlConnectionString": f"mysql://u:{SECRET}@h"},
                {**stored, "id": "d", "mysqlConnectionString": f"mysql://u:{SECRET}@@h/d"},
                {**stored, "id": "e", "mysqlConnectionString": f"{SECRET}"},
                {**stored, "id": "f", "mysqlConnectionString": [SECRET]},
                {**stored, "id": SECRET + "/"},
                {**stored, "duckdbPath": f"/{SECRET}", "id": "g"},
            ):
                answer = client.post("/api/databases", json=wrong)
                told.append(answer.text)
                told.append(client.post(f"/api/databases/{wrong['id'][:1]}/test").text)
            mysql_database.execute(f"ALTER USER '{name}'@'%' IDENTIFIED BY 'another-one'")
            told.append(client.post("/api/databases/other/test").text)
            told.append(client.post("/sync/full").text)
            told.append(client.post("/sync/table/orders").text)
            told.append(client.get("/sync/validate").text)
            told += [
                client.get(endpoint.path).text
                for endpoint in ENDPOINTS
                if endpoint.method == "GET" and "{" not in endpoint.path
            ]
            told += [Path(f"/proc/{process.pid}/{name}").read_text() for name in ("cmdline", "comm")]
            process.terminate()
            assert process.wait(WAIT) == 0
    told.append((tmp_path / "service.log").read_text())
    for text in told:
        assert SECRET not in text, text[max(0, text.find(SECRET) - 300) : text.find(SECRET) + 40]
        assert KEY not in text
