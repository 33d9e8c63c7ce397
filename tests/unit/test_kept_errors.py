"""An error that is kept and told to whoever asks keeps nothing of those who asked."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import pytest

from cdc.databases import DatabaseDefinition
from cdc.errors import DucklingError, SourceUnavailableError
from cdc.registered import Registered
from cdc.registry import Registry
from cdc.runs import Run


def _frames(error: BaseException) -> int:
    trace: TracebackType | None = error.__traceback__
    count = 0
    while trace is not None:
        count, trace = count + 1, trace.tb_next
    return count


def _told(ask: Callable[[], object]) -> int:
    with pytest.raises(DucklingError) as told:
        ask()
    return _frames(told.value)


def test_a_failed_run_keeps_no_frames_of_those_who_asked_how_it_ended() -> None:
    run = Run("full")
    run.fail(SourceUnavailableError("the source is away", hint="it is tried again"))
    assert _told(lambda: run.wait(0)) == _told(lambda: run.wait(0))


def test_a_database_that_failed_keeps_no_frames_of_those_who_asked_for_it() -> None:
    definition = DatabaseDefinition.model_validate({"id": "a", "mysqlConnectionString": "mysql://u@h/d"})
    registry = Registry()
    error = SourceUnavailableError("the source is away", hint="it is tried again")
    registry._databases["a"] = Registered("a", definition, error=error)
    assert _told(lambda: registry.get("a")) == _told(lambda: registry.get("a"))
