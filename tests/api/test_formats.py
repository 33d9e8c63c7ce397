"""Answers of `POST /query` as CSV, Arrow and Parquet."""

from __future__ import annotations

import csv
import io
import socket
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from api.negotiation import JSON, NotAcceptableError, accepted
from cdc.sandbox.databases import Database
from tests.api.conftest import KEY, WAIT, replicated
from tests.api.test_sync import done
from tests.waiting import wait_until

CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
VALUES = (
    "SELECT 9007199254740993::BIGINT AS big, 1.50::DECIMAL(10,2) AS money, 'a,\"b' AS text, '' AS empty,"
    " NULL::VARCHAR AS nothing, '\\x00\\xFF'::BLOB AS bytes, TIMESTAMPTZ '2024-02-29 01:02:03+00' AS at,"
    " DATE '2024-02-29' AS day, sum(170141183460469231731687303715884::HUGEINT) AS huge,"
    " 'x'::ENUM('x') AS word, INTERVAL '14 months' AS span, [1, 2] AS list"
)


@pytest.fixture
def client(mysql_database: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    """A service that has copied nothing yet: queries work all the same."""
    with replicated(
        mysql_database.url,
        tmp_path,
        export_max_bytes=1 << 20,
        export_max_rows=300_000,
        query_max_bytes=1 << 20,
    ) as (client, _):
        yield client


def ask(client: httpx.Client, sql: str, media: str, **more: Any) -> httpx.Response:
    return client.post("/query", json={"sql": sql, **more}, headers={"Accept": media})


def table_of(answer: httpx.Response) -> pa.Table:
    assert answer.status_code == 200, answer.text
    if answer.headers["Content-Type"] == PARQUET:
        return pa.parquet.read_table(io.BytesIO(answer.content))
    assert answer.headers["Content-Type"] == ARROW
    with pa.ipc.open_stream(answer.content) as reader:
        return reader.read_all()


@pytest.mark.parametrize("media", [ARROW, PARQUET])
def test_arrow_and_parquet_keep_types_and_values(client: httpx.Client, media: str) -> None:
    answer = ask(client, VALUES, media)
    assert table_of(answer).to_pylist() == [
        {
            "big": 9007199254740993,
            "money": Decimal("1.50"),
            "text": 'a,"b',
            "empty": "",
            "nothing": None,
            "bytes": b"\x00\xff",
            "at": datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC),
            "day": date(2024, 2, 29),
            "huge": Decimal(170141183460469231731687303715884),
            "word": "x",
            "span": "1 year 2 months",
            "list": [1, 2],
        }
    ]
    assert (answer.headers["X-Row-Count"], answer.headers["X-Truncated"]) == ("1", "false")
    assert int(answer.headers["Content-Length"]) == len(answer.content)


def test_csv_has_a_head_line_and_tells_null_from_empty(client: httpx.Client) -> None:
    answer = ask(client, VALUES, CSV)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    head, row = csv.reader(io.StringIO(answer.text))
    assert dict(zip(head, row, strict=True)) == {
        "big": "9007199254740993",
        "money": "1.50",
        "text": 'a,"b',
        "empty": "",
        "nothing": "",
        "bytes": "AP8=",
        "at": "2024-02-29T01:02:03Z",
        "day": "2024-02-29",
        "huge": "170141183460469231731687303715884",
        "word": "x",
        "span": "1 year 2 months",
        "list": "[1, 2]",
    }
    assert ',"",,' in answer.text


@pytest.mark.parametrize("media", [ARROW, PARQUET])
def test_an_answer_that_was_cut_says_so_before_its_rows(client: httpx.Client, media: str) -> None:
    whole = ask(client, "SELECT i FROM range(20000) r(i)", media, maxRows=20_000)
    assert table_of(whole).column("i").to_pylist() == list(range(20_000))
    assert whole.headers["X-Truncated"] == "false"
    cut = ask(client, "SELECT i FROM range(1000000000000) r(i)", media, maxRows=19_999)
    assert table_of(cut).column("i").to_pylist() == list(range(19_999))
    assert (cut.headers["X-Row-Count"], cut.headers["X-Truncated"]) == ("19999", "true")


def test_a_result_without_rows_still_has_its_columns(client: httpx.Client) -> None:
    sql = "SELECT 1 AS a, 'x' AS a WHERE false"
    for media in (ARROW, PARQUET):
        assert table_of(ask(client, sql, media)).column_names == ["a", "a_1"]
    assert ask(client, sql, CSV).text == '"a","a_1"\n'


@pytest.mark.parametrize("media", [CSV, ARROW, PARQUET])
def test_errors_are_problems_whatever_the_format(client: httpx.Client, media: str) -> None:
    for sql, status, code in (
        ("DROP TABLE x", 400, "READ_ONLY"),
        ("SELECT * FROM read_text('/etc/hostname')", 400, "READ_ONLY"),
        ("SELECT missing", 400, "QUERY"),
        ("SELECT CASE WHEN i = 90000 THEN error('mine') ELSE i END FROM range(100000) r(i)", 400, "QUERY"),
        ("SELECT i, md5(i::VARCHAR) AS t FROM range(200000) r(i)", 422, "RESULT_TOO_LARGE"),
    ):
        answer = ask(client, sql, media)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert done(answer, status)["code"] == code
    assert done(ask(client, "SELECT sleep_ms(60000)", media, timeoutMs=50), 422)["code"] == "QUERY_TIMEOUT"


def test_a_json_answer_has_a_limit_of_bytes(client: httpx.Client) -> None:
    for sql in (
        "SELECT string_agg(i::VARCHAR) AS t FROM range(1000000) r(i)",
        "SELECT repeat('x', 1000) AS t FROM range(5000)",
        "SELECT list(i) AS l FROM range(1000000) r(i)",
    ):
        assert done(ask(client, sql, JSON), 422)["code"] == "RESULT_TOO_LARGE"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 2000000000)",
        "SELECT repeat('x', 1e9::INT)",
        "SELECT system.main.repeat('x', 2000000000)",
        "SELECT repeat(repeat('x', 50000), 50000)",
        "WITH a AS (SELECT repeat('x', 1000) AS s) SELECT repeat(s, 1000) FROM a",
        "SELECT repeat('x', i) FROM range(2000000000, 2000000001) r(i)",
        "SELECT lpad('x', 2000000000, 'y')",
        "SELECT length(replace(repeat('a', 60000), 'a', repeat('a', 60000)))",
        "SELECT regexp_replace(name, '.', name, 'g') FROM (SELECT repeat('x', 90000) AS name)",
        "SELECT rpad('x', 1000000 * 1000, 'y')",
        "SELECT bitstring('1', 2000000000)",
        "SELECT printf('%2000000000d', 1)",
        "SELECT printf('%*d', 2000000000, 1)",
        "SELECT format('{:2000000000}', 1)",
        "EXPLAIN ANALYZE SELECT repeat('x', 2000000000)",
    ],
)
def test_a_text_that_would_take_all_memory_is_refused(client: httpx.Client, sql: str) -> None:
    for media in (JSON, ARROW):
        answer = client.post("/query", json={"sql": sql}, headers={"Accept": media})
        assert answer.json()["code"] in {"RESULT_TOO_LARGE", "READ_ONLY"}, answer.text
    assert client.get("/livez").status_code == 200


def test_small_texts_are_made_as_ever(client: httpx.Client) -> None:
    body = done(
        ask(client, "SELECT repeat('ab', 3) AS r, lpad('7', 3, '0') AS l, printf('%05.1f', 2.5) AS p", JSON)
    )
    assert body["result"] == [{"r": "ababab", "l": "007", "p": "002.5"}]


def test_a_query_ends_when_its_client_leaves(client: httpx.Client) -> None:
    asked = orjson.dumps({"sql": "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b"})
    running = 'duckling_http_requests_running{route="/query"} 1.0'
    with socket.create_connection((client.base_url.host, client.base_url.port)) as leaving:
        head = f"POST /query HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(asked)}\r\n\r\n"
        leaving.sendall(head.encode() + asked)
        wait_until(lambda: running in client.get("/metrics").text, "the query runs")
    wait_until(lambda: running not in client.get("/metrics").text, "the query has ended", timeout=WAIT)


def test_a_format_that_nobody_makes_is_406(client: httpx.Client) -> None:
    answer = ask(client, "SELECT 1", "image/png")
    assert done(answer, 406)["code"] == "NOT_ACCEPTABLE"


@pytest.mark.parametrize(
    ("header", "media"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (CSV, CSV),
        ("text/*", CSV),
        ("TEXT/CSV", CSV),
        (f"{CSV};q=0.5, {ARROW}", ARROW),
        (f"{JSON};q=0.1, {PARQUET};q=0.2, */*;q=0.05", PARQUET),
        (f"{JSON};q=0, */*", CSV),
    ],
)
def test_the_accept_header_chooses_the_format(header: str | None, media: str) -> None:
    assert accepted(header, (JSON, CSV, ARROW, PARQUET)) == media


@pytest.mark.parametrize("header", ["image/png", f"{JSON};q=0", f"{JSON};q=x", "nonsense"])
def test_an_accept_header_that_takes_nothing_of_ours_is_refused(header: str) -> None:
    with pytest.raises(NotAcceptableError):
        accepted(header, (JSON, CSV))
