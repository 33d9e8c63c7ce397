"""Read-only SQL for clients: limits, the READ ONLY transaction, and answers whose values survive JSON."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import duckdb

from cdc.deadlines import Deadlines
from cdc.errors import (
    DucklingError,
    QueryError,
    QueryTimeoutError,
    ReplicaFatalError,
    ResultTooLargeError,
    StoppedError,
)
from cdc.json_values import ZONED, as_json_rows
from cdc.read_only import check_read_only, first_line, refused

SEARCH_PATH = "main,_duckling"
MAX_BYTES = 64 << 20
"""Bytes of values in a result, where the caller does not say."""
_deadlines = Deadlines()
"""Of all queries of this process."""


@dataclass(frozen=True, slots=True)
class ResultColumn:
    """A column of an answer; `type` is DuckDB's name. A name that comes twice gets `_1`, `_2`, …"""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class QueryResult:
    """An answer. `rows` hold JSON values only; `truncated` says that more rows would have followed."""

    columns: tuple[ResultColumn, ...]
    rows: list[dict[str, Any]]
    truncated: bool
    duration_ms: int


def run_query(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    params: Sequence[Any] | Mapping[str, Any] | None,
    max_rows: int,
    timeout_ms: int,
    max_bytes: int = MAX_BYTES,
) -> QueryResult:
    """Runs one reading statement on `cursor`, a cursor of a database without external access.

    At most `max_rows` rows come back; after `timeout_ms` milliseconds the statement is interrupted; a result
    of more than `max_bytes` bytes of values is refused.
    Integers beyond 2^53 and decimals become strings, binary values base64, times and intervals ISO 8601.

    Raises QueryError (READ_ONLY, QUERY), ResultTooLargeError, QueryTimeoutError, StoppedError (interrupted
    from outside), ReplicaFatalError (the file must be reopened).
    """
    started = time.monotonic()
    with reading_statement(cursor, sql, timeout_ms) as (statement, is_select):
        columns, rows = _fetch(cursor, statement, is_select, params, max_rows, max_bytes)
    truncated = len(rows) > max_rows
    return QueryResult(
        columns=columns,
        rows=as_json_rows([(column.name, column.type) for column in columns], rows[:max_rows]),
        truncated=truncated,
        duration_ms=round((time.monotonic() - started) * 1000),
    )


@contextmanager
def reading_statement(
    cursor: duckdb.DuckDBPyConnection, sql: str, timeout_ms: int
) -> Iterator[tuple[str, bool]]:
    """The one statement in `sql` and whether it is a SELECT, to be run in the block.

    In the block there is a READ ONLY transaction and a deadline, and errors are translated as `run_query` says.
    """
    timed_out: threading.Event | None = None
    with _translated():
        try:
            checked = check_read_only(cursor, sql)
            # The deadline ends before the transaction does, so that no interrupt meets the ROLLBACK.
            with (
                _read_only_transaction(cursor),
                _deadlines.within(timeout_ms / 1000, cursor) as timed_out,
            ):
                yield checked
        except duckdb.InterruptException:
            if timed_out is None or not timed_out.is_set():
                raise StoppedError("the query was interrupted", hint="send it again") from None
            raise QueryTimeoutError(
                f"the query took longer than {timeout_ms} ms", hint="narrow it, or raise timeoutMs"
            ) from None


def bound(params: Sequence[Any] | Mapping[str, Any] | None) -> list[Any] | dict[str, Any]:
    """Parameters as DuckDB takes them."""
    return dict(params) if isinstance(params, Mapping) else list(params or ())


def described(
    cursor: duckdb.DuckDBPyConnection, statement: str, params: list[Any] | dict[str, Any]
) -> tuple[ResultColumn, ...]:
    """The columns that `statement` answers, without running it. It must be a SELECT: anything else would be run.

    A relation is bound, and gone when this returns: DuckDB runs nothing else on this cursor while one has a result.
    """
    relation = cursor.sql(statement, params=params)
    return _columns([(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)])


def wrapped(statement: str, values: Sequence[str]) -> str:
    """A SELECT of `values`, expressions over the columns c0, c1, … of `statement`."""
    names = ", ".join(f"c{i}" for i in range(len(values)))
    return f"SELECT {', '.join(values)} FROM (\n{statement}\n) AS q({names})"


def _fetch(
    cursor: duckdb.DuckDBPyConnection,
    statement: str,
    is_select: bool,
    params: Sequence[Any] | Mapping[str, Any] | None,
    max_rows: int,
    max_bytes: int,
) -> tuple[tuple[ResultColumn, ...], list[tuple[Any, ...]]]:
    given = bound(params)
    if is_select:
        columns = described(cursor, statement, given)
        values = [
            checked_size(column.type, _read_as(column.type, f"c{i}"), max_bytes)
            for i, column in enumerate(columns)
        ]
        if any(value != f"c{i}" for i, value in enumerate(values)):
            statement = wrapped(statement, values)
        cursor.execute(statement, given)
    else:
        cursor.execute(statement, given)
        columns = _columns([(str(column[0]), str(column[1])) for column in cursor.description or ()])
    return columns, _rows(cursor, max_rows + 1, max_bytes)


def _rows(cursor: duckdb.DuckDBPyConnection, count: int, max_bytes: int) -> list[tuple[Any, ...]]:
    """At most `count` rows, few at first, so that wide ones are met before there are many of them."""
    rows: list[tuple[Any, ...]] = []
    size, piece = 0, 1
    while len(rows) < count:
        found = cursor.fetchmany(min(piece, count - len(rows)))
        if not found:
            break
        size += sum(_size(value) for row in found for value in row)
        if size > max_bytes:
            raise ResultTooLargeError(max_bytes)
        rows += found
        piece = min(piece * 2, 1024)
    return rows


def _size(value: Any) -> int:
    """About how many bytes `value` takes in an answer."""
    if isinstance(value, str | bytes | bytearray):
        return len(value) + 8
    if isinstance(value, list | tuple):
        return 8 + sum(map(_size, value))
    if isinstance(value, Mapping):
        return 8 + sum(_size(key) + _size(item) for key, item in value.items())
    return 8


TOO_LARGE = "duckling:result-too-large"


def checked_size(type_name: str, value: str, max_bytes: int) -> str:
    """The expression `value`, made to fail in DuckDB where one value alone is larger than the whole may be."""
    if type_name not in {"VARCHAR", "JSON", "BLOB"}:
        return value
    measure = "octet_length" if type_name == "BLOB" else "strlen"
    return f"CASE WHEN {measure}({value}) > {max_bytes} THEN error('{TOO_LARGE}') ELSE {value} END"


_NATIVE = re.compile(
    r"(BOOLEAN|U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*\)|VARCHAR|JSON|BLOB|UUID|ENUM\(.*\)"
    r"|\"NULL\"|NULL)",
    re.DOTALL,
)
_NESTED = re.compile(r"(.*\[\d*\]|STRUCT.*|MAP\(.*|UNION\(.*)", re.DOTALL)
_NOT_EXACT_IN_PYTHON = re.compile(r"TIME|INTERVAL|BIT\b|BIGNUM|GEOMETRY|VARIANT")


def _read_as(type_name: str, column: str) -> str:
    """How `column` is read: as it is, or as DuckDB's own text where Python's type would lose something.

    `timedelta` knows no months, `datetime` no nanoseconds, no infinity and no year beyond 9999.
    """
    if _NATIVE.fullmatch(type_name):
        return column
    if _NESTED.fullmatch(type_name):
        return f"{column}::VARCHAR" if _NOT_EXACT_IN_PYTHON.search(type_name) else column
    if type_name == ZONED:
        return f"({column} AT TIME ZONE 'UTC')::VARCHAR"
    return f"{column}::VARCHAR"


def _columns(types: Sequence[tuple[str, str]]) -> tuple[ResultColumn, ...]:
    taken: set[str] = set()
    columns = []
    for name, type_name in types:
        unique, count = name, 0
        while unique in taken:
            count += 1
            unique = f"{name}_{count}"
        taken.add(unique)
        columns.append(ResultColumn(unique, type_name))
    return tuple(columns)


@contextmanager
def _read_only_transaction(cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    cursor.execute(f"SET search_path = '{SEARCH_PATH}'; BEGIN TRANSACTION READ ONLY")
    try:
        yield
    finally:
        # Nothing was written: a failed ROLLBACK loses nothing, and must not hide the error before it.
        with suppress(duckdb.Error):
            cursor.execute("ROLLBACK")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise query_error(error) from error


def query_error(error: duckdb.Error) -> DucklingError:
    """The error of ours for one that DuckDB raised in a client's query."""
    if isinstance(error, duckdb.PermissionException):
        return refused("the SQL reaches beyond the database", hint="read tables of the database")
    if isinstance(error, duckdb.FatalException | duckdb.InternalException):
        return ReplicaFatalError("DuckDB stopped in a query", hint="see the log")
    if isinstance(error, duckdb.OutOfMemoryException):
        return QueryError(
            "the query needs more memory than DuckDB may use",
            hint="narrow it, or raise DUCKDB_MEMORY_LIMIT",
            code="QUERY_MEMORY",
        )
    message = first_line(error)
    if TOO_LARGE in message:
        return ResultTooLargeError(None)
    if "read-only mode" in message:
        return refused("the SQL writes")
    return QueryError(message, hint="correct the SQL or its parameters")
