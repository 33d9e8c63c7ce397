"""How values of a query reach JSON."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from cdc.json_values import iso_duration
from cdc.query import run_query

WAIT_MS = 10_000


@pytest.fixture
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        connection.execute("CREATE SCHEMA _duckling")
        yield connection


VALUES = (
    ("9007199254740992::BIGINT", 9007199254740992),
    ("9007199254740993::BIGINT", "9007199254740993"),
    ("(-9007199254740993)::BIGINT", "-9007199254740993"),
    ("18446744073709551615::UBIGINT", "18446744073709551615"),
    ("170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727"),
    ("sum(1)", 1),
    ("1.50::DECIMAL(10,2)", "1.50"),
    ("12345678901234567890123456789.123456789::DECIMAL(38,9)", "12345678901234567890123456789.123456789"),
    ("0.1::DOUBLE", 0.1),
    ("'nan'::DOUBLE", "NaN"),
    ("'-inf'::DOUBLE", "-Infinity"),
    ("TRUE", True),
    ("NULL", None),
    ("'🦆'", "🦆"),
    (r"'\x00\xFF'::BLOB", "AP8="),
    ("DATE '2024-02-29'", "2024-02-29"),
    ("DATE 'infinity'", "infinity"),
    ("TIME '23:59:59.000001'", "23:59:59.000001"),
    ("TIMESTAMP '2024-02-29 01:02:03'", "2024-02-29T01:02:03"),
    ("TIMESTAMP '2024-02-29 01:02:03.123456'", "2024-02-29T01:02:03.123456"),
    ("TIMESTAMP '12024-02-29 01:02:03'", "12024-02-29T01:02:03"),
    ("TIMESTAMP_NS '2024-02-29 01:02:03.123456789'", "2024-02-29T01:02:03.123456789"),
    ("TIMESTAMPTZ '2024-02-29 01:02:03+02'", "2024-02-28T23:02:03Z"),
    ("TIMESTAMPTZ 'infinity'", "infinity"),
    ("INTERVAL '1 month'", "P1M"),
    ("INTERVAL '14 months -3 days 25:00:00.5'", "P1Y2M-3DT25H0.5S"),
    ("INTERVAL '-838:59:59'", "PT-838H-59M-59S"),
    ("INTERVAL '0 days'", "PT0S"),
    ("'d3b07384-d9a0-4c1b-8a0e-000000000001'::UUID", "d3b07384-d9a0-4c1b-8a0e-000000000001"),
    ("'x'::ENUM('x', 'y')", "x"),
    ("'101'::BIT", "101"),
    ("'{\"a\": 1}'::JSON", '{"a": 1}'),
    ("[1, 9007199254740993]", [1, "9007199254740993"]),
    ("{'a': 1.5::DECIMAL(3,1), 'b': [NULL]}", {"a": "1.5", "b": [None]}),
    ("MAP {1: 'one'}", {"1": "one"}),
    ("[TIMESTAMPTZ '2024-02-29 01:02:03+00']", "['2024-02-29 01:02:03+00']"),
)


@pytest.mark.parametrize(("expression", "expected"), VALUES)
def test_values_reach_json_exactly(
    cursor: duckdb.DuckDBPyConnection, expression: str, expected: object
) -> None:
    assert run_query(cursor, f"SELECT {expression} AS value", None, 1, WAIT_MS).rows == [{"value": expected}]


def test_every_type_of_duckdb_has_a_json_form(cursor: duckdb.DuckDBPyConnection) -> None:
    assert len(run_query(cursor, "FROM test_all_types()", None, 100, WAIT_MS).rows) == 3


def test_columns_of_one_name_are_all_answered(cursor: duckdb.DuckDBPyConnection) -> None:
    answer = run_query(cursor, "SELECT 1 AS a, now() AS a, 3 AS a_1, 4 AS a", None, 1, WAIT_MS)
    assert [column.name for column in answer.columns] == ["a", "a_1", "a_1_1", "a_2"]
    assert answer.rows[0]["a_1_1"] == 3


def test_the_order_of_rows_survives_the_conversion(cursor: duckdb.DuckDBPyConnection) -> None:
    answer = run_query(
        cursor,
        "SELECT i, TIMESTAMPTZ '2024-01-01' AS t FROM range(90000) r(i) ORDER BY i DESC",
        None,
        90_000,
        WAIT_MS,
    )
    assert [row["i"] for row in answer.rows] == list(range(89_999, -1, -1))


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("1 year 1 month -3 days 25:00:00.5", "P1Y1M-3DT25H0.5S"),
        ("-1 month -00:00:00.000001", "P-1MT-0.000001S"),
        ("00:00:10", "PT10S"),
        ("00:01:00", "PT1M"),
        ("2 days", "P2D"),
        ("00:00:00", "PT0S"),
    ],
)
def test_intervals_are_iso_8601(text: str, iso: str) -> None:
    assert iso_duration(text) == iso
