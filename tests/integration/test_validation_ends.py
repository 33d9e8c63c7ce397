"""Validation beside the stream: what it holds up, how it ends, and the details of one table."""

from __future__ import annotations

import threading

import pytest

from cdc.errors import ConflictError, NotFoundError, RunCancelledError
from cdc.position import Position
from cdc.sandbox.databases import Database
from cdc.validation import moment
from cdc.validation.canonical import Canonical
from cdc.validation.sides import SourceSide, Total
from cdc.validation.validations import ValidationRun
from tests.integration.test_validation import compared, numbers_table, write
from tests.replica import Replica
from tests.sessions import waiting_for_a_lock
from tests.waiting import SECONDS, wait_until

pytestmark = pytest.mark.crossed


def test_the_stream_goes_on_while_both_sides_are_compared_at_an_earlier_place(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers_table(database, 10)
    replica.start()
    begun, go_on = threading.Event(), threading.Event()
    total = SourceSide.total

    def held_up(side: SourceSide, span: Canonical) -> Total:
        begun.set()
        assert go_on.wait(SECONDS)
        return total(side, span)

    monkeypatch.setattr(SourceSide, "total", held_up)
    run = replica.pipeline.start_validation("checksum")
    assert begun.wait(SECONDS)
    database.execute("INSERT INTO numbers (id) VALUES (-1)", "UPDATE numbers SET word = 'new'")
    replica.catch_up()
    assert replica.rows("SELECT count(*), min(word) FROM numbers WHERE word = 'new'") == [(11, "new")]
    go_on.set()
    [found] = run.report(SECONDS).results
    assert (found.matches, found.source_rows, found.replica_rows) == (True, 10, 10)


def test_a_copy_that_is_not_where_the_stream_was_held_is_opened_anew(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the writer refuses a batch at that moment, and the stream begins again."""
    numbers_table(database, 10)
    replica.start()
    check = moment.check_position
    asked: list[Position] = []

    def refuses_once(cursor: object, database_id: str, position: Position) -> None:
        asked.append(position)
        if len(asked) == 1:
            raise moment.MovedOnError("the stream was made anew")
        check(cursor, database_id, position)  # type: ignore[arg-type]

    monkeypatch.setattr(moment, "check_position", refuses_once)
    assert compared(replica, "numbers").matches
    assert len(asked) == 2


def test_a_cancelled_validation_ends_at_once_and_leaves_nothing_behind(
    database: Database, replica: Replica
) -> None:
    numbers_table(database, 10)
    replica.start()
    with database.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES numbers WRITE")
        run = replica.pipeline.start_validation("checksum")
        wait_until(lambda: waiting_for_a_lock(database), "the validation waits for the lock")
        with pytest.raises(ConflictError) as second:
            replica.pipeline.start_validation("checksum")
        assert second.value.code == "VALIDATION_ALREADY_RUNNING"
        run.cancel()
        with pytest.raises(RunCancelledError):
            run.report(60)
        wait_until(lambda: not waiting_for_a_lock(database), "its sessions are gone")
        cursor.execute("UNLOCK TABLES")
    database.execute("INSERT INTO numbers (id) VALUES (-1)")
    replica.catch_up()
    replica.assert_equal()
    assert compared(replica, "numbers").matches


def test_a_replica_that_stops_ends_the_validation(database: Database, replica: Replica) -> None:
    numbers_table(database, 10)
    replica.start()
    with database.connect() as blocker, blocker.cursor() as cursor:
        cursor.execute("LOCK TABLES numbers WRITE")
        run: ValidationRun = replica.pipeline.start_validation("checksum")
        wait_until(lambda: waiting_for_a_lock(database), "the validation waits for the lock")
        replica.stop()
        with pytest.raises(RunCancelledError):
            run.report(60)


def test_a_table_that_is_nowhere_and_a_stream_that_stands_still_are_told(
    database: Database, replica: Replica
) -> None:
    numbers_table(database, 10)
    replica.start()
    with pytest.raises(NotFoundError) as raised:
        replica.pipeline.validate("checksum", "missing")
    assert raised.value.code == "TABLE_NOT_FOUND"
    replica.pipeline.stop_stream()
    with pytest.raises(ConflictError) as still:
        replica.pipeline.validate("checksum")
    assert still.value.code == "STREAM_NOT_RUNNING"


def test_details_show_both_sides_of_a_table(database: Database, replica: Replica) -> None:
    numbers_table(database, 10)
    replica.start()
    details = replica.pipeline.table_details("numbers")
    assert details.error is None
    assert details.copy == details.source
    assert (details.source.exists, details.source.rows, details.source.max_id) == (True, 10, 30)
    assert details.source.columns == ("id", "word", "price", "at", "flags", "data", "ratio")
    write(replica, "UPDATE numbers SET ratio = 9 WHERE id = 9")
    details = replica.pipeline.table_details("numbers")
    assert details.copy.checksum != details.source.checksum
    skipped = replica.pipeline.table_details("numbers", skip_source_count=True)
    assert (skipped.source.rows, skipped.source.checksum, skipped.source.max_id) == (None, None, 30)
    assert not replica.pipeline.table_details("missing").copy.exists
    assert not replica.pipeline.table_details("missing").source.exists
