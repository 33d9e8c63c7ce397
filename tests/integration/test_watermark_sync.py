"""Watermark sync: what is newer is found, read once more where it may have been late, and nothing twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cdc.errors import ConflictError, RunCancelledError
from cdc.replica.run_log import RunRecord
from cdc.sandbox.databases import Database
from cdc.status import TableState
from tests.integration.polling import ITEMS, STAMP, mark, records, sync
from tests.replica import Replica
from tests.waiting import SECONDS, wait_until

pytestmark = [pytest.mark.timeout(90), pytest.mark.crossed]


def test_the_first_sync_copies_and_the_next_ones_read_what_is_newer(
    database: Database, polled: Callable[..., Replica]
) -> None:
    database.execute(
        ITEMS,
        "INSERT INTO items VALUES (1, 'a', '2024-01-01'), (2, 'b', '2024-01-02'), (3, 'c', '2024-01-03')",
    )
    replica = polled()
    first = sync(replica)
    assert (first.snapshots, records(first)) == (1, {"items": 3})
    assert records(sync(replica)) == {"items": 0}
    database.execute(
        "UPDATE items SET note = 'B' WHERE id = 2", "INSERT INTO items (id, note) VALUES (4, 'd')"
    )
    again = sync(replica)
    assert (again.snapshots, records(again)) == (0, {"items": 2})
    assert replica.assert_equal() == 4
    assert {each.state for each in replica.pipeline.status().tables} == {TableState.POLLING}


@pytest.mark.parametrize("index", [", KEY (updated_at)", ""], ids=["indexed", "not_indexed"])
def test_new_changed_and_undated_rows_are_found_with_an_index_and_without(
    database: Database, polled: Callable[..., Replica], index: str
) -> None:
    database.execute(
        f"CREATE TABLE items (id INT PRIMARY KEY, note VARCHAR(50), updated_at DATETIME NULL{index})",
        "INSERT INTO items VALUES (1, 'a', '2024-01-01'), (2, 'undated', NULL)",
    )
    replica = polled()
    sync(replica)
    for statement in (
        "INSERT INTO items VALUES (3, 'undated too', NULL)",
        "UPDATE items SET note = 'changed without a date' WHERE id = 2",
        "INSERT INTO items VALUES (4, 'dated', '2024-01-02'), (5, 'zero', '0000-00-00')",
        "UPDATE items SET note = 'still zero' WHERE id = 5",
        "UPDATE items SET updated_at = '2024-01-03' WHERE id = 3",
        "UPDATE items SET updated_at = NULL WHERE id = 1",
    ):
        connection = database.connect(sql_mode="")
        with connection.cursor() as cursor:
            cursor.execute(statement)
        assert sync(replica).snapshots == 0
        with connection.cursor() as cursor:
            cursor.execute("SELECT id, note, NULLIF(updated_at, '0000-00-00') FROM items ORDER BY id")
            assert replica.rows("SELECT * FROM items ORDER BY id") == list(cursor.fetchall())


def test_rows_of_the_very_timestamp_of_the_watermark_are_found(
    database: Database, polled: Callable[..., Replica]
) -> None:
    database.execute(ITEMS, "INSERT INTO items VALUES (5, 'a', NOW())")
    replica = polled(watermark_overlap_seconds=5)
    sync(replica)
    database.execute(
        "INSERT INTO items SELECT 6, 'same moment, greater key', updated_at FROM items WHERE id = 5",
        "INSERT INTO items SELECT 4, 'same moment, smaller key', updated_at FROM items WHERE id = 5",
        "UPDATE items SET note = 'same moment', updated_at = updated_at WHERE id = 5",
    )
    sync(replica)
    assert replica.assert_equal() == 3


def test_a_row_that_is_committed_late_with_an_older_timestamp_is_found(
    database: Database, polled: Callable[..., Replica]
) -> None:
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
    replica = polled()
    sync(replica)
    late = database.connect(autocommit=False)
    with late.cursor() as cursor:
        cursor.execute(
            "INSERT INTO items VALUES (2, 'stamped first, seen last', NOW(3) - INTERVAL 20 SECOND)"
        )
    database.execute("INSERT INTO items (id, note) VALUES (3, 'stamped last, seen first')")
    sync(replica)
    assert replica.rows("SELECT id FROM items ORDER BY id") == [(1,), (3,)]
    late.commit()
    sync(replica)
    assert replica.assert_equal() == 3


@pytest.mark.parametrize("zone", ["+05:30", "-08:00"])
def test_local_time_in_a_datetime_hides_nothing(
    database: Database, polled: Callable[..., Replica], zone: str
) -> None:
    database.execute(
        "CREATE TABLE items (id INT PRIMARY KEY, note VARCHAR(50), updated_at DATETIME NOT NULL"
        " DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, KEY (updated_at))"
    )
    local = database.connect(init_command=f"SET time_zone = '{zone}'")
    replica = polled()
    sync(replica)
    with local.cursor() as cursor:
        for number in range(1, 5):
            cursor.execute(f"INSERT INTO items (id, note) VALUES ({number}, 'new')")
            cursor.execute("UPDATE items SET note = CONCAT(note, '.') WHERE id = 1")
            assert sync(replica).snapshots == 0
            assert replica.assert_equal() == number


def test_a_timestamp_in_the_future_hides_nothing(database: Database, polled: Callable[..., Replica]) -> None:
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'from the future', '2037-12-31')")
    replica = polled()
    sync(replica)
    for number in (2, 3):
        database.execute(f"INSERT INTO items (id, note) VALUES ({number}, 'of now')")
        sync(replica)
        assert replica.assert_equal() == number


def test_a_table_that_was_emptied_and_numbers_its_rows_from_1_again_is_copied(
    database: Database, polled: Callable[..., Replica]
) -> None:
    database.execute(
        "CREATE TABLE events (id INT PRIMARY KEY AUTO_INCREMENT, note VARCHAR(20))",
        "INSERT INTO events (note) VALUES ('old'), ('old'), ('old')",
    )
    replica = polled(watermark_overlap_seconds=0)
    for _ in range(3):
        sync(replica)
    database.execute("TRUNCATE TABLE events", "INSERT INTO events (note) VALUES ('new')")
    sync(replica)
    assert replica.assert_equal() == 1


def test_rows_without_a_date_are_read_again_in_batches_however_many_they_are(
    database: Database, polled: Callable[..., Replica]
) -> None:
    numbers = ", ".join(f"({number}, 'undated', NULL)" for number in range(1, 41))
    database.execute(
        "CREATE TABLE items (id INT PRIMARY KEY, note VARCHAR(50), updated_at DATETIME NULL)",
        f"INSERT INTO items VALUES {numbers}",
    )
    replica = polled(batch_size=10, copy_batch_rows=10)
    sync(replica)
    database.execute("UPDATE items SET note = 'changed' WHERE id = 20")
    assert sync(replica).micro_batches >= 4
    assert replica.assert_equal() == 40


@pytest.mark.parametrize("index", [", KEY (updated_at)", ""], ids=["indexed", "not_indexed"])
def test_a_date_in_the_future_hides_nothing_of_a_clock_that_is_behind_utc(
    database: Database, polled: Callable[..., Replica], index: str
) -> None:
    database.execute(
        f"CREATE TABLE items (id INT PRIMARY KEY, note VARCHAR(50), updated_at DATETIME{index})",
        "INSERT INTO items VALUES (1, 'for ever', '9999-12-31'), (2, 'old', UTC_TIMESTAMP - INTERVAL 9 HOUR)",
    )
    replica = polled()
    sync(replica)
    for number in (3, 4, 5):
        database.execute(
            f"INSERT INTO items VALUES ({number}, 'new', UTC_TIMESTAMP - INTERVAL 8 HOUR)",
            "UPDATE items SET note = CONCAT(note, '.'), updated_at = UTC_TIMESTAMP - INTERVAL 8 HOUR WHERE id = 2",
        )
        assert sync(replica).snapshots == 0
        assert replica.assert_equal() == number


@pytest.mark.parametrize(
    ("columns", "key", "values"),
    [
        (
            "a INT, b VARCHAR(20) COLLATE utf8mb4_general_ci",
            "a, b",
            "{i} % 3, CONCAT('k', CHAR(65 + {i} % 40), {i})",
        ),
        ("a VARBINARY(8)", "a", "CONCAT(CHAR({i}), x'0027')"),
        ("a VARCHAR(20) CHARACTER SET latin1", "a", "CONCAT('é', {i})"),
        ("a DECIMAL(10,3), b DATE", "b, a", "{i} / 7, DATE('2024-02-28') + INTERVAL {i} % 3 DAY"),
        ("a DATETIME(2)", "a", "TIMESTAMP('2024-01-01') + INTERVAL {i} * 10000 MICROSECOND"),
        ("a ENUM('z','y','x','w','v','u'), b INT", "a, b", "1 + {i} % 6, {i}"),
        ("a TIME(2)", "a", "SEC_TO_TIME({i} * 7)"),
    ],
    ids=["int and text", "bytes", "latin1", "decimal and date", "datetime", "enum", "time"],
)
def test_a_pass_that_is_cut_short_goes_on_behind_its_last_page(
    database: Database, polled: Callable[..., Replica], columns: str, key: str, values: str
) -> None:
    rows = ", ".join(f"({values.format(i=i)}, {i}, '2026-01-01')" for i in range(100))
    database.execute(
        f"CREATE TABLE items ({columns}, n INT, updated_at DATETIME, PRIMARY KEY ({key}), KEY (updated_at))",
        f"INSERT INTO items VALUES {rows}",
    )
    replica = polled(copy_batch_rows=10, batch_size=10)
    sync(replica)
    database.execute("UPDATE items SET n = n + 1000, updated_at = '2026-02-02 02:02:02'")
    with writer_held(replica) as let_go:
        run = replica.pipeline.start_incremental_sync()
        wait_until(lambda: sum(table.rows for table in run.progress()) >= 20, "two pages are read")
        run.cancel()
        let_go()
        with pytest.raises(RunCancelledError):
            run.wait(SECONDS)
    [[done]] = replica.rows("SELECT count(*) FROM items WHERE n >= 1000")
    assert 0 < done < 100
    assert mark(replica, "items").progress.cursor is not None
    rest = sync(replica)
    by_place = "ENUM" not in columns and "TIME(2)" not in columns.replace("DATETIME", "")
    assert records(rest)["items"] == (100 - done if by_place else 100)
    assert mark(replica, "items").progress.cursor is None
    assert replica.assert_equal() == 100


@contextmanager
def writer_held(replica: Replica) -> Iterator[Callable[[], None]]:
    """The replica's writer does nothing until the function is called."""
    gate = threading.Event()
    replica.pipeline._engine.writer.submit(lambda _: gate.wait())
    try:
        yield gate.set
    finally:
        gate.set()


def test_what_was_late_while_a_pass_was_cut_short_is_found(
    database: Database, polled: Callable[..., Replica]
) -> None:
    rows = ", ".join(f"({i}, 'old', '2024-01-01')" for i in range(100))
    database.execute(ITEMS, f"INSERT INTO items VALUES {rows}")
    replica = polled(copy_batch_rows=10, batch_size=10)
    sync(replica)
    database.execute("UPDATE items SET note = 'new'")
    with writer_held(replica) as let_go:
        run = replica.pipeline.start_incremental_sync()
        wait_until(lambda: sum(table.rows for table in run.progress()) >= 20, "two pages are read")
        run.cancel()
        let_go()
        with pytest.raises(RunCancelledError):
            run.wait(SECONDS)
    database.execute(
        "INSERT INTO items VALUES (200, 'late', NOW(3) - INTERVAL 30 SECOND)",
        "UPDATE items SET note = 'late too', updated_at = NOW(3) - INTERVAL 30 SECOND WHERE id = 0",
    )
    sync(replica)
    sync(replica)
    assert replica.assert_equal() == 101


def test_a_restart_goes_on_from_the_committed_watermarks(
    database: Database, polled: Callable[..., Replica]
) -> None:
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01'), (2, 'b', '2024-01-02')")
    replica = polled()
    sync(replica)
    replica.stop()
    database.execute("UPDATE items SET note = 'B' WHERE id = 2")
    again = polled()

    def first_poll() -> RunRecord | None:
        return next((run for run in again.pipeline.recent_runs() if run.automatic and run.ended_at), None)

    # It comes by itself behind a start.
    assert wait_until(first_poll, "the first poll has ended").records == 1
    assert again.assert_equal() == 2
    assert again.copies() == ["items"]


def test_a_growing_key_is_followed_also_where_a_smaller_one_is_committed_later(
    database: Database, polled: Callable[..., Replica]
) -> None:
    database.execute(
        "CREATE TABLE log (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, note TEXT)",
        "INSERT INTO log (note) VALUES ('a'), ('b')",
    )
    replica = polled()
    assert sync(replica).snapshots == 1
    late = database.connect(autocommit=False)
    with late.cursor() as cursor:
        cursor.execute("INSERT INTO log (note) VALUES ('first, but late')")
    database.execute("INSERT INTO log (note) VALUES ('last')")
    sync(replica)
    assert replica.rows("SELECT id FROM log ORDER BY id") == [(1,), (2,), (4,)]
    late.commit()
    assert sync(replica).snapshots == 0
    assert replica.assert_equal() == 4
    assert (mark(replica, "log").last_key, mark(replica, "log").timestamp) == ("4", None)


def test_tables_with_neither_are_copied_when_their_checksum_differs(
    database: Database, polled: Callable[..., Replica]
) -> None:
    database.execute(
        "CREATE TABLE pairs (a INT, b VARCHAR(9))",
        "CREATE TABLE still (code CHAR(2) PRIMARY KEY)",
        "INSERT INTO pairs VALUES (1, 'x'), (1, 'x'), (2, NULL)",
        "INSERT INTO still VALUES ('de')",
    )
    replica = polled()
    sync(replica)
    assert sync(replica).snapshots == 0
    for statement in (
        "UPDATE pairs SET b = 'y' WHERE a = 2",
        "DELETE FROM pairs WHERE a = 1 LIMIT 1",
        "INSERT INTO pairs VALUES (3, 'z')",
    ):
        database.execute(statement)
        result = sync(replica)
        assert [each.table for each in result.tables if each.sync_type == "snapshot"] == ["pairs"]
        replica.assert_equal()


def test_one_table_is_synced_by_its_watermark_and_copied_where_that_is_asked_for(
    database: Database, polled: Callable[..., Replica]
) -> None:
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01'), (2, 'b', '2024-01-02')")
    replica = polled()
    sync(replica)
    database.execute("DELETE FROM items WHERE id = 1", "UPDATE items SET note = 'B' WHERE id = 2")
    [found] = replica.pipeline.start_table_sync("items").wait(SECONDS).tables
    assert (found.sync_type, found.records) == ("micro-batch", 1)
    assert replica.rows("SELECT id, note FROM items ORDER BY id") == [
        (1, "a"),
        (2, "B"),
    ]  # a delete is not seen
    [copied] = replica.pipeline.start_table_sync("items", "full").wait(SECONDS).tables
    assert (copied.sync_type, copied.records) == ("snapshot", 1)
    assert replica.assert_equal() == 1


def test_readers_see_the_news_of_all_tables_at_once(
    database: Database, polled: Callable[..., Replica]
) -> None:
    tables = [f"t{number}" for number in range(8)]
    database.execute(
        *(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT, {STAMP}, KEY (updated_at))" for name in tables),
        *(f"INSERT INTO {name} VALUES (1, 0, '2024-01-01')" for name in tables),
    )
    replica = polled()
    sync(replica)
    values = ", ".join(f"(SELECT v FROM {name})" for name in tables)
    seen = set()
    reader = replica.pipeline.reader()
    for round_ in range(1, 6):
        connection = database.connect(autocommit=False)
        with connection.cursor() as cursor:
            for name in tables:
                cursor.execute(f"UPDATE {name} SET v = {round_}")
        connection.commit()
        run = replica.pipeline.start_incremental_sync()
        while not run.done:
            seen.update(reader.execute(f"SELECT {values}").fetchall())
        assert run.wait(0).micro_batches == 1
    reader.close()
    assert all(len(set(row)) == 1 for row in seen)
    replica.assert_equal()


def test_two_syncs_at_once_are_refused(database: Database, polled: Callable[..., Replica]) -> None:
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
    replica = polled()
    with writer_held(replica) as let_go:
        run = replica.pipeline.start_incremental_sync()
        with pytest.raises(ConflictError):
            replica.pipeline.start_incremental_sync()
        with pytest.raises(ConflictError):
            replica.pipeline.start_full_sync()
        let_go()
        run.wait(SECONDS)
    replica.assert_equal()
