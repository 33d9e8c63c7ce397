"""DuckDB is told how much it may use: the limit, and more while clients ask."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from cdc.errors import ReplicaError
from cdc.replica import memory_grant
from cdc.replica.database import ReplicaDatabase
from cdc.replica.memory import FIRST_BYTES, QUERY_BYTES
from tests.unit.memory.files import Clock, limit_of, megabytes, opened
from tests.waiting import wait_until


def test_the_configuration_stays_locked_but_for_the_limit(replica: ReplicaDatabase) -> None:
    cursor = replica.cursor()
    for statement in (
        "SET GLOBAL threads = 3",
        "SET GLOBAL allowed_configs = ['threads']",
        "SET GLOBAL enable_external_access = true",
    ):
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            cursor.execute(statement)
    cursor.close()


def test_clients_get_more_while_they_ask_and_for_a_while_after(
    replica: ReplicaDatabase, clock: Clock
) -> None:
    grant = replica.grant
    assert limit_of(replica) == megabytes(FIRST_BYTES)
    with grant.serving():
        assert limit_of(replica) == megabytes(FIRST_BYTES + QUERY_BYTES)
        with grant.serving():
            pass
        clock.now += 100
        grant.adjust()
        assert limit_of(replica) == megabytes(FIRST_BYTES + QUERY_BYTES)
    clock.now += 9
    grant.adjust()
    assert limit_of(replica) == megabytes(FIRST_BYTES + QUERY_BYTES)
    clock.now += 2
    grant.adjust(upwards=True)
    assert limit_of(replica) == megabytes(FIRST_BYTES + QUERY_BYTES)
    grant.adjust()
    assert limit_of(replica) == megabytes(FIRST_BYTES)


def test_what_clients_had_is_taken_back_although_nobody_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_grant, "_LINGER", 0.05)
    database = opened(tmp_path / "other.db")
    for _ in range(2):
        with database.grant.serving():
            assert limit_of(database) == megabytes(FIRST_BYTES + QUERY_BYTES)
        wait_until(lambda: limit_of(database) == megabytes(FIRST_BYTES), "it is taken back")
    with database.grant.serving():
        database.close(checkpoint=False)
        database.open()
        assert limit_of(database) == megabytes(FIRST_BYTES + QUERY_BYTES)
    wait_until(lambda: limit_of(database) == megabytes(FIRST_BYTES), "it is taken back")
    with database.grant.serving():
        database.close()
        assert database.memory.given == 0
    database.open()
    wait_until(lambda: limit_of(database) == megabytes(FIRST_BYTES), "it is taken back from the file anew")
    database.close()


def test_a_limit_below_what_is_in_use_waits_until_it_is_not(replica: ReplicaDatabase, clock: Clock) -> None:
    cursor = replica.cursor()
    with replica.grant.serving():
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO t SELECT i FROM range(300_000) AS r(i)")
    clock.now += 100
    base, replica.memory.bytes = replica.memory.bytes, 1_000
    replica.grant.adjust()
    cursor.execute("ROLLBACK")
    cursor.close()
    assert limit_of(replica) == megabytes(FIRST_BYTES + QUERY_BYTES)
    replica.memory.bytes = base
    replica.grant.adjust()
    assert limit_of(replica) == megabytes(FIRST_BYTES)


def test_a_file_that_is_not_open_is_told_when_it_is(replica: ReplicaDatabase) -> None:
    replica.close()
    with replica.grant.serving():
        replica.memory.set_aside(50_000_000)
    replica.open()
    assert limit_of(replica) == megabytes(FIRST_BYTES + 50_000_000 + QUERY_BYTES)


def test_an_error_in_a_clients_hands_takes_nothing_from_the_count(
    replica: ReplicaDatabase, clock: Clock
) -> None:
    with pytest.raises(ReplicaError), replica.grant.serving():
        raise ReplicaError("the client left", hint="ask again")
    clock.now += 100
    replica.grant.adjust()
    assert limit_of(replica) == megabytes(FIRST_BYTES)


def test_reading_has_memory_beside_what_is_written(replica: ReplicaDatabase) -> None:
    """A status must not fail because the writer is at a large transaction."""
    given: list[int] = []

    def work(_: duckdb.DuckDBPyConnection) -> str:
        given.append(replica.memory.given)
        if len(given) == 1:
            raise duckdb.OutOfMemoryException("could not allocate block of size 256.0 KiB")
        return "read"

    assert replica.read(work) == "read"
    assert given[1] > given[0] == FIRST_BYTES
    assert replica.memory.given == FIRST_BYTES


def test_reading_that_finds_no_memory_the_second_time_either_is_told(replica: ReplicaDatabase) -> None:
    def work(_: duckdb.DuckDBPyConnection) -> str:
        raise duckdb.OutOfMemoryException("could not allocate block of size 256.0 KiB")

    with pytest.raises(ReplicaError, match="memory"):
        replica.read(work)
    assert replica.memory.given == FIRST_BYTES
