"""Fetched rows as the copy would hold them: their digests and keys, by a DuckDB of its own, in memory."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

from cdc.replica.apply import append_rows
from cdc.replica.duckdb_errors import translate
from cdc.replica.tables import create_staging, staging_name
from cdc.schema import Table, quote_duckdb
from cdc.validation.canonical import row_digest

_SETTINGS: dict[str, Any] = {
    "threads": 1,
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


class AsCopied:
    """One table's rows, a piece at a time. Use as a context manager."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._connection: duckdb.DuckDBPyConnection

    def __enter__(self) -> AsCopied:
        self._connection = duckdb.connect(":memory:", config=_SETTINGS)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def digests(self, rows: pa.Table) -> list[tuple[str, tuple[Any, ...]]]:
        """Digest and key of each row. Raises ReplicaError for rows that DuckDB does not take."""
        table, name = self._table, staging_name(self._table.name)
        key = "".join(f", {quote_duckdb(column)}" for column in table.primary_key)
        try:
            create_staging(self._connection, table)
            append_rows(self._connection, table, name, rows)
            found = self._connection.execute(
                f"SELECT {row_digest(table.columns).copy}{key} FROM {quote_duckdb(name)}"
            ).fetchall()
        except duckdb.Error as error:
            raise translate(error) from error
        return [(digest, tuple(values)) for digest, *values in found]
