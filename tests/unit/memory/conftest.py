"""A machine of its own, a file, and a writer."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.replica import memory, memory_demand
from cdc.replica.database import ReplicaDatabase
from cdc.replica.memory import MemoryLimit
from cdc.replica.writer import Writer
from tests.unit.memory.files import MACHINE, Clock, opened
from tests.unit.writer.batches import WAIT, new_writer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits share the machine with those of other tests' replicas, as long as these are remembered."""
    monkeypatch.setattr(MemoryLimit, "_growing", weakref.WeakSet())
    monkeypatch.setattr(memory, "available_bytes", lambda: MACHINE)


@pytest.fixture
def replica(tmp_path: Path, clock: Clock) -> Iterator[ReplicaDatabase]:
    database = opened(tmp_path / "copy.db", clock)
    yield database
    database.close()


@pytest.fixture
def writer(replica: ReplicaDatabase, clock: Clock) -> Iterator[Writer]:
    made = new_writer(replica, clock=clock)
    made.start()
    yield made
    assert made.stop(WAIT)


@pytest.fixture
def exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set aside is not rounded up."""
    monkeypatch.setattr(memory_demand, "_STEP", 1)
