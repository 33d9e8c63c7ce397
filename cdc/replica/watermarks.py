"""How far each table is that is kept by watermark: the rows of `_duckling.appender_watermarks`.

Every function takes the cursor of the transaction it is to be part of: a watermark is committed together with
the rows that it speaks of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import duckdb
import orjson

Kind = Literal["timestamp", "key", "checksum"]

CREATE = """
CREATE TABLE IF NOT EXISTS _duckling.appender_watermarks (
    table_name VARCHAR PRIMARY KEY, last_processed_id VARCHAR, last_processed_timestamp VARCHAR,
    timestamp_column VARCHAR, primary_key_column VARCHAR, updated_at TIMESTAMP);
ALTER TABLE _duckling.appender_watermarks ADD COLUMN IF NOT EXISTS kind VARCHAR;
ALTER TABLE _duckling.appender_watermarks ADD COLUMN IF NOT EXISTS progress VARCHAR;
"""

_COLUMNS = (
    "table_name, last_processed_id, last_processed_timestamp, timestamp_column, primary_key_column,"
    " updated_at, kind, progress"
)


_WRITTEN = (
    "table_name, last_processed_id, last_processed_timestamp, timestamp_column, primary_key_column, kind,"
    " progress, updated_at"
)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place within a pass over a table, in the order of timestamp and key.

    `key` holds the key's values as the server sent them, in hexadecimal; it is empty where keys can't be
    compared by value, and then all rows of that timestamp come again. `clock` is the source's when the pass
    began.
    """

    timestamp: str
    key: tuple[str, ...]
    clock: str


@dataclass(frozen=True, slots=True)
class Progress:
    """What the next pass starts from. Times are the source's clock in UTC, 'YYYY-MM-DD HH:MM:SS.ffffff'.

    `value`: the greatest timestamp (never beyond the clock of the pass that met it) or key that was read.
    `seen`: the clock of the first pass that met it; for a key, `met` was the greatest at that clock.
    `settled`: no row can turn up at or below it any more. `floor`: every key up to there is read.
    `undated`: number and checksum of the rows without a timestamp. `checksum`: the table's, as the source
    computes it. `created`: when the source's table was made; `shape`: the fingerprint of its definition.
    `cursor`: where a pass that was cut short goes on.
    """

    value: str | None = None
    seen: str = ""
    settled: bool = False
    met: str | None = None
    floor: str | None = None
    undated: str = "0:0"
    checksum: str | None = None
    created: str = ""
    shape: str = ""
    cursor: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Watermark:
    """One table's. `column` is its timestamp column, `key` its key's columns, '' where it has none."""

    table: str
    kind: Kind
    column: str | None
    key: str
    last_key: str | None
    progress: Progress
    updated_at: datetime | None = None

    @property
    def timestamp(self) -> str | None:
        """The last processed timestamp, where the table is followed by one."""
        return self.progress.value if self.kind == "timestamp" else None


def load_watermarks(cursor: duckdb.DuckDBPyConnection) -> dict[str, Watermark]:
    """All watermarks by table."""
    rows = cursor.execute(f"SELECT {_COLUMNS} FROM _duckling.appender_watermarks").fetchall()
    return {row[0]: _watermark(*row) for row in rows}


def _watermark(
    table: str,
    last_key: str | None,
    _: str | None,
    column: str | None,
    key: str | None,
    updated_at: datetime,
    kind: Kind,
    progress: str,
) -> Watermark:
    fields: dict[str, Any] = orjson.loads(progress)
    cursor = fields.pop("cursor")
    if cursor is not None:
        cursor = Cursor(cursor["timestamp"], tuple(cursor["key"]), cursor["clock"])
    return Watermark(table, kind, column, key or "", last_key, Progress(**fields, cursor=cursor), updated_at)


def save_watermarks(cursor: duckdb.DuckDBPyConnection, watermarks: Iterable[Watermark]) -> None:
    """Records watermarks, replacing those of the same tables."""
    rows = [
        (
            each.table,
            each.last_key,
            each.timestamp,
            each.column,
            each.key or None,
            each.kind,
            orjson.dumps(asdict(each.progress)).decode(),
        )
        for each in watermarks
    ]
    if not rows:
        return
    # Lists, so that the statement is as short for a thousand tables as for one.
    listed = ", ".join(["unnest(?::VARCHAR[])"] * len(rows[0]))
    given = f"(SELECT {listed}, ?) AS given({_WRITTEN})"
    values = [*(list(column) for column in zip(*rows, strict=True)), datetime.now(UTC).replace(tzinfo=None)]
    moved = ", ".join(f"{name} = given.{name}" for name in _WRITTEN.split(", ")[1:])
    # Nearly always they are there, and an UPDATE takes half the time of INSERT OR REPLACE.
    updated = cursor.execute(
        f"UPDATE _duckling.appender_watermarks AS mark SET {moved} FROM {given}"
        " WHERE mark.table_name = given.table_name",
        values,
    ).fetchall()
    if updated[0][0] < len(rows):
        cursor.execute(
            f"INSERT OR REPLACE INTO _duckling.appender_watermarks ({_WRITTEN}) SELECT * FROM {given}", values
        )


def forget_watermarks(cursor: duckdb.DuckDBPyConnection, tables: Sequence[str]) -> None:
    """These tables are gone, or kept in another way."""
    cursor.execute(
        "DELETE FROM _duckling.appender_watermarks WHERE table_name IN (SELECT unnest(?::VARCHAR[]))",
        [list(tables)],
    )
