"""A client's query as a file: CSV, an Arrow IPC stream or Parquet, written piece by piece.

The whole result goes to a file before any of it is sent. So a slow client holds no snapshot of DuckDB, which
would keep the write-ahead log from being checkpointed; an error is still an answer of its own; and the answer
can say at its beginning how many rows it has and whether it was cut.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import IO, Any, Literal, Protocol

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc

from cdc.errors import ReplicaError, ResultTooLargeError
from cdc.query import bound, checked_size, described, reading_statement, wrapped
from cdc.read_only import refused
from cdc.schema import quote_duckdb

Format = Literal["csv", "arrow", "parquet"]

BATCH_ROWS = 2048
"""Rows that DuckDB hands over at a time: one vector, the least there is. They are in memory outside of its limit."""
GROUP_ROWS = 16_384
"""Rows that are written at a time: a row group of Parquet."""
GROUP_BYTES = 8 << 20
"""Bytes after which fewer rows are written at a time."""
_TEXT_ONLY = (
    "BIT",
    "BIGNUM",
    "UNION",
    "VARIANT",
    "GEOMETRY",
    "INTERVAL",
    "TIME WITH TIME ZONE",
    "ENUM",
    "UUID",
)
_CSV_NATIVE = frozenset(
    {
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "FLOAT",
        "DOUBLE",
    }
)
"""Types whose text Arrow's CSV writer makes as DuckDB does."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was written; `truncated` says that more rows would have followed."""

    rows: int
    truncated: bool
    size: int
    """Bytes."""


class _Sink(Protocol):
    def write_table(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


def export_query(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    params: Sequence[Any] | Mapping[str, Any] | None,
    file: IO[bytes],
    format_: Format,
    *,
    max_rows: int,
    timeout_ms: int,
    max_bytes: int,
) -> Export:
    """Writes the rows of one SELECT to `file`, in bounded memory.

    CSV has a head line, an empty field for NULL, `""` for an empty text, binary values in base64. In Arrow
    and Parquet, types keep theirs; those that either lacks are text.

    Raises what `cdc.query.run_query` raises, ResultTooLargeError beyond `max_bytes` bytes of the file,
    ReplicaError where that can't be written.
    """
    with reading_statement(cursor, sql, timeout_ms) as (statement, is_select):
        if not is_select:
            raise refused("only SELECT can be answered in this format", hint="ask for application/json")
        given = bound(params)
        columns = described(cursor, statement, given)
        values = [
            f"{_value(column.type, f'c{i}', format_, max_bytes)} AS {quote_duckdb(column.name)}"
            for i, column in enumerate(columns)
        ]
        relation = cursor.sql(wrapped(statement, values), params=given)
        try:
            with closing(relation.to_arrow_reader(BATCH_ROWS)) as reader:
                return _write(reader, file, format_, max_rows, max_bytes)
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the file's; DuckDB's have none
                raise ReplicaError(
                    f"the result can't be written beside the DuckDB file: {os.strerror(error.errno)}",
                    hint="check the disk: space, health, permissions",
                ) from error
            raise _duckdb_error(error) from error
        finally:
            del relation  # DuckDB runs nothing else on this cursor while a result is alive


def _value(type_name: str, column: str, format_: Format, max_bytes: int) -> str:
    if format_ == "csv":
        if type_name in _CSV_NATIVE:
            return column
        if type_name == "BLOB":
            return f"base64({checked_size(type_name, column, max_bytes)})"
        if type_name == "TIMESTAMP WITH TIME ZONE":
            return f"replace(({column} AT TIME ZONE 'UTC')::VARCHAR, ' ', 'T') || 'Z'"
        return checked_size("VARCHAR", f"{column}::VARCHAR", max_bytes)
    if type_name.startswith(_TEXT_ONLY) or type_name in {"NULL", '"NULL"'}:
        return f"{column}::VARCHAR"
    if type_name == "JSON":
        column = f"{column}::VARCHAR"
    return checked_size(type_name, column, max_bytes)


def _write(
    reader: pa.RecordBatchReader, file: IO[bytes], format_: Format, max_rows: int, max_bytes: int
) -> Export:
    rows, truncated = 0, False
    with closing(_sink(file, format_, reader.schema)) as sink:
        for group in _groups(reader):
            room = max_rows - rows
            if group.num_rows > room:
                truncated = True
                group = group.slice(0, room)
            if group.num_rows:
                sink.write_table(group)
            rows += group.num_rows
            if file.tell() > max_bytes:
                raise ResultTooLargeError(max_bytes)
            if truncated:
                break
    return Export(rows, truncated, file.tell())


def _groups(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The rows of `reader` as they are written: many at a time where they are small."""
    batches: list[pa.RecordBatch] = []
    for batch in reader:
        batches.append(batch)
        full = sum(each.num_rows for each in batches) >= GROUP_ROWS
        if full or sum(each.nbytes for each in batches) >= GROUP_BYTES:
            yield pa.Table.from_batches(batches)
            batches.clear()
    if batches:
        yield pa.Table.from_batches(batches)


def _sink(file: IO[bytes], format_: Format, schema: pa.Schema) -> _Sink:
    sink: _Sink
    if format_ == "arrow":
        sink = pa.ipc.new_stream(file, schema)
    elif format_ == "parquet":
        from pyarrow.parquet import ParquetWriter  # 6 MB of memory, which most services never need

        sink = ParquetWriter(file, schema, compression="zstd")
    else:
        sink = pa.csv.CSVWriter(file, schema)
    return sink


_KINDS: dict[str, type[duckdb.Error]] = {
    "INTERRUPT": duckdb.InterruptException,
    "Out of Memory": duckdb.OutOfMemoryException,
    "FATAL": duckdb.FatalException,
    "INTERNAL": duckdb.InternalException,
}


def _duckdb_error(error: Exception) -> duckdb.Error:
    """The error of DuckDB that came through Arrow, which keeps its text alone."""
    text = str(error)
    for word, kind in _KINDS.items():
        if text.startswith(word):
            return kind(text)
    return duckdb.Error(text)
