"""The watermarks of a fresh copy, taken where they are safe: in its own snapshot, by a clock from before it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import duckdb

from cdc.engine import Engine
from cdc.replica.watermarks import Progress, Watermark, save_watermarks
from cdc.schema import Table
from cdc.source.snapshot import Snapshot
from cdc.watermark.choice import Followed
from cdc.watermark.moments import moment
from cdc.watermark.plan import load_traits, named
from cdc.watermark.progress import started
from cdc.watermark.questions import ask
from cdc.watermark.source_session import SourceSession


class WatermarksOfCopy:
    """Of the tables of one copy."""

    def __init__(self, engine: Engine, overlap: float) -> None:
        self._engine = engine
        self._overlap = overlap
        self._clock = ""
        self._taken: dict[str, Watermark] = {}

    def before(self) -> None:
        """Reads the source's clock. Raises SourceError."""
        session = SourceSession(self._engine.endpoint)
        with closing(session):
            session.open()
            clock = moment(str(session.rows("SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)")[0][0]))
        assert clock is not None
        self._clock = clock

    def take(self, snapshot: Snapshot, chosen: Sequence[Table]) -> None:
        """Asks what is newest in each table. Raises SourceError."""
        followed = named(chosen, load_traits(snapshot, self._engine.endpoint.database))
        answers = ask(snapshot, followed)
        for each in followed:
            answer = answers[each.table.name]
            progress = Progress(
                undated=answer.undated,
                checksum=answer.checksum,
                created=each.traits.created,
                shape=each.shape,
            )
            greatest = answer.greatest if each.kind == "key" else moment(answer.greatest)
            progress = started(each, greatest, self._clock, self._overlap, progress)
            self._taken[each.table.name] = watermark(each, progress)

    def save(self, cursor: duckdb.DuckDBPyConnection, live: Sequence[Table]) -> None:
        """Records those of the tables that go live."""
        save_watermarks(cursor, [self._taken[table.name] for table in live])


def watermark(followed: Followed, progress: Progress, last_key: str | None = None) -> Watermark:
    """The record of how far a table is."""
    column = followed.column.name if followed.kind == "timestamp" and followed.column else None
    if followed.kind == "key":
        last_key = progress.value
    return Watermark(
        followed.table.name, followed.kind, column, ", ".join(followed.table.primary_key), last_key, progress
    )
