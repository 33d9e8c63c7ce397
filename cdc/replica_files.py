"""The DuckDB files of one service: all in one folder, each of one database alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cdc.databases import DatabaseDefinition
from cdc.errors import ConflictError, NotPossibleError


class ReplicaFiles:
    """Says where a database's file is, and whose it is."""

    def __init__(self, folder: Path, reserved: Path | None = None) -> None:
        """All of them are in `folder`; none may be at `reserved`, where the file of databases is."""
        self._folder = folder
        self._reserved = reserved

    def placed(self, definition: DatabaseDefinition) -> DatabaseDefinition:
        """`definition` with its file's path made absolute; see `DatabaseDefinition.checked`."""
        return definition.checked(self._folder)

    def claimed(
        self, definition: DatabaseDefinition, known: Iterable[DatabaseDefinition]
    ) -> DatabaseDefinition:
        """As `placed`, once that file is no other's of `known`.

        Raises ConflictError (DUCKDB_PATH_TAKEN), NotPossibleError.
        """
        placed = self.placed(definition)
        path = Path(placed.duckdb_path)
        if self._reserved is not None and path == self._reserved.resolve():
            raise NotPossibleError("duckdbPath is the file of databases", code="DUCKDB_PATH")
        for other in known:
            if other.id != placed.id and _same(path, Path(other.duckdb_path)):
                raise ConflictError(
                    f"the DuckDB file is that of database {other.id!r}",
                    hint="give each database a file of its own",
                    code="DUCKDB_PATH_TAKEN",
                )
        return placed

    def delete(self, definition: DatabaseDefinition) -> None:
        """Its file, the write-ahead log, and what DuckDB spilled beside it."""
        path = Path(definition.duckdb_path)
        for name in (path.name, f"{path.name}.wal"):
            path.with_name(name).unlink(missing_ok=True)
        spilled = path.with_name(f"{path.name}.tmp")
        if spilled.is_dir():
            for each in spilled.iterdir():
                each.unlink()
            spilled.rmdir()


def _same(path: Path, taken: Path) -> bool:
    return path == taken or (path.exists() and taken.exists() and path.samefile(taken))
