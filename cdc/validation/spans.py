"""Ranges of a key that both sides order alike: a large table is compared a range at a time.

Integers and bytes have one order everywhere; texts do not, since the source sorts by a collation. A table
whose key begins with another type, or that has none, is one span.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import duckdb

from cdc.schema import Column, Table, quote_duckdb, quote_mysql
from cdc.validation.canonical import Canonical

SPAN_ROWS = 1 << 16
"""Rows of a span, roughly: a fraction of a second for the server, and so a moment to stop at."""
PART_ROWS = 1 << 12
"""Rows of a part of a span that differs."""
_MOST_SPANS = 20_000
_SAMPLES = 32
"""Keys looked at for each boundary: enough for spans of about one size."""

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_BYTES = frozenset({"binary", "varbinary"})

EVERYTHING = Canonical("TRUE", "TRUE")


def split(
    cursor: duckdb.DuckDBPyConnection, table: Table, span: Canonical, rows: int, size: int
) -> list[Canonical]:
    """Conditions that together choose every row of `span` exactly once, on both sides.

    `rows` is how many the larger side has, `size` how many a part should have. The boundaries are keys of
    the copy, drawn by lot. Only `span` itself where it can't be split.
    """
    wanted = min(-(-rows // size), _MOST_SPANS)
    if wanted < 2 or not table.primary_key:
        return [span]
    column = table.column(table.primary_key[0])
    literals = _literals(column)
    if literals is None:
        return [span]
    name = quote_duckdb(column.name)
    drawn = cursor.execute(
        f"SELECT k FROM (SELECT {name} AS k FROM main.{quote_duckdb(table.name)} WHERE {span.copy})"
        f" USING SAMPLE reservoir({wanted * _SAMPLES} ROWS) ORDER BY k"
    ).fetchall()
    step = max(1, len(drawn) // wanted)
    boundaries = sorted({drawn[at][0] for at in range(step, len(drawn), step)})
    return list(_between(span, quote_mysql(column.name), name, boundaries, *literals))


def _literals(column: Column) -> tuple[Callable[[Any], str], Callable[[Any], str]] | None:
    """How a key's value is written for the source and for DuckDB; None for a type without one order."""
    if column.data_type in _INTEGERS:
        return str, str
    if column.data_type in _BYTES:
        return (lambda value: f"x'{value.hex()}'"), (lambda value: f"unhex('{value.hex()}')")
    return None


def _between(
    span: Canonical,
    server: str,
    copy: str,
    boundaries: list[Any],
    server_literal: Callable[[Any], str],
    copy_literal: Callable[[Any], str],
) -> Iterator[Canonical]:
    """From the smallest to the first boundary (without it), from there to the next, …, to the largest."""
    for low, high in zip([None, *boundaries], [*boundaries, None], strict=True):
        there, here = [span.server], [span.copy]
        if low is not None:
            there.append(f"{server} >= {server_literal(low)}")
            here.append(f"{copy} >= {copy_literal(low)}")
        if high is not None:
            there.append(f"{server} < {server_literal(high)}")
            here.append(f"{copy} < {copy_literal(high)}")
        yield Canonical(" AND ".join(there), " AND ".join(here))
