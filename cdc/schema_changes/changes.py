"""What the stream does about statements that may change tables."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import duckdb
import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError, ReplicaFatalError, SourceError, StoppedError
from cdc.position import Position
from cdc.replica import state
from cdc.replica.target import BatchTarget
from cdc.schema_changes.boundary import Boundary
from cdc.source.ddl import Alter, Create, SchemaChange
from cdc.source.ddl.cursor import UnclearStatementError
from cdc.source.defaults import SourceDefaults, load_defaults

log = structlog.get_logger(__name__)


class _NotDerivedError(Exception):
    """A statement whose effect can't be told for certain, found so while it was carried out."""

    def __init__(self, change: SchemaChange, reason: str) -> None:
        super().__init__(reason)
        self.change = change
        self.reason = reason


def needs_defaults(change: SchemaChange) -> bool:
    """Whether carrying `change` out may ask for the source's defaults, which no job of the writer waits for."""
    return isinstance(change.detail, Create) or (
        isinstance(change.detail, Alter) and bool(change.detail.alterations)
    )


class SchemaChanges:
    """Carries out changes for a running stream; called in the reader's thread, at a boundary.

    The changes of one boundary and the position are one DuckDB transaction, so that a crash neither loses nor
    repeats them. What can be derived exactly from the statement is done in place; any other change takes the
    table out of the stream, at that place, and has it copied again. The target's tables, which are the stream's
    own, are kept in step.
    """

    def __init__(self, engine: Engine, target: BatchTarget, needs_copy: Callable[[list[str]], None]) -> None:
        self._engine = engine
        self._target = target
        self._needs_copy = needs_copy
        self._defaults: SourceDefaults | None = None

    def __call__(self, changes: list[SchemaChange], position: Position) -> None:
        for change in changes:
            log.info("schema.change", database=self._engine.id, kind=change.kind, tables=list(change.tables))
            self._engine.metrics.schema_changed(change.kind)
            if change.kind in ("database", "drop_database"):
                self._defaults = None
        boundary = self._carry_out(changes, position)
        self._target.applied = position
        ours = self._target.tables
        for key in ours.keys() - boundary.live.keys():
            del ours[key]
        ours.update(boundary.live)
        if boundary.copies:
            self._needs_copy(list(dict.fromkeys(boundary.copies)))

    def _carry_out(self, changes: list[SchemaChange], position: Position) -> Boundary:
        """Carries all out in one transaction; without the detail of those that prove not to be derived."""
        while True:
            if any(needs_defaults(change) for change in changes):
                self._source_defaults()
            try:
                return self._engine.writer.submit(self._job(changes, position)).result()
            except _NotDerivedError as unclear:
                changes = [
                    replace(each, detail=None, unclear=unclear.reason) if each is unclear.change else each
                    for each in changes
                ]
            except (ReplicaFatalError, StoppedError, SourceError):
                raise
            except DucklingError as error:
                if self._target.error is not None:
                    raise
                # DuckDB refuses what was derived, say a key that is none in its eyes: the copy decides.
                if all(each.detail is None for each in changes):
                    raise
                log.warning(
                    "schema.not_applied", database=self._engine.id, code=error.code, error=error.message
                )
                changes = [replace(each, detail=None, unclear=error.message) for each in changes]

    def _job(
        self, changes: list[SchemaChange], position: Position
    ) -> Callable[[duckdb.DuckDBPyConnection], Boundary]:
        def job(cursor: duckdb.DuckDBPyConnection) -> Boundary:
            if self._target.error is not None:
                # Rows before the statement were not applied: the position must not pass them.
                raise self._target.error.with_traceback(None)
            live = dict(self._target.tables)
            boundary = Boundary(cursor, self._engine, live, position, self._source_defaults)
            for change in changes:
                try:
                    boundary.carry_out(change)
                except UnclearStatementError as error:
                    raise _NotDerivedError(change, error.reason) from error
            state.save_position(cursor, self._engine.id, position)
            return boundary

        return job

    def _source_defaults(self) -> SourceDefaults:
        """Asked once, and again when a statement has changed them. Raises SourceError."""
        if self._defaults is None:
            with closing(self._engine.endpoint.connect(purpose="reading defaults")) as connection:
                self._defaults = load_defaults(connection, self._engine.endpoint.database)
        return self._defaults
