"""Rows in Arrow, as views that statements read.

To register rows makes a view, and to take them back drops it: together 0.5 ms, which is what a small statement
takes itself. So for small batches the view stays, one for each schema, and yields whatever rows were put in last.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import duckdb
import pyarrow as pa

_SMALL = 4096
"""Rows up to which a lasting view is used. Larger ones are read faster from the table that they are."""
_KEPT = 512
"""Lasting views of one cursor at most: a database may have thousands of tables."""
_PASSING = "_duckling_rows_once"


class _Feed:
    """What a lasting view reads: the rows of now, by Arrow's PyCapsule interface.

    https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.rows: pa.Table | None = None
        self._schema = schema

    def __arrow_c_schema__(self) -> Any:
        return self._schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        rows = self.rows if self.rows is not None else self._schema.empty_table()
        return rows.__arrow_c_stream__(requested_schema)


_feeds: weakref.WeakKeyDictionary[duckdb.DuckDBPyConnection, dict[pa.Schema, tuple[str, _Feed]]] = (
    weakref.WeakKeyDictionary()
)
"""By cursor, which belongs to one thread, and by schema."""


@contextmanager
def registered(cursor: duckdb.DuckDBPyConnection, rows: pa.Table) -> Iterator[str]:
    """The name of a view of `rows`, for the statements inside. An error of theirs is not hidden."""
    with _passing(cursor, rows) if len(rows) > _SMALL else _lasting(cursor, rows) as name:
        yield name


def forget(cursor: duckdb.DuckDBPyConnection) -> None:
    """A transaction was rolled back: views that were made in it are gone."""
    _feeds.pop(cursor, None)


@contextmanager
def _passing(cursor: duckdb.DuckDBPyConnection, rows: pa.Table) -> Iterator[str]:
    cursor.register(_PASSING, rows)
    try:
        yield _PASSING
    except BaseException:
        with suppress(duckdb.Error):  # the transaction is aborted; its rollback takes the view along
            cursor.unregister(_PASSING)
        raise
    cursor.unregister(_PASSING)


@contextmanager
def _lasting(cursor: duckdb.DuckDBPyConnection, rows: pa.Table) -> Iterator[str]:
    feeds = _feeds.setdefault(cursor, {})
    found = feeds.get(rows.schema)
    if found is None:
        if len(feeds) >= _KEPT:
            for name, _ in feeds.values():
                cursor.unregister(name)
            feeds.clear()
        feed = _Feed(rows.schema)
        found = (f"_duckling_rows_{len(feeds)}", feed)
        cursor.register(*found)
        feeds[rows.schema] = found
    name, feed = found
    assert feed.rows is None, "two views of one schema at a time"
    feed.rows = rows
    try:
        yield name
    except BaseException:
        forget(cursor)
        raise
    finally:
        feed.rows = None
