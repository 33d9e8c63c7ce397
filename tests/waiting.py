"""Waiting for a condition where no event tells of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, TypeVar

T = TypeVar("T")

SECONDS = 60.0
"""The longest wait: far more than a healthy engine needs, also on a busy machine."""


def wait_until(
    condition: Callable[[], T | Literal[False, ""] | None], what: str, *, timeout: float = SECONDS
) -> T:
    """The first true value of `condition`, which is asked every few milliseconds.

    Raises AssertionError with `what` was waited for after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s in vain: {what}"
        time.sleep(0.005)
