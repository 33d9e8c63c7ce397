"""One measured figure: its runs, its goal, and a peer's runs beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median


@dataclass(slots=True, eq=False)
class Figure:
    """`runs` are ours, `peer_runs` those of `peer`, if there is one, at the same work in the same session.

    `goal` is the least that is wanted, or the most where `less_is_better`; None where there is no goal.
    """

    name: str
    unit: str
    goal: float | None
    peer: str = ""
    less_is_better: bool = False
    runs: list[float] = field(default_factory=list)
    peer_runs: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        """The median of our runs."""
        return median(self.runs)

    @property
    def peer_value(self) -> float:
        """The median of the peer's runs."""
        return median(self.peer_runs) if self.peer_runs else math.nan

    @property
    def ratio(self) -> float:
        """How many times better than the peer: above 1 is better, whatever the unit; NaN without a peer."""
        better, worse = (
            (self.peer_value, self.value) if self.less_is_better else (self.value, self.peer_value)
        )
        return better / worse

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.less_is_better else self.value >= self.goal
