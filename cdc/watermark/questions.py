"""What the source is asked, for all tables at once: what is the newest, and did what has no timestamp change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cdc.schema import Column, Table, quote_mysql
from cdc.types import select_expression
from cdc.watermark.choice import Followed

_TABLES_A_STATEMENT = 200


class Session(Protocol):
    """What answers: a session that sees one moment of the source."""

    def rows(self, sql: str) -> Sequence[Sequence[Any]]:
        """The rows of a SELECT."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one table holds: its greatest timestamp or key as the server prints it; number and checksum of the
    rows that have no timestamp; the table's checksum, where that is what it is followed by."""

    greatest: str | None = None
    undated: str = "0:0"
    checksum: str | None = None


def ask(session: Session, tables: Sequence[Followed]) -> dict[str, Answer]:
    """The answer for each table, by name, in a statement for 200 tables. Raises SourceError."""
    answers: dict[str, Answer] = {}
    watched = [each for each in tables if each.kind == "timestamp" and not each.indexed]
    for part in _parts([each for each in tables if each.kind == "key" or each.indexed]):
        sql = " UNION ALL ".join(_newest(number, followed) for number, followed in enumerate(part))
        for number, greatest, lacking in session.rows(sql):
            answers[part[number].table.name] = Answer(greatest)
            if lacking:
                watched.append(part[number])
    for part in _parts(watched):
        sql = " UNION ALL ".join(_newest_and_undated(number, each) for number, each in enumerate(part))
        for number, greatest, count, total in session.rows(sql):
            answers[part[number].table.name] = Answer(greatest, f"{count}:{total}")
    for part in _parts([each for each in tables if each.kind == "checksum"]):
        # In the order asked for. The sum of a checksum of each row; an InnoDB table is read as the
        # transaction sees it: https://dev.mysql.com/doc/refman/9.7/en/checksum-table.html
        listed = ", ".join(followed.table.source_name for followed in part)
        found = session.rows(f"CHECKSUM TABLE {listed}")
        for followed, (_, checksum) in zip(part, found, strict=True):
            answers[followed.table.name] = Answer(checksum=None if checksum is None else str(checksum))
    return answers


def _parts(tables: Sequence[Followed]) -> Iterator[tuple[Followed, ...]]:
    for at in range(0, len(tables), _TABLES_A_STATEMENT):
        yield tuple(tables[at : at + _TABLES_A_STATEMENT])


def _newest(number: int, followed: Followed) -> str:
    """The greatest value, and whether there are rows without a timestamp: by the index alone."""
    table, column = followed.table.source_name, followed.column
    assert column is not None
    name = quote_mysql(column.name)
    if followed.kind == "key":
        return f"SELECT {number}, CAST(MAX({name}) AS CHAR), 0 FROM {table}"
    lacking = f"COALESCE(MIN({name}) < '{first_date(column)}', 0)"
    if column.nullable:
        lacking += f" OR EXISTS (SELECT 1 FROM {table} WHERE {name} IS NULL)"
    return f"SELECT {number}, CAST(MAX({name}) AS CHAR), {lacking} FROM {table}"


def _newest_and_undated(number: int, followed: Followed) -> str:
    """The greatest value, and number and checksum of the rows without a timestamp: reads these rows, and without
    an index all of them."""
    table, column = followed.table, followed.column
    assert column is not None
    name, lacking = quote_mysql(column.name), undated(column)
    digest = f"CRC32({_row_text(table)})"
    if followed.indexed:
        return (
            f"SELECT {number}, CAST((SELECT MAX({name}) FROM {table.source_name}) AS CHAR), COUNT(*),"
            f" COALESCE(SUM({digest}), 0) FROM {table.source_name} WHERE {lacking}"
        )
    return (
        f"SELECT {number}, CAST(MAX({name}) AS CHAR), COALESCE(SUM({lacking}), 0),"
        f" COALESCE(SUM(IF({lacking}, {digest}, 0)), 0) FROM {table.source_name}"
    )


def undated(column: Column) -> str:
    """The condition for rows that have no timestamp: NULL or a zero date."""
    name = quote_mysql(column.name)
    return f"({name} IS NULL OR {name} < '{first_date(column)}')"


def first_date(column: Column) -> str:
    """The first value of the column that is a date."""
    return "1970-01-01 00:00:01" if column.data_type == "timestamp" else "0001-01-01"


def _row_text(table: Table) -> str:
    """All values of a row as one string of bytes; it is compared with the server's own only."""
    parts: list[str] = []
    for column in table.columns:
        value = select_expression(column)
        parts += [f"{value} IS NULL", f"COALESCE(CAST({value} AS BINARY), '')"]
    return f"CONCAT_WS(',', {', '.join(parts)})"
