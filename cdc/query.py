"""Read-only SQL for clients: limits, the READ ONLY transaction, and answers whose values survive JSON."""

from __future__ import annotations

import base64
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import duckdb

from cdc.errors import QueryError, QueryTimeoutError, ReplicaError, ReplicaFatalError, StoppedError
from cdc.read_only import check_read_only, first_line, refused

SEARCH_PATH = "main,_duckling"
_EXACT_IN_JSON = 2**53
"""Beyond it a reader that keeps numbers as doubles loses digits (RFC 8259, section 6)."""


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
) -> QueryResult:
    """Runs one reading statement on `cursor`, a cursor of a database without external access.

    At most `max_rows` rows come back; after `timeout_ms` milliseconds the statement is interrupted.
    Integers beyond 2^53 and decimals become strings, binary values base64, times and intervals ISO 8601.

    Raises QueryError (READ_ONLY, QUERY), QueryTimeoutError, StoppedError (interrupted from outside),
    ReplicaFatalError (the file must be reopened).
    """
    started = time.monotonic()
    with _translated(), _deadline(cursor, timeout_ms) as timed_out:
        try:
            _check_closed_to_files(cursor)
            cursor.execute(f"SET search_path = '{SEARCH_PATH}'")
            statement, is_select = check_read_only(cursor, sql)
            with _read_only_transaction(cursor):
                columns, rows = _fetch(cursor, statement, is_select, params, max_rows)
        except duckdb.InterruptException:
            if not timed_out.is_set():
                raise StoppedError("the query was interrupted", hint="send it again") from None
            raise QueryTimeoutError(
                f"the query took longer than {timeout_ms} ms", hint="narrow it, or raise timeoutMs"
            ) from None
    truncated = len(rows) > max_rows
    return QueryResult(
        columns=columns,
        rows=_shape(columns, rows[:max_rows]),
        truncated=truncated,
        duration_ms=round((time.monotonic() - started) * 1000),
    )


def _fetch(
    cursor: duckdb.DuckDBPyConnection,
    statement: str,
    is_select: bool,
    params: Sequence[Any] | Mapping[str, Any] | None,
    max_rows: int,
) -> tuple[tuple[ResultColumn, ...], list[tuple[Any, ...]]]:
    given: list[Any] | dict[str, Any] = dict(params) if isinstance(params, Mapping) else list(params or ())
    if is_select:
        described = cursor.execute(f"DESCRIBE {statement}", given).fetchall()
        types = [(str(row[0]), str(row[1])) for row in described]
        if any(_read_as(type_name, "c") != "c" for _, type_name in types):
            names = ", ".join(f"c{i}" for i in range(len(types)))
            values = ", ".join(_read_as(type_name, f"c{i}") for i, (_, type_name) in enumerate(types))
            statement = f"SELECT {values} FROM (\n{statement}\n) AS q({names})"
        cursor.execute(statement, given)
    else:
        cursor.execute(statement, given)
        types = [(str(column[0]), str(column[1])) for column in cursor.description or ()]
    return _columns(types), cursor.fetchmany(max_rows + 1)


_ZONED = "TIMESTAMP WITH TIME ZONE"
_PLAIN_TIMESTAMPS = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"})
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
    if type_name == _ZONED:
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


def _shape(columns: Sequence[ResultColumn], rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    names = [column.name for column in columns]
    converters = [_converter(column.type) for column in columns]
    return [
        {
            name: None if value is None else convert(value)
            for name, convert, value in zip(names, converters, row, strict=True)
        }
        for row in rows
    ]


def _converter(type_name: str) -> Callable[[Any], Any]:
    if type_name == _ZONED:
        return lambda text: _iso(text, "Z")
    if type_name in _PLAIN_TIMESTAMPS:
        return _iso
    if type_name == "INTERVAL":
        return iso_duration
    return json_value


def json_value(value: Any) -> Any:
    """`value` as JSON can hold it exactly: big integers, decimals and non-finite numbers as text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -_EXACT_IN_JSON <= value <= _EXACT_IN_JSON else str(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(json_value(key)): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return str(value)


def _iso(text: str, suffix: str = "") -> str:
    """DuckDB's `2020-01-02 03:04:05` as ISO 8601; `infinity` stays."""
    return text.replace(" ", "T", 1) + suffix if text[-1:].isdigit() else text


_INTERVAL_PART = re.compile(r"(-?\d+) (year|month|day)s?|(-?)(\d+):(\d\d):(\d\d(?:\.\d+)?)")


def iso_duration(text: str) -> str:
    """DuckDB's text of an interval (`1 month -3 days 25:00:00.5`) as ISO 8601 (`P1M-3DT25H0.5S`)."""
    date, clock = "", ""
    for part in _INTERVAL_PART.finditer(text):
        count, unit, sign, hours, minutes, seconds = part.groups()
        if unit:
            date += f"{count}{unit[0].upper()}"
            continue
        seconds = seconds.lstrip("0") if seconds.strip("0.") else ""
        if seconds.startswith("."):
            seconds = f"0{seconds}"
        if int(hours):
            clock += f"{sign}{int(hours)}H"
        if int(minutes):
            clock += f"{sign}{int(minutes)}M"
        if seconds:
            clock += f"{sign}{seconds}S"
    if clock:
        return f"P{date}T{clock}"
    return f"P{date}" if date else "PT0S"


def _check_closed_to_files(cursor: duckdb.DuckDBPyConnection) -> None:
    row = cursor.execute("SELECT current_setting('enable_external_access')").fetchone()
    if row is None or row[0]:
        raise ReplicaError(
            "queries are off: the DuckDB file is open with access to other files",
            hint="open it with enable_external_access=false",
        )


@contextmanager
def _read_only_transaction(cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    cursor.execute("BEGIN TRANSACTION READ ONLY")
    try:
        yield
    finally:
        # Nothing was written: a failed ROLLBACK loses nothing, and must not hide the error before it.
        with suppress(duckdb.Error):
            cursor.execute("ROLLBACK")


@contextmanager
def _deadline(cursor: duckdb.DuckDBPyConnection, timeout_ms: int) -> Iterator[threading.Event]:
    """Interrupts `cursor` after `timeout_ms`, never after the block: the caller may close the cursor."""
    fired, lock, over = threading.Event(), threading.Lock(), False

    def interrupt() -> None:
        with lock:
            if not over:
                fired.set()
                cursor.interrupt()

    timer = threading.Timer(timeout_ms / 1000, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield fired
    finally:
        with lock:
            over = True
        timer.cancel()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except duckdb.PermissionException:
        raise refused("the SQL reaches beyond the database", hint="read tables of the database") from None
    except (duckdb.FatalException, duckdb.InternalException) as error:
        raise ReplicaFatalError("DuckDB stopped in a query", hint="see the log") from error
    except duckdb.OutOfMemoryException:
        raise QueryError(
            "the query needs more memory than DuckDB may use",
            hint="narrow it, or raise DUCKDB_MEMORY_LIMIT",
        ) from None
    except duckdb.Error as error:
        message = first_line(error)
        if "read-only mode" in message:
            raise refused("the SQL writes") from None
        raise QueryError(message, hint="correct the SQL or its parameters") from None
