"""Pauses between attempts: what to do about an error, apart from what the error is."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_SECONDS = 0.2
_FACTOR = 2.0
_JITTER = 0.2


class Backoff:
    """Growing pauses up to `longest` seconds, each varied by a fifth so that replicas don't knock together."""

    def __init__(self, longest: float, *, draw: Callable[[], float] = random.random) -> None:
        self._longest = longest
        self._draw = draw
        self._next = FIRST_SECONDS

    def pause(self) -> float:
        """How many seconds to wait before the next attempt."""
        now, self._next = self._next, min(self._next * _FACTOR, self._longest)
        return min(now, self._longest) * (1 - _JITTER + 2 * _JITTER * self._draw())

    def reset(self) -> None:
        """Something went well: begin with the shortest pause again."""
        self._next = FIRST_SECONDS
