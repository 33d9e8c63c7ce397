"""The two sides of a comparison: the source as its snapshot sees it, the copy as its transaction does.

Both answer the same questions about the rows of a span: how many, their checksum, the checksums of buckets,
the digests in some buckets. The databases compute; what travels are sums and, where those differ, digests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from cdc.replica.duckdb_errors import translate
from cdc.schema import Table, quote_duckdb
from cdc.source.snapshot import Snapshot, to_arrow
from cdc.types import select_expression
from cdc.validation.canonical import Canonical, bucket, checksum, row_digest

_DIGEST = Canonical("d", "d")


@dataclass(frozen=True, slots=True)
class Total:
    """How many rows, and their checksum."""

    rows: int = 0
    checksum: int = 0


class SourceSide:
    """The source's rows of one table. Methods raise SourceError."""

    def __init__(self, snapshot: Snapshot, table: Table) -> None:
        self._snapshot = snapshot
        self._table = table
        self._digest = row_digest(table.columns)

    def total(self, span: Canonical) -> Total:
        """All rows of `span`."""
        [[rows, found]] = self._select(
            f"SELECT COUNT(*), {checksum(self._digest).server} FROM {self._table.source_name}"
            f" WHERE {span.server}"
        )
        return Total(int(rows), int(found or 0))

    def buckets(self, span: Canonical, buckets: int) -> dict[int, Total]:
        """The rows of `span` by bucket."""
        rows = self._select(
            f"SELECT {bucket(_DIGEST, buckets).server}, COUNT(*), {checksum(_DIGEST).server}"
            f" FROM {self._digests(span)} GROUP BY 1"
        )
        return {int(number): Total(int(count), int(found)) for number, count, found in rows}

    def digests(self, span: Canonical, buckets: int, chosen: Collection[int]) -> Counter[str]:
        """The digests in the chosen buckets, each as often as there are rows of it."""
        numbers = ", ".join(map(str, chosen))
        rows = self._select(
            f"SELECT d FROM {self._digests(span)} WHERE {bucket(_DIGEST, buckets).server} IN ({numbers})"
        )
        return Counter(row[0].decode() for row in rows)

    def rows(self, span: Canonical, digests: Collection[str]) -> Iterator[pa.Table]:
        """The rows of these digests, as Arrow tables of `row_schema`, in pieces of bounded size."""
        wanted = ", ".join(f"'{digest}'" for digest in digests)
        yield from self.rows_where(f"{span.server} AND {self._digest.server} IN ({wanted})")

    def rows_where(self, condition: str) -> Iterator[pa.Table]:
        """The rows that meet `condition`, as Arrow tables of `row_schema`, in pieces of bounded size."""
        columns = ", ".join(select_expression(column) for column in self._table.columns)
        sql = f"SELECT {columns} FROM {self._table.source_name} WHERE {condition}"
        with closing(self._snapshot.select(sql)) as pieces:
            for cells in pieces:
                yield to_arrow(self._table, cells)[0]

    def _digests(self, span: Canonical) -> str:
        name = self._table.source_name
        return f"(SELECT {self._digest.server} AS d FROM {name} WHERE {span.server}) AS digests"

    def _select(self, sql: str) -> Iterator[tuple[Any, ...]]:
        with closing(self._snapshot.select(sql)) as pieces:
            for cells in pieces:
                yield from zip(*(column.to_pylist() for column in cells), strict=True)


class CopySide:
    """The copy's rows of one table, read by `cursor`'s transaction. Methods raise ReplicaError."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, table: Table) -> None:
        self._cursor = cursor
        self._table = table
        self._name = f"main.{quote_duckdb(table.name)}"
        self._digest = row_digest(table.columns)

    def count(self) -> int:
        """All rows of the table."""
        [[rows]] = self._select(f"SELECT count(*) FROM {self._name}")
        return int(rows)

    def total(self, span: Canonical) -> Total:
        """All rows of `span`."""
        [[rows, found]] = self._select(
            f"SELECT count(*), {checksum(self._digest).copy} FROM {self._name} WHERE {span.copy}"
        )
        return Total(rows, int(found or 0))

    def buckets(self, span: Canonical, buckets: int) -> dict[int, Total]:
        """The rows of `span` by bucket."""
        rows = self._select(
            f"SELECT {bucket(_DIGEST, buckets).copy}, count(*), {checksum(_DIGEST).copy}"
            f" FROM {self._digests(span)} GROUP BY 1"
        )
        return {number: Total(count, int(found)) for number, count, found in rows}

    def digests(
        self, span: Canonical, buckets: int, chosen: Collection[int]
    ) -> list[tuple[str, tuple[Any, ...]]]:
        """Digest and key of each row in the chosen buckets."""
        numbers = ", ".join(map(str, chosen))
        rows = self._select(
            f"SELECT * FROM {self._digests(span)} WHERE {bucket(_DIGEST, buckets).copy} IN ({numbers})"
        )
        return [(digest, tuple(key)) for digest, *key in rows]

    def _digests(self, span: Canonical) -> str:
        key = "".join(f", {quote_duckdb(name)} AS k{i}" for i, name in enumerate(self._table.primary_key))
        return f"(SELECT {self._digest.copy} AS d{key} FROM {self._name} WHERE {span.copy})"

    def _select(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return self._cursor.execute(sql).fetchall()
        except duckdb.Error as error:
            raise translate(error) from error
