"""Source and copy compared at one position, while both may be written to.

The stream is held for as long as it takes to open a snapshot of the source and a read of the copy at the
same place of the binary log; then it goes on, and the comparing takes its time.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Literal

from cdc.engine import Engine
from cdc.errors import ConflictError, NotFoundError, NotPossibleError
from cdc.schema import Table, quote_duckdb
from cdc.source.snapshot import Snapshot
from cdc.status import TableComparison, ValidationReport
from cdc.stream_loop import StreamLoop


def validate(
    engine: Engine, stream: StreamLoop, mode: Literal["count", "checksum"], table: str | None
) -> ValidationReport:
    """Counts of every streaming table (or the one called `table`) on both sides, at one position.

    Raises NotFoundError, ConflictError where no stream runs, SourceError.
    """
    if mode != "count":
        raise NotPossibleError(
            "validation by checksum is not there yet",
            hint="use mode=count",
            code="MODE_NOT_AVAILABLE",
        )
    started = time.monotonic()
    if not stream.running:
        raise ConflictError(
            "there is nothing to compare with while the stream stands still",
            hint="POST /cdc/start",
            code="STREAM_NOT_RUNNING",
        )
    tables = _chosen(engine, stream, table)
    cursor = engine.replica.cursor()
    with closing(cursor):
        first = stream.meet(None, hold=True)
        try:
            first.reached.result()
            with Snapshot(
                engine.endpoint,
                tables,
                max_rows=engine.settings.copy_batch_rows,
                max_bytes=engine.settings.batch_bytes,
                exact=True,
            ) as snapshot:
                second = stream.meet(snapshot.mark, hold=True)
                first.release.set()
                try:
                    position = second.reached.result()
                    engine.writer.submit(lambda _: None).result()  # everything up to there is committed
                    cursor.execute("BEGIN")
                    cursor.execute("SELECT count(*) FROM _duckling.table_states").fetchall()
                finally:
                    second.release.set()
                results = []
                for each in tables:
                    source = snapshot.count(each)
                    found = cursor.execute(f"SELECT count(*) FROM {quote_duckdb(each.name)}").fetchall()
                    replica = int(found[0][0])
                    results.append(TableComparison(each.name, source, replica, source == replica))
                cursor.execute("COMMIT")
        finally:
            first.release.set()
    return ValidationReport(
        mode, position.status(), tuple(results), round((time.monotonic() - started) * 1000)
    )


def _chosen(engine: Engine, stream: StreamLoop, table: str | None) -> list[Table]:
    if table is None:
        return sorted(stream.tables.values(), key=lambda each: each.name)
    try:
        return [stream.tables[engine.names.key(table)]]
    except KeyError:
        raise NotFoundError(
            f"no table {table!r} is streaming",
            hint="see the tables in GET /sync/status",
            code="TABLE_NOT_FOUND",
        ) from None
