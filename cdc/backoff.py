"""Pauses between attempts: what to do about an error, apart from what the error is."""

from __future__ import annotations

from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_exponential_jitter

FIRST_SECONDS = 0.2
_JITTER_SECONDS = 0.1


class Backoff:
    """Pauses that double up to `longest` seconds, varied a little so that replicas don't knock together."""

    def __init__(self, longest: float) -> None:
        self._wait = wait_exponential_jitter(multiplier=FIRST_SECONDS, max=longest, jitter=_JITTER_SECONDS)
        self._attempts = RetryCallState(Retrying(), fn=None, args=(), kwargs={})

    def pause(self) -> float:
        """How many seconds to wait before the next attempt."""
        seconds = self._wait(self._attempts)
        self._attempts.attempt_number += 1
        return seconds

    def reset(self) -> None:
        """Something went well: begin with the shortest pause again."""
        self._attempts.attempt_number = 1
