"""Runs: recorded when asked for and when ended, over a restart too; cancelled; one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cdc.errors import ConflictError, DucklingError, NotFoundError, RunCancelledError, StoppedError
from cdc.sandbox.databases import Database, session
from cdc.sandbox.service import Service
from tests.replica import Replica, staging_tables
from tests.sessions import waiting_for_a_lock
from tests.waiting import wait_until

pytestmark = pytest.mark.crossed

ROWS = (
    "CREATE TABLE numbers (id INT PRIMARY KEY, name VARCHAR(20))",
    "INSERT INTO numbers VALUES (1, 'one'), (2, 'two'), (3, 'three')",
    "CREATE TABLE pairs (a INT, b INT)",
    "INSERT INTO pairs VALUES (1, 1), (1, 1)",
)


@contextmanager
def locked(database: Database, table: str) -> Iterator[None]:
    """A session that keeps everybody from reading `table`: a copy of it waits."""
    with session(database.url) as connection, connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLES {table} WRITE")
        yield
        cursor.execute("UNLOCK TABLES")


def test_each_kind_of_run_is_recorded_with_its_end(database: Database, replica: Replica) -> None:
    database.execute(*ROWS)
    replica.start()
    full = replica.pipeline.start_full_sync()
    full.wait(60)
    table = replica.pipeline.start_table_sync("numbers")
    table.wait(60)
    held = replica.pipeline._stream.meet(None, hold=True)
    held.reached.result(60)
    database.execute("INSERT INTO numbers VALUES (4, 'four')")
    incremental = replica.pipeline.start_incremental_sync()
    held.release.set()
    assert incremental.wait(60).total == 1
    recorded = {run.id: run for run in replica.pipeline.recent_runs()}
    told = [
        (run.kind, run.tables, run.automatic, run.status, run.records)
        for run in (recorded[each.id] for each in (full, table, incremental))
    ]
    assert told == [
        ("full", (), False, "success", 5),
        ("table", ("numbers",), False, "success", 3),
        ("incremental", (), False, "success", 1),
    ]
    assert all(run.ended_at is not None and run.ended_at >= run.started_at for run in recorded.values())


def test_a_run_of_an_earlier_process_is_found_with_its_result(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(*ROWS)
    first = replica_factory(database.url).start()
    run = first.pipeline.start_full_sync()
    result = run.wait(60)
    first.stop()
    second = replica_factory(database.url).start()
    restored = second.pipeline.run(run.id)
    assert restored.id == run.id
    assert restored.done
    assert {(t.table, t.records, t.status) for t in restored.wait(0).tables} == {
        (t.table, t.records, t.status) for t in result.tables
    }
    with pytest.raises(NotFoundError):
        second.pipeline.run("0" * 12)


def test_a_run_that_a_kill_cut_short_is_interrupted_after_the_restart(
    database: Database, service_factory: Callable[..., Service]
) -> None:
    database.execute(*ROWS)
    service = service_factory(database.url)
    service.start()
    wait_until(lambda: bool(service.query("SELECT 1 FROM cdc_binlog_position")), "the first copy is done")
    with locked(database, "numbers"):
        run = service.post("/sync/full?wait=false")["runId"]
        wait_until(
            lambda: service.query(f"SELECT count(*) AS n FROM runs WHERE run_id = '{run}'")[0]["n"] == 1,
            "the run is recorded",
        )
        service.kill()
    service.start()
    rows = service.query(f"SELECT status, error_code FROM runs WHERE run_id = '{run}'")
    assert rows == [{"status": "interrupted", "error_code": "INTERRUPTED"}]
    logged = service.query(f"SELECT status FROM sync_log WHERE run_id = '{run}'")
    assert logged == [{"status": "interrupted"}]


def test_a_copy_that_waits_for_a_lock_can_be_cancelled_and_leaves_the_old_state(
    database: Database, replica: Replica
) -> None:
    database.execute(*ROWS)
    replica.start()
    with locked(database, "numbers"):
        run = replica.pipeline.start_full_sync()
        wait_until(lambda: replica.pipeline.current_run() is run and run.progress(), "the copy has begun")
        replica.pipeline.cancel_run(run.id)
        with pytest.raises(RunCancelledError):
            run.wait(60)
    assert {r.id: r.status for r in replica.pipeline.recent_runs()}[run.id] == "cancelled"
    replica.settle()
    assert replica.assert_equal() == 5
    with replica.pipeline.reader() as copy:
        assert staging_tables(copy) == set()


def test_an_incremental_run_that_waits_can_be_cancelled(database: Database, replica: Replica) -> None:
    database.execute(*ROWS)
    replica.start()
    held = replica.pipeline._stream.meet(None, hold=True)
    held.reached.result(60)
    try:
        database.execute("INSERT INTO numbers VALUES (4, 'four')")
        run = replica.pipeline.start_incremental_sync()
        with pytest.raises(ConflictError):
            replica.pipeline.start_incremental_sync()
        with pytest.raises(ConflictError):
            replica.pipeline.start_full_sync()
        replica.pipeline.cancel_run(run.id)
        with pytest.raises(RunCancelledError):
            run.wait(60)
    finally:
        held.release.set()
    replica.catch_up()
    assert replica.assert_equal() == 6


def test_who_was_told_of_an_incremental_syncs_end_finds_it_in_the_log(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written behind the answer; a look at the log waits for that."""
    monkeypatch.setattr("cdc.run_recorder._READ_PATIENCE", 60.0)
    database.execute(*ROWS)
    replica.start()
    for number in range(20):
        database.execute(f"INSERT INTO pairs VALUES ({number}, 0)")
        run = replica.pipeline.start_incremental_sync()
        run.wait(60)
        newest = replica.pipeline.recent_runs(1)[0]
        assert (newest.id, newest.status, newest.ended_at is not None) == (run.id, "success", True)
        assert replica.pipeline.sync_log(1)[0].table is None


def test_the_session_that_is_kept_for_incremental_syncs_may_be_lost(
    database: Database, replica: Replica
) -> None:
    database.execute(*ROWS)
    replica.start()
    replica.catch_up()
    kept = replica.pipeline._syncs._log_end._session
    before = kept.connection.thread_id()
    database.execute(f"KILL {before}", "INSERT INTO numbers VALUES (4, 'four')")
    replica.catch_up()
    assert kept.connection.thread_id() != before
    assert replica.assert_equal() == 6


def test_a_run_that_fails_is_recorded_with_its_code(database: Database, replica: Replica) -> None:
    database.execute(*ROWS)
    replica.start()
    database.execute("DROP TABLE pairs")
    replica.catch_up()
    database.execute("CREATE TABLE pairs (id INT PRIMARY KEY)")
    replica.settle()
    with locked(database, "numbers"):
        run = replica.pipeline.start_table_sync("numbers")
        wait_until(lambda: bool(run.progress()), "the copy has begun")
        wait_until(lambda: bool(waiting_for_a_lock(database)), "the copy waits for the table")
        for session_id in waiting_for_a_lock(database):
            database.execute(f"KILL {session_id}")
        with pytest.raises(DucklingError) as failure:
            run.wait(60)
    recorded = {r.id: r for r in replica.pipeline.recent_runs()}[run.id]
    assert (recorded.status, recorded.error_code) == ("error", failure.value.code)


def test_a_copy_that_was_asked_for_and_has_not_begun_ends_with_the_service(
    database: Database, replica: Replica
) -> None:
    database.execute(*ROWS)
    replica.start()
    syncs = replica.pipeline._syncs
    with syncs.queue.changed:  # the thread that would begin it waits for this
        run = replica.pipeline.start_full_sync()
        syncs.begin_stop()
    replica.stop()
    with pytest.raises(StoppedError):
        run.wait(5)
