"""Replicated tables in DuckDB: made as staging tables, swapped in, dropped."""

from __future__ import annotations

import duckdb

from cdc.schema import Column, Table, quote_duckdb
from cdc.types import comment, duckdb_type

STAGING_PREFIX = "__duckling_staging__"
"""Staging tables stand in `main` beside the replicated ones: DuckDB can't rename across schemas."""


def staging_name(table: str) -> str:
    """The name under which a table is filled before readers see it."""
    return STAGING_PREFIX + table


def has_key_index(table: Table) -> bool:
    """Whether DuckDB keeps an index on the primary key, so that `INSERT OR REPLACE` is possible.

    It can't on INTERVAL, which TIME becomes. And in a list (VECTOR) the replacing makes -0.0 to 0.0 (DuckDB
    2.0): such a table is kept by delete and insert, as are those for which UNINDEXED_TABLES wants none.
    """
    return (
        table.key_index
        and bool(table.primary_key)
        and all(duckdb_type(table.column(name)) != "INTERVAL" for name in table.primary_key)
        and not any(column.data_type == "vector" for column in table.columns)
    )


def create(cursor: duckdb.DuckDBPyConnection, table: Table, name: str) -> None:
    """Makes an empty table called `name`. Columns carry their declaration as a comment.

    NOT NULL is left to the source, for zero dates become NULL; but in a key without an index a NULL would match
    no row. Of the keys only the primary one is made: `INSERT OR REPLACE` allows no second unique one.
    """
    quoted = quote_duckdb(name)
    indexed = has_key_index(table)
    filled = () if indexed else table.primary_key
    columns = [
        f"{quote_duckdb(column.name)} {duckdb_type(column)}{' NOT NULL' if column.name in filled else ''}"
        for column in table.columns
    ]
    if indexed:
        columns.append(f"PRIMARY KEY ({', '.join(quote_duckdb(key) for key in table.primary_key)})")
    cursor.execute(f"CREATE TABLE {quoted} ({', '.join(columns)})")
    for column in table.columns:
        set_comment(cursor, name, column)


def set_comment(cursor: duckdb.DuckDBPyConnection, table: str, column: Column) -> None:
    """Notes on a column how the source declares it."""
    text = comment(column).replace("'", "''")
    place = f"{quote_duckdb(table)}.{quote_duckdb(column.name)}"
    cursor.execute(f"COMMENT ON COLUMN {place} IS '{text}'")


def create_staging(cursor: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Makes an empty staging table, dropping an older one."""
    drop_staging(cursor, table.name)
    create(cursor, table, staging_name(table.name))


def swap(cursor: duckdb.DuckDBPyConnection, table: str) -> None:
    """The staging table becomes the table, as part of the caller's transaction."""
    cursor.execute(f"DROP TABLE IF EXISTS {quote_duckdb(table)}")
    cursor.execute(f"ALTER TABLE {quote_duckdb(staging_name(table))} RENAME TO {quote_duckdb(table)}")


def drop(cursor: duckdb.DuckDBPyConnection, table: str) -> None:
    """Drops a replicated table and its staging table, where they exist."""
    remove(cursor, table)
    drop_staging(cursor, table)


def remove(cursor: duckdb.DuckDBPyConnection, table: str) -> None:
    """Drops a replicated table, if there is one; a copy of it that is under way keeps its staging table.

    One whose name differs by case, which DuckDB takes for the same, stays.
    """
    there = cursor.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'main' AND table_name = ?", [table]
    ).fetchall()
    if there:
        cursor.execute(f"DROP TABLE {quote_duckdb(table)}")


def drop_staging(cursor: duckdb.DuckDBPyConnection, table: str) -> None:
    """Drops a table's staging table, where there is one."""
    cursor.execute(f"DROP TABLE IF EXISTS {quote_duckdb(staging_name(table))}")


def truncate(cursor: duckdb.DuckDBPyConnection, table: str) -> None:
    """Removes all rows."""
    cursor.execute(f"DELETE FROM {quote_duckdb(table)}")


def any_row(cursor: duckdb.DuckDBPyConnection, table: str, predicate: str) -> bool:
    """Whether a row fulfils `predicate`, an SQL condition over the table's columns."""
    found = cursor.execute(f"SELECT 1 FROM {quote_duckdb(table)} WHERE {predicate} LIMIT 1").fetchall()
    return bool(found)


def drop_leftovers(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    """Drops the staging tables that a crash left behind; returns their names."""
    rows = cursor.execute(
        "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' AND starts_with(table_name, ?)",
        [STAGING_PREFIX],
    ).fetchall()
    for (name,) in rows:
        cursor.execute(f"DROP TABLE {quote_duckdb(name)}")
    return [name for (name,) in rows]
