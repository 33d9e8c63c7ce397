"""One table's buffered rows into its DuckDB table: the last image per key wins, deletes before inserts."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from cdc.errors import DivergenceError
from cdc.replica.tables import has_key_index
from cdc.schema import Table, quote_duckdb
from cdc.source.rows import DELETE, INSERT, OP_COLUMN

_ROWS = "_duckling_rows"
_GONE = "_duckling_gone"


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done: rows written, rows removed for good, and rows that should have been there and weren't."""

    written: int
    removed: int
    missing: int = 0


def apply_rows(
    cursor: duckdb.DuckDBPyConnection, table: Table, name: str, rows: pa.Table, *, overlap: bool
) -> Applied:
    """Applies `rows` (the table's columns and `_op`, in binlog order) to the DuckDB table `name`.

    `overlap`: the table may hold a later state than the rows start from, as a fresh copy does; then what
    came as an insert may exist already. Needs a transaction of the caller's.
    """
    if not table.primary_key:
        return _apply_keyless(cursor, table, name, rows)
    ops = rows[OP_COLUMN].to_numpy()
    rows = rows.drop_columns(OP_COLUMN)
    put = _upsert if has_key_index(table) else append_rows
    if not overlap and (ops == INSERT).all():
        return Applied(put(cursor, name, rows), 0)
    first, last = _first_and_last(rows, table.primary_key)
    may_exist = overlap or not has_key_index(table)
    goes_first = np.ones(len(last), dtype=bool) if may_exist else ops[first] != INSERT
    stays = ops[last] != DELETE
    # An in-place update logs whole vectors, so keys that exist are deleted and inserted: same rows, less cost.
    gone = rows.select(list(table.primary_key)).take(pa.array(last[goes_first]))
    removed = _delete(cursor, name, table, gone) if len(gone) else 0
    missing = 0 if may_exist else len(gone) - removed
    written = put(cursor, name, rows.take(pa.array(last[stays]))) if stays.any() else 0
    return Applied(written, int((~stays & goes_first).sum()), missing)


def _first_and_last(rows: pa.Table, key: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of each key's first and last image."""
    count = len(rows)
    numbers = np.arange(count)
    if count == 1:
        return numbers, numbers
    keyed = rows.select(list(key)).append_column("_row", pa.array(numbers))
    ends = keyed.group_by(list(key), use_threads=False).aggregate([("_row", "min"), ("_row", "max")])
    return ends["_row_min"].to_numpy(), ends["_row_max"].to_numpy()


def _delete(cursor: duckdb.DuckDBPyConnection, name: str, table: Table, gone: pa.Table) -> int:
    match = " AND ".join(f"t.{quote_duckdb(key)} = g.{quote_duckdb(key)}" for key in table.primary_key)
    cursor.register(_GONE, gone)
    try:
        done = cursor.execute(f"DELETE FROM {quote_duckdb(name)} t USING {_GONE} g WHERE {match}").fetchall()
    finally:
        cursor.unregister(_GONE)
    return int(done[0][0])


def _upsert(cursor: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> int:
    cursor.register(_ROWS, rows)
    try:
        cursor.execute(f"INSERT OR REPLACE INTO {quote_duckdb(name)} BY NAME SELECT * FROM {_ROWS}")
    finally:
        cursor.unregister(_ROWS)
    return len(rows)


def append_rows(cursor: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> int:
    """Appends rows that are known to be new: those of a copy into its staging table."""
    cursor.register(_ROWS, rows)
    try:
        cursor.execute(f"INSERT INTO {quote_duckdb(name)} BY NAME SELECT * FROM {_ROWS}")
    finally:
        cursor.unregister(_ROWS)
    return len(rows)


def _apply_keyless(cursor: duckdb.DuckDBPyConnection, table: Table, name: str, rows: pa.Table) -> Applied:
    """Without a key the whole row is one: equal rows are counted, and of three equal ones one is deleted."""
    ops = rows[OP_COLUMN].to_numpy()
    if (ops != DELETE).all():
        return Applied(append_rows(cursor, name, rows.drop_columns(OP_COLUMN)), 0)
    columns = [quote_duckdb(column.name) for column in table.columns]
    listed = ", ".join(columns)
    # JSON is compared as the text that it is kept as.
    plain = {
        c: f"{c}::VARCHAR" if k.data_type == "json" else c
        for c, k in zip(columns, table.columns, strict=True)
    }
    same = " AND ".join(f"t.{plain[c]} IS NOT DISTINCT FROM n.{plain[c]}" for c in columns)
    target = quote_duckdb(name)
    cursor.register(_ROWS, rows)
    try:
        cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE _duckling_net AS SELECT row_number() OVER () AS _id, * FROM ("
            f"SELECT {listed}, sum(CASE WHEN {OP_COLUMN} = {DELETE} THEN -1 ELSE 1 END)::BIGINT AS _net"
            f" FROM {_ROWS} GROUP BY {listed}) WHERE _net <> 0"
        )
    finally:
        cursor.unregister(_ROWS)
    wanted = cursor.execute("SELECT coalesce(sum(-_net), 0) FROM _duckling_net WHERE _net < 0").fetchall()[0][
        0
    ]
    removed = 0
    if wanted:
        removed = cursor.execute(
            f"DELETE FROM {target} WHERE rowid IN (SELECT _row FROM ("
            f"SELECT t.rowid AS _row, n._net, row_number() OVER (PARTITION BY n._id) AS _nth"
            f" FROM {target} t JOIN _duckling_net n ON n._net < 0 AND {same}) WHERE _nth <= -_net)"
        ).fetchall()[0][0]
    if removed != wanted:
        raise DivergenceError(
            f"table {table.name} has no key and lacks {wanted - removed} rows that the source deleted",
            hint=f"the table is copied again; by hand: POST /sync/table/{table.name}",
            table=table.name,
        )
    written = cursor.execute(
        f"INSERT INTO {target} ({listed}) SELECT {listed} FROM _duckling_net, range(_net) WHERE _net > 0"
    ).fetchall()[0][0]
    cursor.execute("DROP TABLE _duckling_net")
    return Applied(int(written), int(removed))
