"""What the demo shows while it runs: a table that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

LINE_SECONDS = 2.0
"""Between two plain lines."""


@dataclass(frozen=True, slots=True)
class TableLine:
    """One table: rows at the source, in the copy (None while there is none), and its state."""

    name: str
    source_rows: int
    copy_rows: int | None
    state: str


@dataclass(frozen=True, slots=True)
class Sight:
    """All figures of one moment; rates are per second, `lag` in milliseconds."""

    phase: str
    tables: tuple[TableLine, ...]
    rows_rate: float
    transactions_rate: float | None = None
    lag: float | None = None

    @property
    def source_rows(self) -> int:
        """Rows of all tables at the source."""
        return sum(table.source_rows for table in self.tables)

    @property
    def copy_rows(self) -> int:
        """Rows of all tables in the copy."""
        return sum(table.copy_rows or 0 for table in self.tables)

    def totals(self) -> str:
        """The rates and the lag, as one line."""
        parts = [f"{self.rows_rate:,.0f} rows/s"]
        if self.transactions_rate is not None:
            parts.append(f"{self.transactions_rate:,.0f} transactions/s")
        if self.lag is not None:
            parts.append(f"lag {self.lag:,.0f} ms")
        return ", ".join(parts)

    def line(self) -> str:
        """Everything, as one plain line."""
        return (
            f"{self.phase}: {self.source_rows:,} rows at the source, {self.copy_rows:,} in the copy, "
            f"{self.totals()}"
        )

    def drawing(self) -> Group:
        """Everything, as a table for a terminal."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("table", min_width=12)
        table.add_column("rows at source", justify="right")
        table.add_column("rows in copy", justify="right", min_width=12)
        table.add_column("state")
        for row in self.tables:
            copied = "" if row.copy_rows is None else f"{row.copy_rows:,}"
            style = "green" if row.state == "streaming" else "yellow"
            table.add_row(row.name, f"{row.source_rows:,}", copied, Text(row.state, style=style))
        table.add_row("total", f"{self.source_rows:,}", f"{self.copy_rows:,}", "", style="bold")
        return Group(Text(self.phase, style="bold cyan"), table, Text(self.totals(), style="bold"))


class Board:
    """Shows sights, as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._phase = ""
        self._shown = 0.0

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, sight: Sight) -> None:
        """Shows `sight` in place of the last one; without a terminal, at most each LINE_SECONDS a phase."""
        if self._live is not None:
            self._live.update(sight.drawing(), refresh=True)
            return
        now = time.monotonic()
        if sight.phase != self._phase or now - self._shown >= LINE_SECONDS:
            self._phase, self._shown = sight.phase, now
            self._console.print(sight.line(), highlight=False, soft_wrap=True)
