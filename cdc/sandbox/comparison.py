"""Source and copy compared row by row, every value, without regard to the order of rows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
from pymysql.connections import Connection
from pymysql.cursors import SSCursor

from cdc.schema import quote_duckdb, quote_mysql

_ROWS_A_FETCH = 10_000
_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table: its rows on both sides; how many are on one side only, and some of those as text."""

    table: str
    source_rows: int
    copy_rows: int
    only_source: int = 0
    only_copy: int = 0
    samples: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether both hold the same rows, each as often."""
        return self.only_source == 0 and self.only_copy == 0


def compare_table(source: Connection, copy: duckdb.DuckDBPyConnection, table: str) -> Comparison:
    """Compares `table` of the session's database with that of the same name in DuckDB's schema main.

    Nobody may write to either meanwhile. Rows are compared by a hash of all their values as text; a column
    that only one side has makes every row differ. The source's session is in UTC.
    """
    with source.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {quote_mysql(table)} LIMIT 0")
        names = [str(column[0]) for column in cursor.description]
    described = copy.execute(f"DESCRIBE main.{quote_duckdb(table)}").fetchall()
    types = {str(name): str(kind) for name, kind, *_ in described}
    if set(types) != set(names):
        sides = f"columns of the source: {sorted(names)}; of the copy: {sorted(types)}"
        source_rows, copy_rows = _count_source(source, table), _count_copy(copy, table)
        return Comparison(table, source_rows, copy_rows, source_rows or 1, copy_rows or 1, (sides,))
    kinds = [types[name] for name in names]

    there = Counter(map(_digest, _source_rows(source, table, names, kinds)))
    source_rows = there.total()
    here = Counter(map(_digest, _copy_rows(copy, table, names, kinds)))
    copy_rows = here.total()
    missing, extra = there - here, here - there
    samples: list[str] = []
    if missing:
        samples += _sample("only at the source", missing, _source_rows(source, table, names, kinds))
    if extra:
        samples += _sample("only in the copy", extra, _copy_rows(copy, table, names, kinds))
    return Comparison(table, source_rows, copy_rows, missing.total(), extra.total(), tuple(samples))


def _count_source(source: Connection, table: str) -> int:
    with source.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {quote_mysql(table)}")
        return int(cursor.fetchone()[0])


def _count_copy(copy: duckdb.DuckDBPyConnection, table: str) -> int:
    row = copy.execute(f"SELECT count(*) FROM main.{quote_duckdb(table)}").fetchone()
    return int(row[0]) if row else 0


def _source_rows(
    source: Connection, table: str, names: Sequence[str], kinds: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    # As text, a FLOAT has six digits only; as a DOUBLE it has them all.
    columns = ", ".join(
        f"{quote_mysql(name)} + 0e0" if kind == "FLOAT" else quote_mysql(name)
        for name, kind in zip(names, kinds, strict=True)
    )
    with source.cursor(SSCursor) as cursor:
        cursor.execute(f"SELECT {columns} FROM {quote_mysql(table)}")
        for row in cursor:
            yield _as_text(row, kinds)


def _copy_rows(
    copy: duckdb.DuckDBPyConnection, table: str, names: Sequence[str], kinds: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    # A time with a zone becomes the same moment in UTC, without one, as the source's session gives it.
    columns = ", ".join(
        f"{quote_duckdb(name)} AT TIME ZONE 'UTC'"
        if kind == "TIMESTAMP WITH TIME ZONE"
        else quote_duckdb(name)
        for name, kind in zip(names, kinds, strict=True)
    )
    result = copy.execute(f"SELECT {columns} FROM main.{quote_duckdb(table)}")
    while rows := result.fetchmany(_ROWS_A_FETCH):
        for row in rows:
            yield _as_text(row, kinds)


def _as_text(row: Sequence[Any], kinds: Sequence[str]) -> tuple[str, ...]:
    return tuple(_value(value, kind) for value, kind in zip(row, kinds, strict=True))


def _value(value: Any, kind: str) -> str:
    """One text for one value; different values give different texts within a column."""
    match value:
        case None:
            return "NULL"
        case bool() | int():
            return str(int(value))
        case str():
            # The order of an object's keys and the blanks are no part of a JSON value.
            return json.dumps(json.loads(value), sort_keys=True) if kind == "JSON" else "'" + value
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat(" ", "microseconds")
        case date():
            return value.isoformat()
        case bytes():
            return value.hex()
        case list():
            return "'" + ",".join(value)
        case _:
            return repr(value)


def _digest(row: tuple[str, ...]) -> bytes:
    return hashlib.blake2b("\x1f".join(row).encode(), digest_size=16).digest()


def _sample(side: str, wanted: Counter[bytes], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    found = 0
    for row in rows:
        if _digest(row) in wanted:
            yield f"{side}: {', '.join(row)[:200]}"
            found += 1
            if found == _SAMPLES:
                return
