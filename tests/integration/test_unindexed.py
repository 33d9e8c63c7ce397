"""Tables that do without DuckDB's index of their key: the same rows, by every way that they come."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from cdc.sandbox import shop
from cdc.sandbox.databases import Database
from cdc.sandbox.load import Load
from cdc.status import TableState
from tests.replica import Replica

pytestmark = pytest.mark.timeout(90)

Start = Callable[..., Replica]

TABLES = (
    "CREATE TABLE events (id BIGINT PRIMARY KEY, note VARCHAR(20), n INT)",
    "CREATE TABLE event_tags (tag VARCHAR(9), event BIGINT, weight DOUBLE, PRIMARY KEY (tag, event))",
    "CREATE TABLE users (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20))",
    "INSERT INTO events VALUES (1, 'a', 1), (2, 'b', 2), (3, NULL, 3)",
    "INSERT INTO event_tags VALUES ('x', 1, 0.5), ('x', 2, 1.5), ('y', 1, -0.0)",
    "INSERT INTO users (name) VALUES ('Ada'), ('Bob')",
)


def indexed(replica: Replica) -> set[str]:
    """The tables of the copy whose key DuckDB knows as one."""
    return {
        name
        for (name,) in replica.rows(
            "SELECT table_name FROM duckdb_constraints()"
            " WHERE schema_name = 'main' AND constraint_type = 'PRIMARY KEY'"
        )
    }


def test_only_tables_that_are_named_lack_it_and_all_are_equal(
    database: Database, replica_factory: Start
) -> None:
    database.execute(*TABLES)
    replica = replica_factory(database.url, unindexed_tables="event*").start()
    assert replica.assert_equal() == 8
    database.execute(
        "INSERT INTO events VALUES (5, 'e', 5), (4, 'd', 4)",
        "UPDATE events SET note = 'new' WHERE id = 2",
        "UPDATE events SET id = id + 100 WHERE id IN (1, 4)",
        "DELETE FROM events WHERE id = 3",
        "INSERT INTO events VALUES (3, 'again', 33)",
        "UPDATE event_tags SET tag = 'z', event = 9 WHERE tag = 'y'",
        "REPLACE INTO event_tags VALUES ('x', 1, 7), ('w', 1, 8)",
        "UPDATE users SET name = 'Eve' WHERE id = 2",
    )
    replica.catch_up()
    assert replica.assert_equal() == 11
    assert indexed(replica) == {"users"}
    assert replica.pipeline.validate("checksum").equal
    replica.stop()
    replica.start()
    database.execute("DELETE FROM events WHERE n > 4", "INSERT INTO users (name) VALUES ('Kim')")
    replica.catch_up()
    assert replica.assert_equal() == 10
    assert indexed(replica) == {"users"}


@pytest.mark.crossed
def test_a_key_that_comes_again_is_not_there_twice(database: Database, replica_factory: Start) -> None:
    """sql_log_bin = 0 took it away unseen, so that the log inserts a key that the copy holds."""
    database.execute(*TABLES)
    replica = replica_factory(database.url, unindexed_tables="*").start()
    database.execute(
        "SET SESSION sql_log_bin = 0",
        "DELETE FROM events WHERE id IN (1, 2)",
        "DELETE FROM event_tags",
        "SET SESSION sql_log_bin = 1",
        "INSERT INTO events VALUES (1, 'anew', 11), (7, 'g', 7), (2, 'anew', 22)",
        "INSERT INTO event_tags VALUES ('x', 1, 3), ('x', 2, 3), ('y', 1, 3)",
    )
    replica.catch_up()
    assert replica.assert_equal() == 9
    assert replica.pipeline.status().errors == 0
    assert indexed(replica) == set()


def test_rows_that_the_copy_lacks_are_told_and_made_whole_by_the_next_image(
    database: Database, replica_factory: Start
) -> None:
    database.execute(*TABLES)
    replica = replica_factory(database.url, unindexed_tables="events").start()
    database.execute(
        "SET SESSION sql_log_bin = 0",
        "INSERT INTO events VALUES (50, 'unseen', 0), (51, 'unseen', 0)",
        "SET SESSION sql_log_bin = 1",
        "BEGIN",
        "INSERT INTO events VALUES (60, 'seen', 0)",
        "UPDATE events SET n = n + 1",
        "COMMIT",
    )
    with capture_logs() as logs:
        replica.catch_up()
    [told] = [entry for entry in logs if entry["event"] == "replica.rows_missing"]
    assert (told["table"], told["rows"]) == ("events", 2)
    assert replica.assert_equal() == 11


@pytest.mark.parametrize("image", ["FULL", "MINIMAL", "NOBLOB"])
def test_a_transaction_in_parts_that_touches_each_key_several_times(
    database: Database, replica_factory: Start, image: str
) -> None:
    database.execute(*TABLES)
    replica = replica_factory(database.url, unindexed_tables="*", batch_size=5).start()
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute(f"SET SESSION binlog_row_image = {image}")
        cursor.execute("BEGIN")
        for i in range(10, 40):
            cursor.execute("INSERT INTO events VALUES (%s, 'first', %s)", (i, i))
        cursor.execute("UPDATE events SET n = n + 1 WHERE id >= 20")
        cursor.execute("DELETE FROM events WHERE id BETWEEN 15 AND 25")
        for i in range(15, 20):
            cursor.execute("INSERT INTO events VALUES (%s, 'second', %s)", (i, -i))
        cursor.execute("UPDATE events SET id = id + 1000, note = 'moved' WHERE id IN (15, 30, 31)")
        cursor.execute("UPDATE event_tags SET event = event + 1 ORDER BY event DESC")
        cursor.execute("COMMIT")
    replica.catch_up()
    assert replica.assert_equal() == 32
    assert replica.pipeline.status().errors == 0


def test_schema_changes_leave_tables_without_it(database: Database, replica_factory: Start) -> None:
    database.execute(*TABLES)
    replica = replica_factory(database.url, unindexed_tables="*").start()
    database.execute(
        "ALTER TABLE events ADD COLUMN extra INT DEFAULT 5 FIRST",
        "UPDATE events SET extra = 6 WHERE id = 1",
        "ALTER TABLE events MODIFY id DECIMAL(20,0)",
        "ALTER TABLE event_tags DROP PRIMARY KEY, ADD PRIMARY KEY (event, tag)",
        "ALTER TABLE event_tags DROP COLUMN weight",
        "INSERT INTO event_tags (event, tag) VALUES (3, 'q')",
        "ALTER TABLE users RENAME COLUMN id TO user_id",
        "UPDATE users SET user_id = user_id + 10",
        "ALTER TABLE events DROP PRIMARY KEY",
        "INSERT INTO events VALUES (5, 9, 'end', 9)",
    )
    replica.settle()
    assert replica.assert_equal() == 10
    assert indexed(replica) == set()
    assert replica.pipeline.validate("checksum").equal


def test_tables_made_beside_the_stream_follow_the_setting_and_renamed_ones_stay_as_they_are(
    database: Database, replica_factory: Start
) -> None:
    database.execute(*TABLES)
    replica = replica_factory(database.url, unindexed_tables="event*").start()
    database.execute(
        "CREATE TABLE event_log (id INT PRIMARY KEY, n INT)",
        "CREATE TABLE other (id INT PRIMARY KEY, n INT)",
        "CREATE TABLE users_like LIKE events",
        "CREATE TABLE events_like LIKE users",
        "INSERT INTO event_log VALUES (1, 1), (2, 2)",
        "INSERT INTO other VALUES (1, 1)",
        "INSERT INTO users_like VALUES (1, 'x', 1)",
        "INSERT INTO events_like (name) VALUES ('x')",
        "RENAME TABLE users TO event_users, event_log TO log",
        "UPDATE event_users SET name = 'Eve' WHERE id = 1",
        "UPDATE log SET n = 5 WHERE id = 1",
    )
    replica.catch_up()
    assert replica.assert_equal() == 13
    assert indexed(replica) == {"other", "users_like", "event_users"}
    replica.stop()
    with capture_logs() as logs:
        replica.start()
    [told] = [entry for entry in logs if entry["event"] == "copy.key_index_differs"]
    assert (told["tables"], sorted(told["first"])) == (2, ["event_users", "log"])
    assert replica.copies() == ["event_tags", "events", "users"]


def test_a_swap_with_a_table_that_has_it_leaves_each_what_it_has(
    database: Database, replica_factory: Start
) -> None:
    """As an online migration ends. Both go on in the stream, each applied as what it is."""
    database.execute(
        *TABLES,
        "CREATE TABLE shadow (id BIGINT PRIMARY KEY, note VARCHAR(20), n INT)",
        "INSERT INTO shadow SELECT * FROM events",
    )
    replica = replica_factory(database.url, unindexed_tables="events").start()
    assert indexed(replica) == {"event_tags", "shadow", "users"}
    database.execute(
        "RENAME TABLE events TO old, shadow TO events",
        "INSERT INTO events VALUES (9, 'i', 9)",
        "UPDATE events SET n = n + 1 WHERE id = 1",
        "UPDATE old SET id = id + 10, n = 5",
        "DELETE FROM old WHERE id = 11",
    )
    replica.catch_up()
    assert replica.assert_equal() == 11
    assert indexed(replica) == {"event_tags", "events", "users"}
    replica.stop()
    replica.start()
    database.execute("UPDATE events SET id = id + 100", "UPDATE old SET id = id + 100")
    replica.catch_up()
    assert replica.assert_equal() == 11
    assert replica.pipeline.status().errors == 0


def test_a_copy_joins_the_stream_under_load(database: Database, replica_factory: Start) -> None:
    with database.connect() as session:
        shop.create_tables(session)
        shop.fill_tables(session, rows=4_000)
    replica = replica_factory(database.url, unindexed_tables="*", copy_batch_rows=60, batch_size=200)
    with Load(database.url, rate=60, seed=31):
        replica.start()
        replica.pipeline.start_table_sync("orders", "full").wait(60)
        replica.pipeline.start_full_sync().wait(60)
    replica.settle()
    assert replica.assert_equal() > 4_000
    assert indexed(replica) == set()


def test_rows_that_differ_are_repaired(database: Database, replica_factory: Start) -> None:
    database.execute(*TABLES)
    replica = replica_factory(database.url, unindexed_tables="*").start()
    replica.pipeline._engine.writer.submit(
        lambda cursor: cursor.execute(
            "UPDATE events SET n = -1 WHERE id = 1; DELETE FROM events WHERE id = 2;"
            " INSERT INTO events VALUES (77, 'extra', 1)"
        )
    ).result()
    run = replica.pipeline.start_validation("checksum", repair=True)
    run.wait(60)
    replica.catch_up()
    assert replica.assert_equal() == 8
    assert replica.pipeline.validate("checksum").equal


def test_a_changed_setting_counts_when_a_table_is_copied(database: Database, replica_factory: Start) -> None:
    database.execute(*TABLES)
    before = replica_factory(database.url).start()
    before.stop()
    replica = replica_factory(database.url, unindexed_tables="events,users")
    with capture_logs() as logs:
        replica.start()
    [told] = [entry for entry in logs if entry["event"] == "copy.key_index_differs"]
    assert sorted(told["first"]) == ["events", "users"]
    assert indexed(replica) == {"events", "event_tags", "users"}
    database.execute("UPDATE events SET n = 100", "DELETE FROM users WHERE id = 1")
    replica.catch_up()
    assert replica.assert_equal() == 7
    replica.pipeline.start_table_sync("events", "full").wait(60)
    assert indexed(replica) == {"event_tags", "users"}
    database.execute("UPDATE events SET n = 200", "UPDATE users SET name = 'Eve'")
    replica.catch_up()
    assert replica.assert_equal() == 7
    replica.stop()
    again = replica_factory(database.url).start()
    again.pipeline.start_full_sync().wait(60)
    again.catch_up()
    assert indexed(again) == {"events", "event_tags", "users"}
    assert again.assert_equal() == 7


def test_rows_are_replaced_where_there_is_no_log(database: Database, polled: Start) -> None:
    database.execute(
        "CREATE TABLE events (id BIGINT PRIMARY KEY, n INT,"
        " updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),"
        " INDEX (updated_at))",
        "INSERT INTO events (id, n) VALUES (1, 1), (2, 2)",
    )
    replica = polled(unindexed_tables="*")
    replica.pipeline.start_full_sync().wait(60)
    assert indexed(replica) == set()
    for n in range(3):
        database.execute(
            f"UPDATE events SET n = n + 10 + {n}", f"INSERT INTO events (id, n) VALUES ({n + 10}, {n})"
        )
        replica.pipeline.start_incremental_sync().wait(60)
        assert replica.assert_equal() == 3 + n
    assert [table.state for table in replica.pipeline.status().tables] == [TableState.POLLING]
