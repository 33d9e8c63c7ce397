"""One validation: which tables, their comparison at one place, and the repair of what differs."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from cdc.engine import Engine
from cdc.errors import ConflictError, NotFoundError, NotPossibleError, StoppedError
from cdc.position import Position
from cdc.replica import state
from cdc.replica.state import TableRecord
from cdc.runs import Run
from cdc.schema import Table
from cdc.status import (
    PositionStatus,
    RowDifference,
    TableComparison,
    TableProgress,
    TableRepair,
    TableState,
    ValidationReport,
)
from cdc.stream_loop import StreamLoop
from cdc.validation.comparison import Contents, Difference, compare_contents
from cdc.validation.moment import Moment, MovedOnError, one_moment
from cdc.validation.repair import repair_rows
from cdc.validation.sides import CopySide, SourceSide
from cdc.validation.spans import split

FIRST = 10
"""Differences that a report shows of each table."""
MOST_REPAIRED = 10_000
"""Rows of a table up to which they are repaired one by one; beyond, the table is copied again."""
_TRIES = 5
"""How often it begins, should a table be exchanged or the stream be lost while it does."""

Mode = Literal["count", "checksum"]


class Validation:
    """Compares the tables that can be read (or the one called `table`) with the source.

    With `repair`, rows that differ are made right after the comparison (`repair_rows`); tables without a key,
    and those that differ in more than 10,000 rows, are to be copied again.
    """

    def __init__(
        self,
        engine: Engine,
        stream: StreamLoop | None,
        run: Run,
        mode: Mode,
        table: str | None = None,
        *,
        repair: bool = False,
    ) -> None:
        """Raises NotPossibleError for a repair that can't be, ConflictError where the stream stands still."""
        if repair and mode == "count":
            raise NotPossibleError(
                "counts don't tell which rows differ, so nothing can be repaired by them",
                hint="use mode=checksum with repair=true",
                code="REPAIR_NEEDS_CHECKSUM",
            )
        if repair and stream is None:
            raise NotPossibleError(
                "rows are repaired at a place of the binary log, which is not followed here",
                hint="POST /sync/table/NAME copies a table again",
                code="REPAIR_NEEDS_STREAM",
            )
        if stream is not None and not stream.running:
            raise ConflictError(
                "there is nothing to compare with while the stream stands still",
                hint="POST /cdc/start",
                code="STREAM_NOT_RUNNING",
            )
        self._engine = engine
        self._stream = stream
        self._run = run
        self._mode = mode
        self._table = table
        self._repair = repair
        self._live = (TableState.STREAMING,) if stream is not None else (TableState.POLLING,)
        self._found: dict[str, tuple[Table, Contents]] = {}

    def carry_out(self) -> ValidationReport:
        """Runs to the end. Raises NotFoundError, SourceError, ReplicaError, RunCancelledError."""
        started = time.monotonic()
        for left in reversed(range(_TRIES)):
            chosen, others = self._choose()
            try:
                found = self._compare_all(chosen, last=not left)
            except (MovedOnError, StoppedError):
                # The reader ended at that moment; another one follows, unless the service or we are to end.
                self._run.check_cancelled()
                if not left or self._stream is None or not self._stream.running:
                    raise
                self._stream.wait_connected(self._engine.settings.connect_timeout)
                continue
            if found is not None:
                break
        assert found is not None
        results, position = found
        if self._repair:
            results = [self._repaired(result) for result in results]
        results += [_not_compared(record) for record in others]
        return ValidationReport(
            self._mode,
            position.status() if position is not None else PositionStatus(),
            tuple(sorted(results, key=lambda each: each.table)),
            round((time.monotonic() - started) * 1000),
            at_one_position=position is not None,
        )

    # Which tables ------------------------------------------------------------------------------------

    def _choose(self) -> tuple[list[Table], list[TableRecord]]:
        """The tables to compare, and those that can't be: not copied, or set aside."""
        records = self._engine.replica.read(state.load_tables)
        if self._table is not None:
            key = self._engine.names.key
            records = {name: each for name, each in records.items() if key(name) == key(self._table)}
            if not records:
                raise NotFoundError(
                    f"there is no table {self._table!r}",
                    hint="see the tables in GET /sync/status",
                    code="TABLE_NOT_FOUND",
                )
        live = {name: r.definition for name, r in records.items() if r.state in self._live}
        chosen = [table for table in live.values() if table is not None]
        for table in chosen:
            self._run.expect(table.name, table.row_estimate)
        return chosen, [record for name, record in records.items() if name not in live]

    def _compare_all(
        self, chosen: list[Table], *, last: bool
    ) -> tuple[list[TableComparison], Position | None] | None:
        """All of `chosen` at one place; None where one was exchanged meanwhile, unless it is the last try."""
        with one_moment(self._engine, self._stream, chosen, self._run) as moment:
            if not last and any(self._changed(table, moment) for table in chosen):
                return None
            return [self._compare(table, moment) for table in chosen], moment.position

    # Comparison --------------------------------------------------------------------------------------

    def _compare(self, table: Table, moment: Moment) -> TableComparison:
        progress = self._run.expect(table.name, table.row_estimate)
        progress.state, started = "comparing", time.monotonic()
        self._run.check_cancelled()
        if self._changed(table, moment):
            progress.state = "error"
            return TableComparison(
                table.name, None, None, matches=False, error="the table changed while it was looked at"
            )
        copy = CopySide(moment.cursor, table)
        rows = copy.count()
        progress.estimated_rows = max(rows, table.row_estimate)
        if self._mode == "count":
            found = moment.snapshot.count(table)
            result = TableComparison(table.name, found, rows, found == rows)
        else:
            result = self._compare_contents(table, moment, copy, progress)
        progress.rows = progress.estimated_rows = result.source_rows or 0
        progress.seconds, progress.state = time.monotonic() - started, "done"
        return result

    def _compare_contents(
        self, table: Table, moment: Moment, copy: CopySide, progress: TableProgress
    ) -> TableComparison:
        contents = compare_contents(
            table,
            SourceSide(moment.snapshot, table),
            copy,
            partial(split, moment.cursor, table),
            progress,
            self._run.check_cancelled,
        )
        self._found[table.name] = table, contents
        kinds = [each.kind for each in contents.differences]
        return TableComparison(
            table.name,
            contents.source_rows,
            contents.copy_rows,
            contents.equal,
            missing=kinds.count("missing"),
            extra=kinds.count("extra"),
            changed=kinds.count("changed"),
            complete=contents.complete,
            differences=tuple(_shown(table, each) for each in contents.differences[:FIRST]),
        )

    def _changed(self, table: Table, moment: Moment) -> bool:
        """Whether the copy's table is another one than that which was chosen."""
        record = moment.records.get(table.name)
        return record is None or record.definition != table or record.state not in self._live

    # Repair ------------------------------------------------------------------------------------------

    def _repaired(self, result: TableComparison) -> TableComparison:
        if result.matches or result.table not in self._found or self._stream is None:
            return result
        table, contents = self._found[result.table]
        if not table.primary_key or not contents.complete or len(contents.differences) > MOST_REPAIRED:
            return replace(result, repair=TableRepair(copied_again=True))
        keys = [each.key for each in contents.differences]
        rows = repair_rows(self._engine, self._stream, table, keys, self._run)
        return replace(result, repair=TableRepair(rows=rows))


def _not_compared(record: TableRecord) -> TableComparison:
    why = f"not compared: {record.state.value}" + (f" ({record.reason})" if record.reason else "")
    return TableComparison(record.name, None, None, matches=False, error=why)


def _shown(table: Table, difference: Difference) -> RowDifference:
    key = zip(table.primary_key, difference.key, strict=True) if difference.key else ()
    return RowDifference(difference.kind, {name: _text(value) for name, value in key})


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
