"""A result as a file: in pieces that stay small where rows are large, and an error where the disk is full."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from cdc.errors import ReplicaError
from cdc.export import GROUP_ROWS, Format, export_query
from cdc.replica.database import ReplicaDatabase

LIMITS = {"max_rows": 1_000_000, "timeout_ms": 60_000, "max_bytes": 1 << 30}
WIDE = "SELECT i, repeat('x', 8192) AS text FROM range(8192) AS r(i)"
NARROW = "SELECT i FROM range(40000) AS r(i)"


@pytest.fixture
def cursor(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    database = ReplicaDatabase(tmp_path / "copy.db", memory_limit="256MB", threads=1)
    database.open()
    with database.cursor() as cursor:
        cursor.execute("CREATE SCHEMA _duckling")
        yield cursor
    database.close()


def written(cursor: duckdb.DuckDBPyConnection, sql: str, format_: Format) -> io.BytesIO:
    file = io.BytesIO()
    # What is read back is closed with the writer, so the bytes are kept apart.
    export_query(cursor, sql, None, file, format_, **LIMITS)
    return io.BytesIO(file.getvalue())


def test_large_rows_are_handed_over_few_at_a_time(cursor: duckdb.DuckDBPyConnection) -> None:
    with pa.ipc.open_stream(written(cursor, WIDE, "arrow")) as reader:
        batches = list(reader)
    assert pa.Table.from_batches(batches).column("i").to_pylist() == list(range(8192))
    assert max(batch.num_rows for batch in batches) <= 2048


def test_row_groups_are_large_where_rows_are_small(cursor: duckdb.DuckDBPyConnection) -> None:
    file = pa.parquet.ParquetFile(written(cursor, NARROW, "parquet"))
    groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    assert groups[:-1] == [GROUP_ROWS] * (len(groups) - 1)
    assert file.read().column("i").to_pylist() == list(range(40_000))


@pytest.mark.parametrize("format_", ["csv", "arrow", "parquet"])
def test_a_full_disk_is_no_fault_of_the_query(cursor: duckdb.DuckDBPyConnection, format_: Format) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(ReplicaError) as error:
        export_query(cursor, NARROW, None, full, format_, **LIMITS)
    assert "No space left on device" in error.value.message
