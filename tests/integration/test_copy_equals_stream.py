"""A row looks the same whether it was copied or streamed, for every type of both servers (G4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from cdc.config import Settings
from cdc.metrics import Metrics
from cdc.pipeline import Pipeline
from cdc.sandbox.databases import Database
from cdc.sandbox.installation import Flavor

COMMON = {
    "tiny": ("TINYINT", ["-128", "127", "0"]),
    "utiny": ("TINYINT UNSIGNED", ["0", "255", "200"]),
    "flag": ("TINYINT(1)", ["2", "-1", "1"]),
    "small": ("SMALLINT", ["-32768", "32767", "1"]),
    "usmall": ("SMALLINT UNSIGNED", ["65535", "0", "40000"]),
    "medium": ("MEDIUMINT", ["-8388608", "8388607", "-1"]),
    "umedium": ("MEDIUMINT UNSIGNED", ["16777215", "0", "9000000"]),
    "num": ("INT", ["-2147483648", "2147483647", "0"]),
    "unum": ("INT UNSIGNED", ["4294967295", "0", "3000000000"]),
    "big": ("BIGINT", ["-9223372036854775808", "9223372036854775807", "0"]),
    "ubig": ("BIGINT UNSIGNED", ["18446744073709551615", "0", "9223372036854775808"]),
    "bit1": ("BIT(1)", ["b'1'", "b'0'", "b'1'"]),
    "bit10": ("BIT(10)", ["b'1111111111'", "b'1'", "b'0'"]),
    "bit64": ("BIT(64)", ["18446744073709551615", "1", "0"]),
    "money": ("DECIMAL(12,2)", ["-9999999999.99", "9999999999.99", "0.01"]),
    "wide": ("DECIMAL(38,10)", ["-9999999999999999999999999999.9999999999", "0.0000000001", "1"]),
    "wider": ("DECIMAL(65,30)", ["-99999999999999999999999999999999999.123456789012345678901234567891", "0", "1.5"]),
    "f": ("FLOAT", ["16777215", "1.1", "-3.4e38"]),
    "d": ("DOUBLE", ["1.7976931348623157e308", "0.1", "-2.2250738585072014e-308"]),
    "day": ("DATE", ["'1000-01-01'", "'9999-12-31'", "'2024-02-29'"]),
    "dt": ("DATETIME", ["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'2024-03-10 02:30:00'"]),
    "dt3": ("DATETIME(3)", ["'1969-12-31 23:59:59.999'", "'2024-01-02 03:04:05.006'", "'2038-01-19 03:14:08'"]),
    "dt6": ("DATETIME(6)", ["'1000-01-01 00:00:00.000001'", "'9999-12-31 23:59:59.999999'", "'2024-01-01'"]),
    "ts": ("TIMESTAMP NULL", ["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'2024-07-01 12:00:00'"]),
    "ts6": ("TIMESTAMP(6) NULL", ["'1970-01-01 00:00:01.000001'", "'2038-01-19 03:14:07.999999'", "'2024-07-01'"]),
    "tm": ("TIME", ["'-838:59:59'", "'838:59:59'", "'-00:00:01'"]),
    "tm6": ("TIME(6)", ["'-00:00:00.000001'", "'838:59:58.999999'", "'-12:34:56.789012'"]),
    "y": ("YEAR", ["0", "1901", "2155"]),
    "c": ("CHAR(10) CHARACTER SET latin1", ["'é'", "x'818D8F909D'", "'a  '"]),
    "v": ("VARCHAR(300) CHARACTER SET utf8mb4", ["'😀 ß'", "''", "repeat('x', 300)"]),
    "sj": ("VARCHAR(20) CHARACTER SET sjis", ["'日本'", "'abc'", "''"]),
    "u16": ("VARCHAR(20) CHARACTER SET utf16", ["'Ab😀'", "'日'", "''"]),
    "txt": ("MEDIUMTEXT", ["repeat('é', 70000)", "''", "'x'"]),
    "bin": ("BINARY(16)", ["x'01000000000000000000000000000000'", "x''", "x'ff00'"]),
    "vb": ("VARBINARY(20)", ["x'0100'", "x''", "x'ff'"]),
    "bl": ("LONGBLOB", ["x'00ff'", "x''", "repeat(x'01', 100000)"]),
    "e": ("ENUM('a','b''c','d,e','')", ["'b''c'", "'d,e'", "''"]),
    "s": ("SET('x','y','z')", ["'z,x'", "''", "'x,y,z'"]),
    "g": ("POINT", ["ST_GeomFromText('POINT(1.5 -2)')", "NULL", "ST_GeomFromText('POINT(0 0)')"]),
}  # fmt: skip
JSON_VALUES = [
    """'{"b": [1, 2.50, true, null, "é\\\\n\\\\"q"], "a": {"k": 18446744073709551615}}'""",
    "'null'",
    "'[-1, 1e100, 0.1, {}]'",
]
MYSQL = {"j": ("JSON", JSON_VALUES), "vec": ("VECTOR(3)", ["TO_VECTOR('[1,2,-3.5]')", "NULL", "NULL"])}
MARIADB = {
    "j": ("JSON", JSON_VALUES),
    "uu": ("UUID", ["'123e4567-e89b-12d3-a456-426655440000'", "'00000000-0000-0000-0000-000000000000'", "NULL"]),
    "ip6": ("INET6", ["'2001:db8::ff00:42:8329'", "'::'", "'::ffff:192.0.2.1'"]),
    "ip4": ("INET4", ["'192.0.2.1'", "'0.0.0.0'", "'255.255.255.255'"]),
    "cv": ("VARCHAR(1000) COMPRESSED", ["repeat('né', 400)", "''", "'x'"]),
}  # fmt: skip


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Callable[[Database], Pipeline]]:
    """A pipeline that has made its copy and streams."""
    started: list[Pipeline] = []

    def start(database: Database) -> Pipeline:
        settings = Settings(mysql_connection_string=SecretStr(database.url), duckdb_path=tmp_path / "copy.db")
        pipeline = Pipeline("default", settings, Metrics().for_database("default"))
        started.append(pipeline)
        pipeline.check_start()
        pipeline.start()
        pipeline.wait_streaming(30)
        return pipeline

    yield start
    for pipeline in started:
        pipeline.stop()


@pytest.mark.parametrize("keyed", [True, False], ids=["with_key", "without_key"])
def test_a_row_is_the_same_by_copy_and_by_stream(
    database: Database, replica: Callable[[Database], Pipeline], *, keyed: bool
) -> None:
    columns = COMMON | (MYSQL if database.flavor is Flavor.MYSQL else MARIADB)
    listed = ", ".join(f"`{name}`" for name in columns)
    definitions = ", ".join(f"`{name}` {sql}" for name, (sql, _) in columns.items())
    key = "PRIMARY KEY (id)" if keyed else "KEY (id)"
    rows = [", ".join(values[i] for _, values in columns.values()) for i in range(3)]
    rows.append(", ".join("NULL" for _ in columns))
    with database.connect() as source, source.cursor() as cursor:
        cursor.execute(f"CREATE TABLE every_type (id INT, {definitions}, {key})")
        for i, row in enumerate(rows):
            cursor.execute(f"INSERT INTO every_type (id, {listed}) VALUES ({i}, {row})")
        pipeline = replica(database)
        for i, row in enumerate(rows):
            cursor.execute(f"INSERT INTO every_type (id, {listed}) VALUES ({100 + i}, {row})")
            cursor.execute(f"INSERT INTO every_type (id) VALUES ({200 + i})")
            values = ", ".join(
                f"`{name}` = {value[i] if i < 3 else 'NULL'}" for name, (_, value) in columns.items()
            )
            cursor.execute(f"UPDATE every_type SET {values} WHERE id = {200 + i}")
    pipeline.start_incremental_sync().wait(30)
    reader = pipeline.reader()
    try:
        listed = listed.replace("`", '"')
        by_way = [
            reader.execute(
                f"SELECT {listed} FROM every_type WHERE id BETWEEN {first} AND {first + 99} ORDER BY id"
            ).fetchall()
            for first in (0, 100, 200)
        ]
    finally:
        reader.close()
    copied, inserted, updated = by_way
    assert len(copied) == len(rows)
    for at, name in enumerate(columns):
        assert [r[at] for r in copied] == [r[at] for r in inserted] == [r[at] for r in updated], name
        assert copied[3][at] is None, name
