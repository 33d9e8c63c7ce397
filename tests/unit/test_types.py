"""The type map."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from cdc.errors import ValueDecodeError
from cdc.schema import Column
from cdc.types import arrow_type, duckdb_type, select_expression, unsupported


def column(kind: str, **fields: object) -> Column:
    return Column("c", kind, **{"column_type": kind, **fields})  # type: ignore[arg-type]


CASES = [
    (column("tinyint"), "TINYINT"),
    (column("tinyint", column_type="tinyint(1)"), "TINYINT"),
    (column("tinyint", column_type="tinyint unsigned"), "UTINYINT"),
    (column("smallint"), "SMALLINT"),
    (column("smallint", column_type="smallint unsigned"), "USMALLINT"),
    (column("mediumint"), "INTEGER"),
    (column("mediumint", column_type="mediumint unsigned"), "UINTEGER"),
    (column("int"), "INTEGER"),
    (column("int", column_type="int(6) unsigned zerofill"), "UINTEGER"),
    (column("bigint"), "BIGINT"),
    (column("bigint", column_type="bigint unsigned"), "UBIGINT"),
    (column("bit", precision=1), "UTINYINT"),
    (column("bit", precision=8), "UTINYINT"),
    (column("bit", precision=9), "USMALLINT"),
    (column("bit", precision=17), "UINTEGER"),
    (column("bit", precision=64), "UBIGINT"),
    (column("decimal", precision=38, scale=30), "DECIMAL(38,30)"),
    (column("decimal", precision=10, scale=0), "DECIMAL(10,0)"),
    (column("decimal", precision=39, scale=0), "VARCHAR"),
    (column("float"), "FLOAT"),
    (column("double"), "DOUBLE"),
    (column("date"), "DATE"),
    (column("datetime", fraction=6), "TIMESTAMP"),
    (column("timestamp"), "TIMESTAMP"),
    (column("time"), "INTERVAL"),
    (column("year"), "SMALLINT"),
    *(
        (column(kind), "VARCHAR")
        for kind in ("char", "varchar", "tinytext", "text", "mediumtext", "longtext")
    ),
    *((column(kind), "VARCHAR") for kind in ("enum", "set", "uuid", "inet4", "inet6")),
    *(
        (column(kind), "BLOB")
        for kind in ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob")
    ),
    (column("json"), "JSON"),
    (column("geometry"), "GEOMETRY"),
    (column("point"), "GEOMETRY"),
    (column("vector"), "FLOAT[]"),
]


@pytest.mark.parametrize(("source", "expected"), CASES, ids=lambda case: str(case)[:40])
def test_a_column_has_its_duckdb_type(source: Column, expected: str) -> None:
    assert duckdb_type(source) == expected
    assert unsupported(source) is None


@pytest.mark.parametrize(("source", "expected"), CASES, ids=lambda case: str(case)[:40])
def test_duckdb_reads_the_arrow_type_as_the_duckdb_type(source: Column, expected: str) -> None:
    batch = pa.table({"c": pa.array([None], arrow_type(source))})
    with duckdb.connect() as connection:
        connection.register("batch", batch)
        [(_, found, *_)] = connection.execute("DESCRIBE SELECT c FROM batch").fetchall()
    assert found == {"JSON": "VARCHAR", "GEOMETRY": "BLOB"}.get(expected, expected)


def test_a_float_is_selected_as_a_full_double() -> None:
    assert select_expression(column("float")) == "`c` * 1e0"
    assert select_expression(column("double", column_type="double(10,3)")) == "`c` * 1e0"
    assert select_expression(column("double")) == "`c`"


def test_a_name_with_a_backtick_is_quoted() -> None:
    assert select_expression(Column("a`b", "int", "int")) == "`a``b`"


def test_what_has_no_counterpart_is_told_and_refused() -> None:
    strange = column("xmltype")
    assert unsupported(strange) == "type xmltype has no counterpart in DuckDB"
    with pytest.raises(ValueDecodeError, match="no counterpart"):
        duckdb_type(strange)


def test_an_old_storage_format_is_told() -> None:
    assert "older server" in (unsupported(column("datetime", column_type="datetime /* mariadb-5.3 */")) or "")
    harmless = column("enum", column_type="enum('/* old */')")
    assert unsupported(harmless) is None


def test_an_unknown_character_set_is_told() -> None:
    assert unsupported(column("varchar", character_set="klingon")) == "character set klingon is not known"
    assert unsupported(column("varchar", character_set="eucjpms")) is None
