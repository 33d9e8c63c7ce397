"""What the changes since the last checkpoint keep in DuckDB's memory until the next one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

import duckdb

from cdc.replica.memory import MemoryLimit

BYTES_A_ROW = 8
"""What a row of a table keeps in memory until a checkpoint, once rows all over the table were deleted or replaced: who
deleted it."""
INDEX_BYTES_A_ROW = 8
"""What the key's index keeps beside it, where there is one and the key a rising integer; up to 50 else."""
VECTOR_ROWS = 2048
"""DuckDB 2.0 keeps who deleted a row for all rows of a vector from which one was deleted."""
INDEX_ROWS = 65_536
"""So many rows, of a key that is a rising integer, have their place in what one of them brings of the index. It comes
in blocks of a quarter of a megabyte, two for a look-up: 300 rows, scattered over 10,000,000, bring all of it."""
BYTES_A_TABLE = 2_000_000
"""What each table of a transaction keeps in memory until its commit."""
TIMES_ITS_ROWS = 3
"""What an INSERT takes, as a multiple of its rows in Arrow, until its commit."""
REPLAY_BYTES = 192_000_000
"""What is set aside for what a replayed write-ahead log leaves in memory."""
BYTES_A_COLUMN = 1 << 19
"""What a checkpoint takes for each column of a table, twice DuckDB's block. One that lacks memory is fatal."""
_FEW_BYTES = 32_000_000
"""So much may be set aside on a guess: a look at how large the tables are takes 4 ms where there are a hundred."""
_STEP = 4_000_000
"""What is set aside grows in steps of so many bytes: to tell DuckDB takes 0.2 ms."""


@dataclass(frozen=True, slots=True)
class _Size:
    rows: int
    indexed: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    """Bytes, those of the index among them; `guessed` where the table was not looked at."""

    bytes: int
    index: int
    guessed: bool


class MemoryDemand:
    """Sets aside what is needed of `limit`. For the writer's thread, and for who opens and closes the file."""

    def __init__(self, limit: MemoryLimit) -> None:
        self._limit = limit
        self._replayed = False
        self._transaction = 0
        """What the largest transaction takes beyond a quarter of the base."""
        self._lost: dict[str, int] = {}
        """Rows that were deleted or replaced, by table."""
        self._sizes: dict[str, _Size] = {}
        """How large they are, where that was looked at."""
        self._kept: dict[str, _Kept] = {}
        """What a table's lost rows keep in memory."""
        self._sum = 0
        self._index_sum = 0
        """The part of the sum that is of indexes."""
        self._guessed = 0
        """The part of the sum that is of tables which were not looked at."""

    @property
    def index_bytes(self) -> int:
        """The part of what is set aside that is for indexes."""
        return min(self._index_sum, self._limit.bytes - self._limit.base)

    def replayed(self) -> None:
        """The file was opened with a write-ahead log that is worth a checkpoint."""
        self._replayed = True
        self._set_aside()

    def changed(
        self,
        cursor: duckdb.DuckDBPyConnection,
        lost: Mapping[str, int],
        *,
        tables: int = 1,
        size: int = 0,
        look: bool = False,
    ) -> None:
        """A transaction of `tables` tables is about to put rows of `size` bytes, and to delete or replace so many rows
        of those with these names. With `look` it is asked how large they are now.
        """
        takes = tables * BYTES_A_TABLE + size * TIMES_ITS_ROWS - self._limit.base // 4
        self._transaction = max(self._transaction, takes)
        for name, count in lost.items():
            self._lost[name] = self._lost.get(name, 0) + count
            self._keep(name)
        if self._guessed > _FEW_BYTES:
            self._look(cursor, self._kept.keys() - self._sizes.keys())
        if look and lost:
            self._look(cursor, lost.keys())
        self._set_aside()

    def of_checkpoint(self, cursor: duckdb.DuckDBPyConnection) -> int:
        """What a checkpoint takes beyond the limit, going by the table with the most columns. A quarter of the base is
        left for it."""
        found = cursor.execute(
            "SELECT max(column_count) FROM duckdb_tables() WHERE schema_name = 'main'"
        ).fetchall()
        return max(0, BYTES_A_COLUMN * int(found[0][0] or 0) - self._limit.base // 4)

    def rows_of(self, names: Iterable[str]) -> int:
        """The rows of the largest of these tables, as far as that was looked at."""
        return max((self._sizes[name].rows for name in names if name in self._sizes), default=0)

    def written(self) -> None:
        """A checkpoint has written all that was kept."""
        for each in (self._lost, self._sizes, self._kept):
            each.clear()
        self._replayed = False
        self._transaction = self._sum = self._index_sum = self._guessed = 0
        self._set_aside()

    def _look(self, cursor: duckdb.DuckDBPyConnection, names: Set[str]) -> None:
        for name in names:
            self._forget(name)
        self._sizes |= dict.fromkeys(names, _Size(0, indexed=False)) | _sizes(cursor, names)
        for name in names:
            self._keep(name)

    def _keep(self, name: str) -> None:
        """Counts what the rows lost by a table keep in memory, as far as is known of it."""
        self._forget(name)
        size = self._sizes.get(name)
        lost = self._lost[name]
        marked, met = lost * VECTOR_ROWS, lost * INDEX_ROWS
        if size is not None:
            marked, met = min(marked, size.rows), min(met, size.rows) if size.indexed else 0
        index = met * INDEX_BYTES_A_ROW
        self._kept[name] = _Kept(marked * BYTES_A_ROW + index, index, guessed=size is None)
        self._add(self._kept[name], 1)

    def _forget(self, name: str) -> None:
        if name in self._kept:
            self._add(self._kept.pop(name), -1)

    def _add(self, kept: _Kept, sign: int) -> None:
        self._sum += sign * kept.bytes
        self._index_sum += sign * kept.index
        self._guessed += sign * kept.bytes if kept.guessed else 0

    def _set_aside(self) -> None:
        total = self._sum + self._transaction + (REPLAY_BYTES if self._replayed else 0)
        self._limit.set_aside(-(-total // _STEP) * _STEP)


def _sizes(cursor: duckdb.DuckDBPyConnection, names: Iterable[str]) -> dict[str, _Size]:
    """DuckDB's estimates of how many rows are looked through, those deleted since the last checkpoint among them."""
    found = cursor.execute(
        "SELECT table_name, estimated_size, has_primary_key FROM duckdb_tables()"
        " WHERE schema_name = 'main' AND list_contains(?, table_name)",
        [list(names)],
    ).fetchall()
    return {str(name): _Size(int(rows), indexed=bool(indexed)) for name, rows, indexed in found}
