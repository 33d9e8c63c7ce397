"""When the next watermark sync is due."""

from __future__ import annotations

from collections.abc import Callable


class Schedule:
    """Every `interval` seconds after the last sync that went well. `clock` is in seconds, of any beginning."""

    def __init__(self, interval: float, clock: Callable[[], float]) -> None:
        self._interval = interval
        self._clock = clock
        self._next = clock()
        self._last: float | None = None

    def due(self) -> bool:
        """Whether it is time."""
        return self._clock() >= self._next

    def postpone(self) -> None:
        """Not before an interval from now."""
        self._next = self._clock() + self._interval

    def ran(self, began: float) -> None:
        """A sync that began at that time of the clock has gone well."""
        self._last = began
        self.postpone()

    def age(self) -> float | None:
        """Seconds since the last sync that went well began; None before there was one."""
        return None if self._last is None else max(0.0, self._clock() - self._last)
