"""What is newer in one table: the statement, and its rows page by page with the place that each ends at."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa

from cdc.replica.watermarks import Cursor, Progress
from cdc.schema import Column, quote_mysql
from cdc.source.result_rows import Cells
from cdc.source.snapshot import to_arrow
from cdc.types import TEXTS, select_expression
from cdc.watermark.choice import Followed
from cdc.watermark.moments import before, grain, moment, reached
from cdc.watermark.questions import first_date
from cdc.watermark.source_session import SourceSession

FIRST_KEYS = 100_000
"""Keys below the greatest that the first pass after a copy reads again: a transaction that was still open when
the copy began may have taken one of them. After that, passes are compared by time."""
_NUMBERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "decimal"})
_BYTES = frozenset({"binary", "varbinary"})


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one table, in order; `cursor` is the place of the last one, None where there is no going on
    behind it, `greatest` the greatest value of the column in it, `last_key` the last row's key as text."""

    rows: pa.Table
    greatest: str | None
    last_key: str | None
    cursor: Cursor | None
    lost_dates: int


def newer(followed: Followed, progress: Progress, overlap: float) -> str:
    """The condition for the rows of a pass: all that may be new since `progress`; 'TRUE' for every row."""
    column = followed.column
    assert column is not None
    name = quote_mysql(column.name)
    if followed.kind == "key":
        if progress.floor is not None:
            return f"{name} > {int(progress.floor)}"
        return "TRUE" if progress.value is None else f"{name} > {int(progress.value) - FIRST_KEYS}"
    if progress.cursor is not None:
        return _behind(followed, column, progress.cursor)
    if progress.value is None:
        return f"{name} >= '{first_date(column)}'"
    if progress.settled:
        return f"{name} > '{progress.value}'"
    # A row that was stamped within the overlap may show the beginning of its day, or second, before that.
    return f"{name} >= '{before(progress.value, overlap + grain(column))}'"


def _behind(followed: Followed, column: Column, cursor: Cursor) -> str:
    """The condition for rows after `cursor` in the order of timestamp and key."""
    name, at = quote_mysql(column.name), f"'{cursor.timestamp}'"
    if not cursor.key:
        return f"{name} >= {at}"
    further: str | None = None
    keys = [followed.table.column(key) for key in followed.table.primary_key]
    for key, value in reversed(list(zip(keys, cursor.key, strict=True))):
        quoted, literal = quote_mysql(key.name), _literal(key, bytes.fromhex(value))
        rest = "" if further is None else f" OR ({quoted} = {literal} AND {further})"
        further = f"({quoted} > {literal}{rest})"
    # The first condition is what an index serves.
    return f"{name} >= {at} AND ({name} > {at} OR {further})"


def _literal(column: Column, value: bytes) -> str:
    if column.data_type in _NUMBERS:
        return value.decode()
    if column.data_type in _BYTES:
        return f"x'{value.hex()}'" if value else "''"
    if column.data_type in TEXTS:
        return f"_utf8mb4 x'{value.hex()}'" if value else "''"
    return f"'{value.decode()}'"


def pages(
    session: SourceSession,
    followed: Followed,
    condition: str,
    *,
    clock: str,
    max_rows: int,
    max_bytes: int,
) -> Generator[Page]:
    """The rows of `followed` that meet `condition`, ordered by its column and its key.

    Close it where it is left before its end. Raises SourceError, ValueDecodeError.
    """
    table, column = followed.table, followed.column
    assert column is not None
    selected = ", ".join(select_expression(each) for each in table.columns)
    order = [quote_mysql(column.name)]
    order += [quote_mysql(name) for name in table.primary_key if name != column.name]
    sql = f"SELECT {selected} FROM {table.source_name} WHERE {condition} ORDER BY {', '.join(order)}"
    place = [each.name for each in table.columns].index(column.name)
    keys = [at for name in table.primary_key for at, each in enumerate(table.columns) if each.name == name]
    with closing(session.read(sql, max_rows=max_rows, max_bytes=max_bytes)) as pieces:
        for cells in pieces:
            rows, lost = to_arrow(table, cells)
            greatest = _greatest(followed, cells[place], clock)
            yield Page(
                rows, greatest, _last_key(cells, keys), _cursor(followed, cells, place, keys, clock), lost
            )


def _greatest(followed: Followed, cells: pa.Array, clock: str) -> str | None:
    last = cells[-1].as_py()
    if followed.kind == "key":
        return last.decode() if last is not None else None
    # A date that the calendar lacks has its place in the order, but no use as a watermark.
    assert followed.column is not None
    future: str | None = None
    for text in (moment(cell.as_py()) for cell in reversed(cells)):
        if text is not None and text <= clock:
            return text
        future = future or text
    return future if future is None else reached(followed.column, future, clock)


def _last_key(cells: Cells, keys: list[int]) -> str:
    values = [cells[at][-1].as_py() or b"" for at in keys]
    return ", ".join(value.decode("utf-8", "backslashreplace") for value in values)


def _cursor(followed: Followed, cells: Cells, place: int, keys: list[int], clock: str) -> Cursor | None:
    last = cells[place][-1].as_py()
    if followed.kind != "timestamp" or moment(last) is None or last is None:
        return None
    key = tuple((cells[at][-1].as_py() or b"").hex() for at in keys) if followed.comparable_key else ()
    return Cursor(last.decode(), key, clock)
