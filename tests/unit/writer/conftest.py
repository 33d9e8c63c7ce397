"""A DuckDB file with two tables, and a writer of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.replica import state, tables
from cdc.replica.database import ReplicaDatabase
from cdc.replica.writer import Writer
from tests.unit.writer.batches import D, T, new_writer


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[ReplicaDatabase]:
    database = ReplicaDatabase(tmp_path / "copy.db", memory_limit="256MB", threads=1)
    database.open()
    cursor = database.cursor()
    state.prepare(cursor, "default", "shop")
    for each in (T, D):
        tables.create_staging(cursor, each)
        tables.swap(cursor, each.name)
    cursor.close()
    yield database
    database.close()


@pytest.fixture
def writer(replica: ReplicaDatabase) -> Iterator[Writer]:
    made = new_writer(replica)
    made.start()
    yield made
    assert made.stop(10.0)
