"""Faults that were met once and must not come again, each brought about at its exact moment."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import duckdb
import pytest

import cdc.table_copies
from cdc.backoff import Backoff
from cdc.errors import DucklingError, ReplicaFatalError, ReplicaLockedError
from cdc.metrics import Metrics
from cdc.replica.apply import append_rows
from cdc.replica.database import ReplicaDatabase
from cdc.replica.write_session import WriteSession
from cdc.replica.writer import Writer
from cdc.sandbox.databases import Database
from cdc.source.snapshot import Snapshot
from cdc.status import PipelineState, TableState
from cdc.stream_loop import StreamLoop
from tests.replica import Replica, staging_tables
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


class UnforeseenError(Exception):
    """Nobody's error: what a fault in our own code raises."""


def test_statements_of_a_latin1_session_name_their_tables(database: Database, replica: Replica) -> None:
    """A statement stands in the log in its session's character set, names and all."""
    database.execute("CREATE TABLE `größe` (id INT PRIMARY KEY, n INT)", "INSERT INTO `größe` VALUES (1, 1)")
    replica.start()
    with database.connect(charset="latin1").cursor() as cursor:
        cursor.execute("ALTER TABLE `größe` ADD COLUMN `länge` VARCHAR(10) DEFAULT 'für'")
        cursor.execute("INSERT INTO `größe` (id) VALUES (2)")
        cursor.execute("CREATE TABLE `straße` (`id` INT PRIMARY KEY)")
        cursor.execute("INSERT INTO `straße` VALUES (7)")
        cursor.execute("RENAME TABLE `größe` TO `maß`")
        cursor.execute("UPDATE `maß` SET n = 5")
        cursor.execute("TRUNCATE TABLE `straße`")
    replica.settle()
    replica.assert_equal()


def test_a_table_that_is_made_between_the_catalogue_and_the_snapshot_is_copied_too(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE a (id INT PRIMARY KEY)", "INSERT INTO a VALUES (1)")
    opened = Snapshot.__enter__
    moments = iter(
        [
            ("CREATE TABLE b (id INT PRIMARY KEY)", "INSERT INTO b VALUES (2)"),
            (
                "ALTER TABLE a ADD COLUMN n INT DEFAULT 4",
                "CREATE TABLE c (n INT)",
                "INSERT INTO c VALUES (3)",
            ),
        ]
    )

    def late(self: Snapshot) -> Snapshot:
        database.execute(*next(moments, ()))
        return opened(self)

    monkeypatch.setattr(Snapshot, "__enter__", late)
    replica.start(live=False)
    replica.settle()
    assert next(moments, None) is None
    replica.assert_equal()


def failing_once(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The next `times` pieces of a copy meet an error that nobody foresaw."""
    count = itertools.count(1)

    def append(*arguments: Any, **options: Any) -> int:
        if next(count) <= times:
            raise UnforeseenError("as no library should")
        return append_rows(*arguments, **options)

    monkeypatch.setattr(cdc.table_copies, "append_rows", append)


def test_an_unforeseen_error_within_a_copy_ends_that_copy_and_it_is_tried_again(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE a (id INT PRIMARY KEY)", "INSERT INTO a VALUES (1), (2)")
    failing_once(monkeypatch, 2)
    replica.start(live=False)
    status = wait_until(lambda: (now := replica.pipeline.status()).last_error and now, "it is told")
    assert status.hint
    replica.settle()
    replica.assert_equal()
    with replica.pipeline.reader() as cursor:
        assert staging_tables(cursor) == set()


def test_a_copy_that_was_asked_for_is_made_again_where_the_file_had_to_be_opened_anew(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a commit that lacked memory."""
    database.execute("CREATE TABLE a (id INT PRIMARY KEY)", "INSERT INTO a VALUES (1), (2)")
    replica.start()
    commit = WriteSession.commit
    failed: list[WriteSession] = []

    def starved_once(session: WriteSession) -> None:
        if not failed and staging_tables(session.cursor):
            failed.append(session)
            raise ReplicaFatalError("DuckDB ran out of memory", hint="the file is opened again")
        commit(session)

    monkeypatch.setattr(WriteSession, "commit", starved_once)
    database.execute("INSERT INTO a VALUES (3)")
    result = replica.pipeline.start_full_sync().wait(60)
    assert failed
    assert (result.errors, [table.records for table in result.tables]) == ((), [3])
    replica.settle()
    replica.assert_equal()
    assert replica.pipeline.recent_runs(1)[0].status == "success"


def test_a_full_copy_that_fails_while_the_stream_is_stopped_leaves_the_old_copy_and_its_position(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE a (id INT PRIMARY KEY)", "INSERT INTO a VALUES (1), (2)")
    replica.start()
    replica.pipeline.stop_stream()
    before = replica.pipeline.status().current
    database.execute("INSERT INTO a VALUES (3)")
    failing_once(monkeypatch, 1)
    with pytest.raises(DucklingError):
        replica.pipeline.start_full_sync().wait(60)
    assert replica.rows("SELECT id FROM a ORDER BY id") == [(1,), (2,)]
    assert replica.pipeline.status().current.gtid == before.gtid
    [table] = replica.pipeline.status().tables
    assert table.state is TableState.STREAMING
    replica.pipeline.start_stream()
    replica.settle()
    replica.assert_equal()
    assert replica.copies().count("a") == 1


def test_a_statement_that_changed_rows_without_events_has_its_table_copied_again(
    database: Database, replica: Replica
) -> None:
    """One session with binlog_format = STATEMENT: the log has the statement, and no row."""
    database.execute("CREATE TABLE a (id INT PRIMARY KEY, n INT)", "INSERT INTO a VALUES (1, 1)")
    replica.start()
    with database.connect().cursor() as cursor:
        cursor.execute("SET SESSION binlog_format = STATEMENT")
        cursor.execute("UPDATE a SET n = n + 1")
    wait_until(lambda: replica.copies().count("a") == 2, "the table is copied again")
    replica.settle()
    replica.assert_equal()


def test_rows_that_were_never_logged_are_found_by_a_validation(database: Database, replica: Replica) -> None:
    """sql_log_bin = 0: no log has them, so only a comparison can tell."""
    database.execute("CREATE TABLE a (id INT PRIMARY KEY, n INT)", "INSERT INTO a VALUES (1, 1), (2, 2)")
    replica.start()
    with database.connect().cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute("UPDATE a SET n = 7 WHERE id = 1")
        cursor.execute("SET SESSION sql_log_bin = 1")
    replica.catch_up()
    report = replica.pipeline.validate("checksum")
    assert [result.table for result in report.results if not result.matches] == ["a"]
    replica.pipeline.start_table_sync("a", "full").wait(60)
    assert replica.pipeline.validate("checksum").equal
    replica.assert_equal()


def test_a_file_that_can_not_be_opened_again_is_tried_with_growing_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fatal error of DuckDB's; whoever comes meanwhile is refused at once."""
    database = ReplicaDatabase(tmp_path / "copy.db", memory_limit="256MB", threads=1)
    database.open()
    writer = Writer(
        database,
        Metrics().for_database("default"),
        name="default",
        checkpoint_wal_bytes=1 << 30,
        checkpoint_idle=3600.0,
    )
    writer.start()
    writer.submit(lambda cursor: cursor.execute("CREATE TABLE t (id INT)")).result(10)
    opens: list[str] = []
    pauses: list[float] = []
    real_open, real_pause = ReplicaDatabase.open, Backoff.pause

    def locked(self: ReplicaDatabase) -> None:
        opens.append("tried")
        if len(opens) <= 3:
            raise ReplicaLockedError("process 1 has the file open", hint="end it")
        real_open(self)

    def pause(self: Backoff) -> float:
        pauses.append(real_pause(self))
        return pauses[-1]

    monkeypatch.setattr(ReplicaDatabase, "open", locked)
    monkeypatch.setattr(Backoff, "pause", pause)

    def gives_up(_: duckdb.DuckDBPyConnection) -> None:
        raise duckdb.FatalException("FATAL Error: database has been invalidated")

    with pytest.raises(ReplicaFatalError):
        writer.submit(gives_up).result(10)

    def works() -> bool:
        try:
            writer.submit(lambda cursor: cursor.execute("INSERT INTO t VALUES (1)")).result(10)
        except DucklingError:
            return False
        return True

    wait_until(works, "the file is open again")
    assert len(opens) == 4
    assert len(pauses) == 3
    assert pauses == sorted(pauses)
    assert writer.stop(10.0)
    database.close()


def test_a_copy_that_is_due_while_the_file_is_shut_is_made_when_it_is_open_again(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes: an attempt without a file is none."""
    database.execute("CREATE TABLE a (id INT PRIMARY KEY)", "INSERT INTO a VALUES (1)")
    replica.start()
    opens, may_open, real_open = 0, threading.Event(), ReplicaDatabase.open

    def locked(self: ReplicaDatabase) -> None:
        nonlocal opens
        opens += 1
        if not may_open.is_set():
            raise ReplicaLockedError("process 1 has the file open", hint="end it")
        real_open(self)

    def gives_up(_: duckdb.DuckDBPyConnection) -> None:
        raise duckdb.FatalException("FATAL Error: database has been invalidated")

    monkeypatch.setattr(ReplicaDatabase, "open", locked)
    monkeypatch.setattr("cdc.due_copies._TRIES", 2)
    with pytest.raises(ReplicaFatalError):
        replica.pipeline._engine.writer.submit(gives_up).result(10)
    replica.pipeline._syncs.queue.want_copies(["a"])
    wait_until(lambda: opens > 4, "the file is tried again and again")
    may_open.set()
    replica.settle()
    assert replica.copies().count("a") == 2
    assert replica.assert_equal() == 1


def test_a_failure_while_the_status_is_put_together_is_not_told_without_its_reason(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    replica.start()
    pipeline = replica.pipeline
    pipeline.stop_stream()
    stream = pipeline._stream
    reason = DucklingError("the source is another one", hint="see there")
    for moment in ("counts", "applied", "lag_seconds"):  # what a status asks for, from first to last
        stream.last_error, stream.state = None, PipelineState.STOPPED
        asked = getattr(StreamLoop, moment)

        def fails_now(self: StreamLoop, asked: Any = asked) -> Any:
            self._give_up(reason)
            return asked.__get__(self) if isinstance(asked, property) else asked(self)

        with monkeypatch.context() as patch:
            fake = property(fails_now) if isinstance(asked, property) else fails_now
            patch.setattr(StreamLoop, moment, fake)
            during = pipeline.status()
        assert (during.state is PipelineState.FAILED) <= (during.last_error == reason.message)
        after = pipeline.status()
        assert (after.state, after.last_error) == (PipelineState.FAILED, reason.message)
