"""What is written down while a soak runs, and the report that is made of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the service. Bytes; `lag` in seconds, None while it is not known."""

    second: float
    memory: int
    file: int
    log: int
    lag: float | None
    transactions: int


@dataclass(slots=True)
class Record:
    """Samples and happenings of one soak; `write` makes the report."""

    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    happenings: list[tuple[float, str]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    def note(self, what: str) -> None:
        """Something happened; it is printed too."""
        self.happenings.append((self.seconds, what))
        print(f"{self.seconds:7.1f} s  {what}", flush=True)

    def write(self, path: Path, verdict: str, facts: dict[str, str]) -> None:
        """The report as Markdown."""
        lines = ["# Soak", "", f"**{verdict}**", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in facts.items()]
        lines += [
            "",
            "| second | memory MB | file MB | log MB | lag s | transactions |",
            "|--:|--:|--:|--:|--:|--:|",
        ]
        step = max(1, len(self.samples) // 120)
        for each in self.samples[::step]:
            lag = "" if each.lag is None else f"{each.lag:.1f}"
            mega = (f"{size / 1e6:.0f}" for size in (each.memory, each.file, each.log))
            lines.append(f"| {each.second:.0f} | {' | '.join(mega)} | {lag} | {each.transactions} |")
        lines += ["", "## What happened", ""]
        lines += [f"* {second:.0f} s: {what}" for second, what in self.happenings]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
