"""The rows of a batch, table by table, in the transaction that is open."""

from __future__ import annotations

from collections import Counter

import duckdb
import numpy as np
import structlog

from cdc.errors import DucklingError, RowRefusedError
from cdc.metrics import DatabaseMetrics
from cdc.replica.apply import apply_rows
from cdc.replica.cascades import CascadeReplay
from cdc.replica.completion import apply_mixed
from cdc.replica.duckdb_errors import translate
from cdc.replica.target import BatchTarget
from cdc.schema import Table
from cdc.source.batcher import Batch, Rows
from cdc.source.cascades import ParentChanges
from cdc.source.mixed_rows import MixedRows
from cdc.source.rows import DELETE, INSERT, UPDATE

log = structlog.get_logger(__name__)

_OPERATIONS = (("insert", INSERT), ("update", UPDATE), ("delete", DELETE))


class BatchRows:
    """Applies batches of the database called `name`."""

    def __init__(self, metrics: DatabaseMetrics, name: str) -> None:
        self._metrics = metrics
        self._name = name

    def apply(
        self, cursor: duckdb.DuckDBPyConnection, target: BatchTarget, batch: Batch, replace: bool
    ) -> Counter[str]:
        """All rows of `batch`, in order; returns how many of each operation there were.

        With `replace` rows with the keys of inserted ones are replaced. Raises DucklingError with the table
        where the rows are at fault, ConstraintException for a key that exists, other errors of DuckDB.
        """
        counted = Counter[str]()
        cascades = CascadeReplay(cursor, target.tables, target.name_of)
        for key, buffer in batch.buffers:
            if isinstance(buffer, ParentChanges):
                cascades.replay(buffer)
            elif len(buffer):
                self._table(cursor, target, target.tables[key], buffer, replace)
                operations = buffer.operations()
                for operation, code in _OPERATIONS:
                    counted[operation] += int(np.count_nonzero(operations == code))
        cascades.finish()
        return counted

    def _table(
        self,
        cursor: duckdb.DuckDBPyConnection,
        target: BatchTarget,
        table: Table,
        buffer: Rows,
        replace: bool,
    ) -> None:
        """One table's rows. An error that lies in the rows names the table; others are as they are."""
        try:
            name = target.name_of(table.name)
            if isinstance(buffer, MixedRows):
                done = apply_mixed(cursor, table, name, buffer, overlap=target.overlap)
            else:
                done = apply_rows(
                    cursor,
                    table,
                    name,
                    buffer.to_arrow(table),
                    buffer.operations(),
                    overlap=target.overlap,
                    replace=replace,
                )
        except DucklingError as error:
            error.table = error.table or table.name
            raise
        except duckdb.Error as error:
            if isinstance(error, duckdb.ConstraintException) and not replace:
                raise
            failure = translate(error)
            if isinstance(failure, RowRefusedError):
                failure.table = table.name
                raise failure from error
            raise
        except Exception as error:
            raise RowRefusedError(
                f"rows of table {table.name} can't be applied ({error.__class__.__name__})",
                hint=f"see the log; then POST /sync/table/{table.name}",
                table=table.name,
            ) from error
        if buffer.lost_dates:
            self._metrics.zero_dates_met(table.name, buffer.lost_dates)
        if done.missing:
            log.warning("replica.rows_missing", database=self._name, table=table.name, rows=done.missing)
