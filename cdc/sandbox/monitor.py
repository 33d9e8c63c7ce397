"""Takes the figures that the demo shows, from the source and from the service."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pymysql.connections import Connection

from cdc.sandbox.board import Sight, TableLine
from cdc.sandbox.probe import Probe
from cdc.sandbox.service import Json, Service, check_healthy
from cdc.schema import quote_mysql


class Monitor:
    """One look after the other; `source` is a session of its own in the source database."""

    def __init__(self, source: Connection, service: Service, tables: Sequence[str]) -> None:
        self._source = source
        self._service = service
        self._tables = tables
        self._before: tuple[float, int, int] | None = None

    def copying(self) -> tuple[Sight, bool]:
        """The figures of the first copy, and whether it is done.

        Raises DucklingError where a table or the replication stopped.
        """
        states, stream = self._states()
        progress = {table["table"]: table for table in self._service.get("/sync/progress")["tables"]}
        lines = []
        for name, count in self._counts().items():
            state = states.get(name)
            rows = state["rows"] if state else None
            if state is not None and rows is None and name in progress:
                rows = progress[name]["rowsDone"]
            lines.append(TableLine(name, count, rows, state["state"] if state else "pending"))
        sight = Sight("copying", tuple(lines), self._rates(sum(line.copy_rows or 0 for line in lines), 0)[0])
        done = stream["state"] == "streaming" and all(line.state == "streaming" for line in lines)
        return sight, done

    def streaming(self, phase: str, probe: Probe | None = None) -> Sight:
        """The figures of the stream. Errors as `copying`."""
        states, stream = self._states()
        rows, transactions = self._rates(applied(stream), stream["transactionsProcessed"])
        lines = []
        for name, count in self._counts().items():
            state = states.get(name) or {"rows": None, "state": "pending"}
            lines.append(TableLine(name, count, state["rows"], state["state"]))
        return Sight(phase, tuple(lines), rows, transactions, probe.latest() if probe else None)

    def stream(self) -> Json:
        """The status of the stream, as `/cdc/status` gives it."""
        status: Json = self._service.get("/cdc/status")["status"]
        return status

    def _states(self) -> tuple[dict[str, Json], Json]:
        tables = self._service.get("/sync/status")["tables"]
        stream = self.stream()
        check_healthy(tables, stream)
        return {str(table["table"]): table for table in tables}, stream

    def _counts(self) -> dict[str, int]:
        """Rows at the source, all of one moment."""
        counts = ", ".join(f"(SELECT COUNT(*) FROM {quote_mysql(name)})" for name in self._tables)
        with self._source.cursor() as cursor:
            cursor.execute(f"SELECT {counts}")
            return dict(zip(self._tables, map(int, cursor.fetchone()), strict=True))

    def _rates(self, rows: int, transactions: int) -> tuple[float, float]:
        """Per second since the last look. Rows can also become fewer."""
        now, before = time.monotonic(), self._before
        self._before = (now, rows, transactions)
        if before is None:
            return 0.0, 0.0
        seconds = now - before[0]
        return max(0.0, (rows - before[1]) / seconds), max(0.0, (transactions - before[2]) / seconds)


def applied(stream: Json) -> int:
    """The changed rows that the stream has applied since the service started."""
    return int(stream["insertsProcessed"] + stream["updatesProcessed"] + stream["deletesProcessed"])
