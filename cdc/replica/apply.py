"""One table's buffered rows into its DuckDB table: the last image per key wins, deletes before inserts."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from cdc.errors import DivergenceError
from cdc.replica.row_views import registered
from cdc.replica.tables import has_key_index
from cdc.schema import Table, quote_duckdb
from cdc.source.rows import DELETE, INSERT


@dataclass(frozen=True, slots=True)
class Applied:
    """Rows written, rows removed for good, and rows that should have been there and weren't."""

    written: int
    removed: int
    missing: int = 0


def apply_rows(
    cursor: duckdb.DuckDBPyConnection,
    table: Table,
    name: str,
    rows: pa.Table,
    operations: np.ndarray,
    *,
    overlap: bool,
    replace: bool = True,
) -> Applied:
    """Applies `rows` (of `row_schema(table)`, in binlog order) to the DuckDB table `name`.

    `operations` says what each row does. `overlap`: the table may hold a later state than the rows start
    from, as a fresh copy does; then what came as an insert may exist already. Without `replace` the put is
    a plain INSERT, in half the time, and a key that exists after all (a cascade or sql_log_bin = 0 removed
    it at the source) raises duckdb.ConstraintException, where the key has an index; else it is replaced.
    Needs a transaction of the caller's.
    """
    if not table.primary_key:
        return _apply_keyless(cursor, table, name, rows, operations)
    indexed = has_key_index(table)
    key = [f"c{i}" for i, column in enumerate(table.columns) if column.name in table.primary_key]
    first, last = _first_and_last(rows.select(key))
    # Without DuckDB's index nothing would replace a row: there too every key counts as existing.
    may_exist = overlap or not indexed
    was_there = operations[first] != INSERT
    goes_first = np.ones(len(last), dtype=bool) if may_exist else was_there
    stays = operations[last] != DELETE
    # An in-place update logs whole vectors: keys that exist are deleted and inserted, for less cost.
    gone = rows.select(key).take(pa.array(last[goes_first])) if goes_first.any() else None
    removed = delete_keys(cursor, table, name, gone) if gone is not None else 0
    missing = 0 if overlap else max(0, int(was_there.sum()) - removed)
    put = rows if len(last) == len(rows) and stays.all() else rows.take(pa.array(np.sort(last[stays])))
    written = (_upsert if indexed and replace else append_rows)(cursor, table, name, put) if len(put) else 0
    return Applied(written, int((~stays & goes_first).sum()), missing)


def _first_and_last(keys: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of each key's first and last image."""
    numbers = np.arange(len(keys))
    if len(keys) == 1:
        return numbers, numbers
    if keys.num_columns == 1 and pa.types.is_integer(keys.schema.types[0]):
        return _ends_of_integers(keys.column(0).to_numpy(), numbers)
    ends = (
        keys.append_column("row", pa.array(numbers))
        .group_by(keys.column_names, use_threads=False)
        .aggregate([("row", "min"), ("row", "max")])
    )
    return ends["row_min"].to_numpy(), ends["row_max"].to_numpy()


def _ends_of_integers(keys: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `_first_and_last`, for the most usual keys: rising ones, of new rows, need one comparison each."""
    if (keys[1:] > keys[:-1]).all():
        return numbers, numbers
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    differs = ordered[1:] != ordered[:-1]
    return order[np.concatenate(([True], differs))], order[np.concatenate((differs, [True]))]


def delete_keys(cursor: duckdb.DuckDBPyConnection, table: Table, name: str, gone: pa.Table) -> int:
    """Deletes the rows whose keys are in `gone` (columns as in `row_schema`); returns how many there were."""
    match = " AND ".join(
        f"t.{quote_duckdb(column.name)} = g.c{i}"
        for i, column in enumerate(table.columns)
        if column.name in table.primary_key
    )
    with registered(cursor, gone) as view:
        done = cursor.execute(f"DELETE FROM {quote_duckdb(name)} t USING {view} g WHERE {match}").fetchall()
    return int(done[0][0])


def _upsert(cursor: duckdb.DuckDBPyConnection, table: Table, name: str, rows: pa.Table) -> int:
    return _insert(cursor, "INSERT OR REPLACE", table, name, rows)


def append_rows(cursor: duckdb.DuckDBPyConnection, table: Table, name: str, rows: pa.Table) -> int:
    """Appends rows (of `row_schema(table)`) that are known to be new: those of a copy, say."""
    return _insert(cursor, "INSERT", table, name, rows)


def _insert(cursor: duckdb.DuckDBPyConnection, verb: str, table: Table, name: str, rows: pa.Table) -> int:
    listed = ", ".join(quote_duckdb(column.name) for column in table.columns)
    with registered(cursor, rows) as view:
        cursor.execute(f"{verb} INTO {quote_duckdb(name)} ({listed}) SELECT * FROM {view}")
    return len(rows)


def _apply_keyless(
    cursor: duckdb.DuckDBPyConnection, table: Table, name: str, rows: pa.Table, operations: np.ndarray
) -> Applied:
    """Without a key the whole row is one: equal rows are counted, and of three equal ones one is deleted."""
    if (operations != DELETE).all():
        return Applied(append_rows(cursor, table, name, rows), 0)
    columns = {f"c{i}": column for i, column in enumerate(table.columns)}
    listed = ", ".join(columns)
    target = quote_duckdb(name)
    signed = rows.append_column("sign", pa.array(np.where(operations == DELETE, -1, 1)))
    with registered(cursor, signed) as view:
        cursor.execute(
            "CREATE OR REPLACE TEMP TABLE _duckling_net AS SELECT row_number() OVER () AS id, * FROM ("
            f"SELECT {listed}, sum(sign)::BIGINT AS net FROM {view} GROUP BY {listed}) WHERE net <> 0"
        )
    wanted = cursor.execute("SELECT coalesce(sum(-net), 0) FROM _duckling_net WHERE net < 0").fetchall()[0][0]
    removed = _delete_counted(cursor, table, target) if wanted else 0
    if removed != wanted:
        raise DivergenceError(
            f"table {table.name} has no key and lacks {wanted - removed} rows that the source deleted",
            hint=f"the table is copied again; by hand: POST /sync/table/{table.name}",
            table=table.name,
        )
    names = ", ".join(quote_duckdb(column.name) for column in table.columns)
    written = cursor.execute(
        f"INSERT INTO {target} ({names})"
        f" SELECT {listed} FROM _duckling_net n, range(n.net) AS copies(nth) WHERE n.net > 0"
    ).fetchall()[0][0]
    cursor.execute("DROP TABLE _duckling_net")
    return Applied(int(written), int(removed))


def _delete_counted(cursor: duckdb.DuckDBPyConnection, table: Table, target: str) -> int:
    """Deletes as many equal rows as `_duckling_net` says, and no more; returns how many there were."""
    same = " AND ".join(
        f"t.{quote_duckdb(c.name)}{_compared_as(c.data_type)} IS NOT DISTINCT FROM n.c{i}"
        for i, c in enumerate(table.columns)
    )
    matched = f"{target} t JOIN _duckling_net n ON n.net < 0 AND {same}"
    if all(column.name.lower() != "rowid" for column in table.columns):
        done = cursor.execute(
            f"DELETE FROM {target} WHERE rowid IN (SELECT found FROM (SELECT t.rowid AS found, n.net,"
            f" row_number() OVER (PARTITION BY n.id) AS nth FROM {matched}) WHERE nth <= -net)"
        ).fetchall()
        return int(done[0][0])
    # A column of that name hides DuckDB's own: all equal rows go, and those that stay come again.
    found = cursor.execute(f"SELECT n.id, n.net, count(*) FROM {matched} GROUP BY ALL").fetchall()
    cursor.execute(f"DELETE FROM {target} t USING _duckling_net n WHERE n.net < 0 AND {same}")
    for identity, net, count in found:
        cursor.execute("UPDATE _duckling_net SET net = ? WHERE id = ?", [max(0, count + net), identity])
    return sum(min(count, -net) for _, net, count in found)


def _compared_as(data_type: str) -> str:
    return "::VARCHAR" if data_type == "json" else ""
