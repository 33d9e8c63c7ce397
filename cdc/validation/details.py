"""One table as both sides have it: columns, rows, largest key and checksum. For looking at, not for proof.

Both sides are read one after the other, so a table that is written to may differ by what came in between;
`GET /sync/validate` compares at one position.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from cdc.engine import Engine
from cdc.errors import DucklingError
from cdc.replica import state
from cdc.replica.duckdb_errors import translate
from cdc.schema import Table, quote_duckdb, quote_mysql
from cdc.source.snapshot import Snapshot
from cdc.validation.canonical import checksum, row_digest
from cdc.validation.sides import SourceSide
from cdc.validation.spans import EVERYTHING

_COUNTED = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})


@dataclass(frozen=True, slots=True)
class SideDetails:
    """One side. `max_id` is the largest value of the first key column, where that is an integer.

    `checksum` is 60 bits of each row's digest summed up, in decimal digits; equal for equal contents.
    """

    exists: bool
    columns: tuple[str, ...] = ()
    rows: int | None = None
    max_id: int | None = None
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class TableDetails:
    """Both sides of one table; `error` where one of them could not be read."""

    copy: SideDetails
    source: SideDetails
    error: DucklingError | None = None

    @property
    def missing_columns(self) -> tuple[str, ...]:
        """Columns that the copy lacks."""
        return tuple(name for name in self.source.columns if name not in self.copy.columns)

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Columns that the source lacks."""
        return tuple(name for name in self.copy.columns if name not in self.source.columns)


def table_details(engine: Engine, name: str, *, skip_source_count: bool = False) -> TableDetails:
    """`name` on both sides; `skip_source_count` leaves out what makes the source read the whole table."""
    key, error = engine.names.key, None
    records = engine.replica.read(state.load_tables)
    record = next((each for each in records.values() if key(each.name) == key(name)), None)
    copy = source = SideDetails(exists=False)
    try:
        if record is not None and record.definition is not None:
            copy = _copy_details(engine, record.definition)
        found = next((table for table in engine.catalogue() if key(table.name) == key(name)), None)
        if found is not None:
            source = _source_details(engine, found, skip_count=skip_source_count)
    except DucklingError as failure:
        error = failure
    return TableDetails(copy, source, error)


def _copy_details(engine: Engine, table: Table) -> SideDetails:
    identity = _identity(table)
    largest = f"max({quote_duckdb(identity)})" if identity else "NULL"
    total = checksum(row_digest(table.columns)).copy

    def read(cursor: duckdb.DuckDBPyConnection) -> SideDetails:
        name = f"main.{quote_duckdb(table.name)}"
        try:
            columns = tuple(str(row[0]) for row in cursor.execute(f"DESCRIBE {name}").fetchall())
            [[rows, top, found]] = cursor.execute(
                f"SELECT count(*), {largest}, {total} FROM {name}"
            ).fetchall()
        except duckdb.Error as error:
            raise translate(error) from error
        return SideDetails(True, columns, rows, top, str(int(found or 0)))

    return engine.replica.read(read)


def _source_details(engine: Engine, table: Table, *, skip_count: bool) -> SideDetails:
    columns = tuple(column.name for column in table.columns)
    settings = engine.settings
    with Snapshot(
        engine.endpoint,
        [table],
        max_rows=settings.piece_rows,
        max_bytes=settings.batch_bytes,
        logged=False,
    ) as snapshot:
        identity = _identity(table)
        top = None
        if identity:
            [[top]] = snapshot.rows(f"SELECT MAX({quote_mysql(identity)}) FROM {table.source_name}")
        if skip_count:
            return SideDetails(True, columns, None, top)
        total = SourceSide(snapshot, table).total(EVERYTHING)
    return SideDetails(True, columns, total.rows, top, str(total.checksum))


def _identity(table: Table) -> str | None:
    """The first key column, where it is an integer."""
    first = table.column(table.primary_key[0]) if table.primary_key else None
    return first.name if first is not None and first.data_type in _COUNTED else None
