"""Source and copy compared in everything that a schema change can touch: tables, rows, columns, types, keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any, NamedTuple

import duckdb
from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions

from cdc.config import Settings
from cdc.replica.tables import has_key_index
from cdc.sandbox.comparison import compare_table
from cdc.sandbox.databases import session
from cdc.schema import Table
from cdc.selection import key_indexed
from cdc.source.catalog import load_tables
from cdc.types import TypeChoices, comment, duckdb_type
from tests.replica import copied_tables, source_tables

_DATES = (FIELD_TYPE.DATE, FIELD_TYPE.DATETIME, FIELD_TYPE.TIMESTAMP)


def _date_or_null(convert: Callable[[str], Any]) -> Callable[[str], date | None]:
    """A date that the calendar lacks is NULL in the copy (zero_dates = null)."""

    def converted(text: str) -> date | None:
        value = convert(text)
        return value if isinstance(value, date) else None

    return converted


def _number(bits: bytes) -> int:
    """A BIT is a number in the copy."""
    return int.from_bytes(bits, "big")


_CONVERSIONS = {
    **conversions,
    **{kind: _date_or_null(conversions[kind]) for kind in _DATES},
    FIELD_TYPE.BIT: _number,
}


class Shape(NamedTuple):
    """A table as DuckDB's catalogue shows it: (name, type, comment) of the columns in order, and the key."""

    columns: tuple[tuple[str, str, str], ...]
    key: tuple[str, ...]


def source_shapes(url: str) -> dict[str, Shape]:
    """What every table of the source should look like in the copy, by its catalogue of now."""
    return {table.name: _wanted(table) for table in _source(url)}


def copy_shapes(copy: duckdb.DuckDBPyConnection) -> dict[str, Shape]:
    """What every table of the copy looks like."""
    columns = copy.execute(
        "SELECT table_name, column_name, data_type, coalesce(comment, '') FROM duckdb_columns()"
        " WHERE schema_name = 'main' AND NOT internal ORDER BY table_name, column_index"
    ).fetchall()
    keys = copy.execute(
        "SELECT table_name, constraint_column_names FROM duckdb_constraints()"
        " WHERE schema_name = 'main' AND constraint_type = 'PRIMARY KEY'"
    ).fetchall()
    by_table = {str(name): tuple(map(str, key)) for name, key in keys}
    shapes: dict[str, list[tuple[str, str, str]]] = {}
    for table, *column in columns:
        name, kind, text = map(str, column)
        shapes.setdefault(str(table), []).append((name, kind, text))
    return {name: Shape(tuple(found), by_table.get(name, ())) for name, found in shapes.items()}


def assert_same(url: str, copy: duckdb.DuckDBPyConnection) -> int:
    """Asserts that the copy is what a fresh copy would be; returns the number of rows.

    Beyond the rows: names, types, comments and order of the columns, the key, and the definition that the
    bookkeeping holds, by which rows to come are judged. Nobody may write meanwhile.
    """
    assert copy_shapes(copy) == source_shapes(url)
    recorded = dict(copy.execute("SELECT table_name, definition FROM _duckling.table_states").fetchall())
    assert {name: Table.from_json(text).fingerprint() for name, text in recorded.items()} == {
        table.name: table.fingerprint() for table in _source(url)
    }
    states = copy.execute("SELECT DISTINCT state FROM _duckling.table_states").fetchall()
    assert states in ([], [("streaming",)])
    tables = source_tables(url)
    assert copied_tables(copy) == tables
    compared = 0
    with session(url, conv=_CONVERSIONS) as source:
        for table in sorted(tables):
            result = compare_table(source, copy, table)
            assert result.equal, result
            compared += result.source_rows
    return compared


def _source(url: str) -> list[Table]:
    with session(url) as connection:
        found = load_tables(connection, url.rsplit("/", 1)[1].split("?")[0])
    # As a replica of these tests takes them from the environment: `UNINDEXED_TABLES='*' make test`.
    settings = Settings()
    return [
        replace(TypeChoices().applied_to(table), key_index=key_indexed(settings, table.name))
        for table in found
    ]


def _wanted(table: Table) -> Shape:
    columns = tuple((column.name, duckdb_type(column), comment(column)) for column in table.columns)
    return Shape(columns, table.primary_key if has_key_index(table) else ())
