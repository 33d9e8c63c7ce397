"""Which tables a copy takes: those that were asked for, that the source has, and that can be kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cdc.cascades import lacks_parent, orphaned, source_cascades
from cdc.engine import Engine
from cdc.errors import NotFoundError, SnapshotError
from cdc.schema import Table
from cdc.source.cascades import Cascades
from cdc.stream_loop import StreamLoop
from cdc.table_copies import TableCopies


class CatalogueChangedError(SnapshotError):
    """Tables changed between reading the catalogue and opening the snapshot."""

    retryable = True


class CopyChoice:
    """Chooses the tables of one copy; none `wanted` by name is all of them.

    What it leaves out is dropped in the replica where the source has no such table, else it is set aside.
    """

    def __init__(
        self,
        engine: Engine,
        stream: StreamLoop,
        copies: TableCopies,
        wanted: Sequence[str],
        *,
        logged: bool,
    ) -> None:
        self._engine = engine
        self._stream = stream
        self._copies = copies
        self._wanted = wanted
        self._logged = logged
        self.cascades = Cascades()
        """What ties the source's tables together, once they were chosen from."""

    def tables(self) -> list[Table]:
        """Looks at the source and chooses.

        Raises NotFoundError (TABLE_NOT_FOUND) where it has none of those wanted, SourceError, PreflightError.
        """
        _, found, unfit = self._engine.fit_tables(logged=self._logged)
        key = self._engine.names.key
        here = {key(table.name): table for table in found}
        refused = {key(name): error for name, error in unfit.items()}
        wanted = {key(name) for name in self._wanted}
        missing = [name for name in self._wanted if key(name) not in here.keys() | refused.keys()]
        if missing:
            self._drop(missing)
            if len(missing) == len(self._wanted):
                raise NotFoundError(
                    f"the source has no table {missing[0]!r} (or the settings exclude it)",
                    hint="see GET /tables, INCLUDED_TABLES and EXCLUDED_TABLES",
                    code="TABLE_NOT_FOUND",
                )
        for name, error in refused.items():
            if not wanted or name in wanted:
                self._copies.set_aside(error.table or name, error)
        if self._logged:
            self.cascades.replace(source_cascades(self._engine))
        if wanted:
            # Rows that a foreign key ties to others are right only where the others' changes are read too.
            wanted |= self.cascades.parents(wanted)
            return self.tied(table for name, table in here.items() if name in wanted)
        recorded = self._copies.recorded()
        self._drop([name for name in recorded if key(name) not in here.keys() | refused.keys()])
        return self.tied(found)

    def tied(self, found: Iterable[Table]) -> list[Table]:
        """Those of `found` that can be kept: without its parents a child is set aside, or comes again with them."""
        key = self._engine.names.key
        here = {key(table.name): table for table in found}
        alone = orphaned(self.cascades, here, here)
        for name in alone:
            table = here[name]
            if self.cascades.parents([name]) & self._copies.lost.keys():
                self._copies.lose(table, "a table that it refers to changed during the copy")
            else:
                self._copies.set_aside(table.name, lacks_parent(table.name))
        return [table for name, table in here.items() if name not in alone]

    def check_unchanged(self, chosen: list[Table]) -> None:
        """What was read before the snapshot must be so in it: a statement in between is in no log that is
        read. Raises CatalogueChangedError."""
        now = {table.name: table.fingerprint() for table in self._engine.catalogue()}
        then = {table.name: table.fingerprint() for table in chosen}
        if self._wanted:
            now = {name: shape for name, shape in now.items() if name in then}
        else:
            now = {name: shape for name, shape in now.items() if name not in self._copies}
        if now != then:
            raise CatalogueChangedError(
                "tables were changed while the copy began", hint="it is tried again by itself"
            )

    def _drop(self, names: list[str]) -> None:
        """Tables that the source lacks now. One that streams is left to the stream, which sees the DROP."""
        key = self._engine.names.key
        live = self._stream.tables if self._stream.running else {}
        gone = [name for name in names if key(name) not in live]
        if gone:
            self._copies.drop(gone)
