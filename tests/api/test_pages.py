"""Pages of a table by cursor."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cdc.errors import QueryError
from cdc.pages import Cursors
from cdc.sandbox.databases import Database
from tests.api.conftest import WAIT, replicated
from tests.api.test_sync import done


@pytest.fixture
def client(mysql_database: Database, tmp_path: Path) -> Iterator[httpx.Client]:
    mysql_database.execute(
        "CREATE TABLE pairs (b VARCHAR(20), a INT, _key INT, PRIMARY KEY (b, a)) COLLATE utf8mb4_bin",
        "INSERT INTO pairs VALUES ('x', 1, 10), ('x', 2, 20), ('y', -1, 30), ('', 5, 40), ('é\\'', 0, 50)",
        "CREATE TABLE days (day DATE, at TIME, price DECIMAL(30,10), raw VARBINARY(4), id BIGINT UNSIGNED,"
        " PRIMARY KEY (day, price, raw, id))",
        "INSERT INTO days VALUES ('2024-01-01', '10:00', 1.0000000001, x'00ff', 18446744073709551615),"
        " ('2024-01-01', '10:00', 1.0000000001, x'00ff', 18446744073709551614),"
        " ('2024-01-01', NULL, 1.0000000002, x'ff27', 1), ('2023-12-31', NULL, 99999999999999999999, x'', 1)",
        "CREATE TABLE clocks (at TIME PRIMARY KEY)",
        "INSERT INTO clocks VALUES ('-01:00:00'), ('00:00:00'), ('100:00:00')",
        "CREATE TABLE loose (n INT)",
        "INSERT INTO loose VALUES (1), (1), (2)",
        "CREATE TABLE numbers (id INT PRIMARY KEY)",
    )
    with mysql_database.connect() as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO numbers VALUES (%s)", [(number,) for number in range(0, 2000, 2)])
    with replicated(mysql_database.url, tmp_path, auto_start_sync=True) as (client, pipeline):
        pipeline.wait_streaming(WAIT)
        yield client


def pages(client: httpx.Client, table: str, limit: int) -> Iterator[dict[str, Any]]:
    params: dict[str, str | int] = {"limit": limit}
    while True:
        body = done(client.get(f"/tables/{table}/data", params=params))
        assert body["rowCount"] == len(body["data"]) <= limit
        assert body["truncated"] == (body["nextCursor"] is not None)
        yield body
        if body["nextCursor"] is None:
            return
        params["cursor"] = body["nextCursor"]


def all_rows(client: httpx.Client, table: str, limit: int) -> list[dict[str, Any]]:
    return [row for page in pages(client, table, limit) for row in page["data"]]


@pytest.mark.parametrize("table", ["pairs", "days", "clocks", "numbers"])
@pytest.mark.parametrize("limit", [1, 2, 3, 10_000])
def test_pages_give_every_row_once_in_the_order_of_the_key(
    client: httpx.Client, table: str, limit: int
) -> None:
    if table == "numbers" and limit < 3:
        limit += 300
    whole = done(client.post("/query", json={"sql": f"SELECT * FROM {table} ORDER BY ALL"}))["result"]
    order = {"days": "day, price, raw, id"}.get(table)
    if order:
        whole = done(client.post("/query", json={"sql": f"SELECT * FROM days ORDER BY {order}"}))["result"]
    assert all_rows(client, table, limit) == whole


def test_a_column_of_the_name_of_ours_is_answered_as_it_is(client: httpx.Client) -> None:
    body = next(pages(client, "pairs", 10))
    assert [column["name"] for column in body["columns"]] == ["b", "a", "_key"]
    assert [row["_key"] for row in body["data"]] == [40, 10, 20, 30, 50]


def test_pages_are_stable_while_rows_come_and_go(client: httpx.Client, mysql_database: Database) -> None:
    met = []
    for number, page in enumerate(pages(client, "numbers", 100)):
        met += [row["id"] for row in page["data"]]
        mysql_database.execute(
            f"INSERT INTO numbers VALUES ({number * 40 + 1})",
            f"DELETE FROM numbers WHERE id = {number * 20}",
            f"DELETE FROM numbers WHERE id = {1998 - number * 2}",
        )
        done(client.post("/sync/incremental"))
    assert met == sorted(set(met))
    stayed = set(range(400, 1900, 2))
    assert stayed <= set(met)


def test_a_table_without_a_key_has_one_page(client: httpx.Client) -> None:
    body = done(client.get("/tables/loose/data", params={"limit": 2}))
    assert (body["rowCount"], body["nextCursor"], body["truncated"]) == (2, None, True)
    whole = done(client.get("/tables/loose/data"))
    assert sorted(row["n"] for row in whole["data"]) == [1, 1, 2]
    assert whole["truncated"] is False
    first = next(pages(client, "numbers", 1))["nextCursor"]
    assert done(client.get("/tables/loose/data", params={"cursor": first}), 400)["code"] == "CURSOR"


def test_a_cursor_that_was_changed_is_refused(client: httpx.Client) -> None:
    cursor = next(pages(client, "numbers", 1))["nextCursor"]
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    wrong = ["", "x", "%00", "AAAA", cursor[:-2], cursor + "AAAA", "a" * 5000, "é"]
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        wrong.append(base64.urlsafe_b64encode(changed).decode().rstrip("="))
    for text in wrong:
        answer = client.get("/tables/numbers/data", params={"cursor": text})
        assert done(answer, 400)["code"] == "CURSOR", text


def test_a_cursor_is_good_for_its_table_and_key_alone() -> None:
    cursors = Cursors([b"one"])
    cursor = cursors.write("default", "orders", ["id"], ["7"])
    assert cursors.read(cursor, "default", "orders", ["id"]) == ["7"]
    assert Cursors([b"two", b"one"]).read(cursor, "default", "orders", ["id"]) == ["7"]
    for other, *place in (
        (Cursors([b"two"]), "default", "orders", ["id"]),
        (cursors, "other", "orders", ["id"]),
        (cursors, "default", "others", ["id"]),
        (cursors, "default", "orders", ["id", "at"]),
    ):
        with pytest.raises(QueryError, match="cursor"):
            other.read(cursor, *place)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", ["0", "10001", "-1", "ten", "1.5", "", "9" * 5000, "١"])
def test_a_limit_that_can_not_be_is_refused(client: httpx.Client, limit: str) -> None:
    answer = client.get("/tables/numbers/data", params={"limit": limit})
    assert done(answer, 400)["code"] == "MALFORMED"


def test_pages_answer_under_api_and_for_unknown_tables_not(client: httpx.Client) -> None:
    assert done(client.get("/api/tables/NUMBERS/data", params={"limit": 1}))["data"] == [{"id": 0}]
    assert done(client.get("/tables/missing/data"), 404)["code"] == "TABLE_NOT_FOUND"
