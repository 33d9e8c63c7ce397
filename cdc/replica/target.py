"""Where one stream's batches go."""

from __future__ import annotations

from collections.abc import Callable

import duckdb

from cdc.errors import DucklingError
from cdc.position import Position
from cdc.replica import prepared
from cdc.schema import Table


class BatchTarget:
    """Where one stream's batches go: tables, their names in DuckDB, and whether the position moves.

    `tables` is by the key of the name (`NameCase`), and may be shared with the stream; `name_of` gives a
    table's name in DuckDB (the staging table's, for a catch-up). `save_position` records a boundary in the
    batch's own transaction; without it (staging tables, which a crash throws away) parts of a transaction are
    committed one by one. After an error the target takes no more batches; `on_error` is told, in the writer's
    thread, as is `on_idle` whenever the writer has nothing left to do: a batch that was held back for it may
    come now.
    """

    def __init__(
        self,
        tables: dict[str, Table],
        *,
        name_of: Callable[[str], str] = lambda name: name,
        overlap: bool = False,
        save_position: Callable[[duckdb.DuckDBPyConnection, Position], None] | None = None,
        on_error: Callable[[DucklingError], None] = lambda _: None,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.tables = tables
        self.name_of = name_of
        self.overlap = overlap
        self.save_position = save_position
        self.on_error = on_error
        self.on_idle = on_idle
        self.owner = prepared.COPY if save_position is None else prepared.STREAM
        """Whose prepared XA transactions those of its batches are."""
        self.error: DucklingError | None = None
        self.applied: Position | None = None
        """The last boundary that is committed."""
        self.growth = 1.0
        """How many times as many rows as usual a full batch should have: see `cdc.replica.batch_growth`."""
