"""The stream: whatever a session commits at the source stands in the copy, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.sandbox import shop
from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.load import Load
from cdc.status import TableState
from tests.replica import Replica
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(90)

PARTS = {"whole": {}, "in_parts": {"batch_size": 3}}
"""Settings under which transactions are applied whole, and in parts of few rows."""


@pytest.fixture(params=PARTS.values(), ids=list(PARTS))
def follower(
    request: pytest.FixtureRequest, database: Database, replica_factory: Callable[..., Replica]
) -> Replica:
    """A replica, not started yet, that applies transactions whole, and one that applies them in parts."""
    return replica_factory(database.url, **request.param)


@pytest.fixture
def small_shop(database: Database) -> Database:
    connection = database.connect()
    shop.create_tables(connection)
    shop.fill_tables(connection, rows=3_000)
    return database


@pytest.mark.parametrize("batch_size", [50_000, 20])
def test_a_mixed_load_leaves_both_sides_equal(
    small_shop: Database, replica_factory: Callable[..., Replica], batch_size: int
) -> None:
    replica = replica_factory(small_shop.url, batch_size=batch_size).start()
    with Load(small_shop.url, rate=0, seed=3) as load:
        load.wait_for(500)
    replica.catch_up()
    assert replica.assert_equal() > 2_000
    status = replica.pipeline.status()
    assert status.reconnects == 0
    assert min(status.inserts, status.updates, status.deletes) > 0


NUMBERS = (
    "CREATE TABLE numbers (id INT PRIMARY KEY, v VARCHAR(20), u INT UNIQUE)",
    "INSERT INTO numbers VALUES (1,'one',10),(2,'two',20),(3,'three',30),(4,'four',40),(5,NULL,NULL)",
    "CREATE TABLE pairs (a INT, b VARCHAR(10), n INT, PRIMARY KEY (a, b))",
    "INSERT INTO pairs VALUES (1,'x',1),(1,'y',2),(2,'x',3),(2,'y',4)",
)

KEY_CHANGES = {
    "each_key_moves_one_up": ["UPDATE numbers SET id = id + 1 ORDER BY id DESC"],
    "each_key_moves_one_down": ["UPDATE numbers SET id = id - 1 ORDER BY id"],
    "there_and_back": [
        "UPDATE numbers SET id = id + 1 ORDER BY id DESC",
        "UPDATE numbers SET id = id - 1 ORDER BY id",
    ],
    "two_keys_change_places": [
        "UPDATE numbers SET id = 0 WHERE id = 1",
        "UPDATE numbers SET id = 1 WHERE id = 2",
        "UPDATE numbers SET id = 2 WHERE id = 0",
    ],
    "a_key_moves_on_and_on": [f"UPDATE numbers SET id = {n + 1} WHERE id = {n}" for n in range(5, 15)],
    "a_key_moves_away_and_another_row_takes_it": [
        "UPDATE numbers SET id = 9 WHERE id = 3",
        "INSERT INTO numbers VALUES (3, 'new', 99)",
        "UPDATE numbers SET v = 'changed' WHERE id IN (3, 9)",
    ],
    "a_part_of_a_composite_key_moves": [
        "UPDATE pairs SET b = 'z' WHERE b = 'y'",
        "UPDATE pairs SET a = a + 1 ORDER BY a DESC",
    ],
    "a_moved_row_is_deleted": [
        "UPDATE numbers SET id = 8 WHERE id = 1",
        "DELETE FROM numbers WHERE id = 8",
    ],
}


@pytest.mark.parametrize("statements", KEY_CHANGES.values(), ids=KEY_CHANGES)
def test_rows_move_with_their_keys(database: Database, follower: Replica, statements: list[str]) -> None:
    database.execute(*NUMBERS)
    follower.start()
    transaction(database, *statements)
    follower.catch_up()
    follower.assert_equal()
    database.execute("UPDATE numbers SET v = 'later', u = NULL")
    follower.catch_up()
    follower.assert_equal()


def transaction(database: Database, *statements: str, end: str = "COMMIT") -> None:
    """Runs the statements in one transaction."""
    database.execute("BEGIN", *statements, end)


def test_inserts_that_replace_or_update_are_applied_as_they_ended(
    database: Database, follower: Replica
) -> None:
    database.execute(*NUMBERS)
    follower.start()
    database.execute(
        "REPLACE INTO numbers VALUES (1, 'again', 10), (6, 'six', 60)",
        "REPLACE INTO numbers VALUES (7, 'takes 20 and 30', 20)",
        "REPLACE INTO numbers VALUES (7, 'takes 30', 30), (8, 'takes it too', 30)",
        "INSERT INTO numbers VALUES (1, 'x', 11) ON DUPLICATE KEY UPDATE v = 'met', u = u + 1",
        "INSERT INTO numbers VALUES (70, 'x', 40) ON DUPLICATE KEY UPDATE id = 71, v = 'moved'",
        "INSERT IGNORE INTO numbers VALUES (1, 'ignored', 1), (90, 'taken', 90)",
        "INSERT INTO numbers SELECT id + 100, v, NULL FROM numbers",
        "REPLACE INTO pairs SELECT a, b, n * 10 FROM (SELECT * FROM pairs) p",
    )
    follower.catch_up()
    assert follower.assert_equal() > 10


def test_only_what_is_committed_is_applied(database: Database, follower: Replica) -> None:
    database.execute(*NUMBERS)
    follower.start()
    changes = ("INSERT INTO numbers VALUES (50, 'no', 50)", "DELETE FROM numbers WHERE id < 4")
    transaction(database, *changes, "UPDATE pairs SET n = 0", end="ROLLBACK")
    transaction(
        database,
        "INSERT INTO numbers VALUES (10, 'stays', NULL)",
        "SAVEPOINT a",
        "INSERT INTO numbers VALUES (11, 'goes', NULL)",
        "UPDATE pairs SET n = -1",
        "SAVEPOINT `b c`",
        "DELETE FROM numbers",
        "ROLLBACK TO `b c`",
        "ROLLBACK TO SAVEPOINT a",
        "UPDATE numbers SET v = 'stays too' WHERE id = 2",
        "SAVEPOINT a",
        "INSERT INTO numbers VALUES (12, 'stays as well', NULL)",
        "RELEASE SAVEPOINT a",
    )
    follower.catch_up()
    follower.assert_equal()
    assert follower.value("SELECT count(*) FROM numbers WHERE id BETWEEN 10 AND 12") == 2


def test_rows_that_come_and_go_within_a_transaction_leave_what_they_leave(
    database: Database, follower: Replica
) -> None:
    database.execute(*NUMBERS)
    follower.start()
    transaction(
        database,
        "DELETE FROM numbers WHERE id = 1",
        "INSERT INTO numbers VALUES (1, 'reborn', 10), (20, 'brief', NULL)",
        "UPDATE numbers SET v = 'brief still' WHERE id = 20",
        "DELETE FROM numbers WHERE id = 20",
        "DELETE FROM numbers WHERE id = 2",
        "INSERT INTO numbers VALUES (2, 'a', 20)",
        "DELETE FROM numbers WHERE id = 2",
        "UPDATE numbers n JOIN pairs p ON p.a = n.id SET n.v = 'joined', p.n = p.n + 100",
        "DELETE n, p FROM numbers n JOIN pairs p ON p.a = n.id WHERE n.id = 1",
    )
    follower.catch_up()
    follower.assert_equal()
    assert follower.rows("SELECT a FROM pairs ORDER BY a") == [(2,), (2,)]


def test_keys_that_differ_by_case_only_are_the_key_that_the_source_takes_them_for(
    database: Database, follower: Replica
) -> None:
    database.execute(
        "CREATE TABLE folded (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT)",
        "CREATE TABLE exact (k VARCHAR(20) COLLATE utf8mb4_bin PRIMARY KEY, n INT)",
        "INSERT INTO folded VALUES ('a', 1), ('b', 2), ('ü', 3), ('pad', 4)",
        "INSERT INTO exact VALUES ('a', 1), ('A', 2)",
    )
    follower.start()
    database.execute(
        "UPDATE folded SET k = 'A' WHERE k = 'a'",
        "REPLACE INTO folded VALUES ('B', 20)",
        "UPDATE folded SET n = 30 WHERE k = 'U'",
        "INSERT INTO folded VALUES ('PAD', 0) ON DUPLICATE KEY UPDATE n = 40, k = 'Pad'",
        "UPDATE exact SET n = n + 10 WHERE k = 'A'",
        "DELETE FROM exact WHERE k = 'a'",
        "INSERT INTO exact VALUES ('a', 5)",
    )
    transaction(database, "DELETE FROM folded WHERE k = 'b'", "INSERT INTO folded VALUES ('b', 21)")
    follower.catch_up()
    follower.assert_equal()
    assert follower.rows("SELECT k, n FROM folded ORDER BY k") == [
        ("A", 1),
        ("Pad", 40),
        ("b", 21),
        ("ü", 30),
    ]


def test_of_equal_rows_without_a_key_only_as_many_change_as_changed_at_the_source(
    database: Database, follower: Replica
) -> None:
    database.execute(
        "CREATE TABLE bag (n INT, x DOUBLE, f FLOAT, t VARCHAR(9), j JSON, b BLOB, at TIMESTAMP(6) NULL)",
        "CREATE TABLE nothing (a INT, b TEXT)",
    )
    row = "(1, 0.1, 1.1, NULL, '{\"a\": [1, null]}', x'00', '2024-02-29 12:00:00.5')"
    database.execute(
        f"INSERT INTO bag VALUES {row}, {row}, {row}", "INSERT INTO nothing VALUES (NULL, NULL), (NULL, NULL)"
    )
    follower.start()
    database.execute("DELETE FROM bag LIMIT 1")
    follower.catch_up()
    assert follower.value("SELECT count(*) FROM bag") == 2
    database.execute(
        "UPDATE bag SET t = 'one' LIMIT 1",
        f"INSERT INTO bag VALUES {row}, {row}, (NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        "UPDATE bag SET x = -0.5, f = 3.4e38 WHERE t IS NULL AND n = 1 LIMIT 2",
        "DELETE FROM nothing LIMIT 1",
        "DELETE FROM bag WHERE n IS NULL",
    )
    transaction(
        database,
        "UPDATE nothing SET b = 'x'",
        "INSERT INTO nothing SELECT * FROM nothing",
        "UPDATE nothing SET b = NULL LIMIT 1",
        "DELETE FROM nothing WHERE b = 'x' LIMIT 1",
        "INSERT INTO nothing VALUES (NULL, NULL)",
        "INSERT INTO nothing SELECT * FROM nothing",
    )
    follower.catch_up()
    assert follower.assert_equal() == 8
    assert follower.value("SELECT count(*) FROM nothing") == 4


def test_an_engine_without_transactions_is_followed_too(database: Database, replica: Replica) -> None:
    database.execute("CREATE TABLE plain (id INT PRIMARY KEY, v VARCHAR(9)) ENGINE=MyISAM")
    replica.start()
    database.execute(
        "INSERT INTO plain VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "UPDATE plain SET v = 'z' WHERE id > 1",
        "DELETE FROM plain WHERE id = 3",
    )
    replica.catch_up()
    assert replica.assert_equal() == 2


def test_rows_larger_than_a_packet_of_the_protocol_arrive_whole(database: Database, replica: Replica) -> None:
    database.execute("CREATE TABLE files (id INT PRIMARY KEY, a LONGBLOB, b LONGBLOB)")
    replica.start()
    # More than 2^24 bytes in one event, and rows before and behind it.
    half = "REPEAT('0123456789abcdef', 600000)"
    database.execute(
        "INSERT INTO files VALUES (1, 'small', NULL)",
        f"INSERT INTO files VALUES (2, {half}, {half})",
        "UPDATE files SET a = CONCAT(a, id)",
    )
    replica.catch_up()
    assert replica.assert_equal() == 2
    assert replica.value("SELECT octet_length(a) FROM files WHERE id = 2") == 9_600_001
    database.execute("FLUSH BINARY LOGS")


def test_the_stream_goes_on_over_the_end_of_a_log_file(small_shop: Database, replica: Replica) -> None:
    replica.start()
    with Load(small_shop.url, rate=0, seed=4) as load:
        for step in range(5):
            load.wait_for(60 * (step + 1))
            small_shop.execute("FLUSH BINARY LOGS")
    small_shop.execute("FLUSH BINARY LOGS", "FLUSH BINARY LOGS")
    replica.catch_up()
    replica.assert_equal()
    assert replica.pipeline.status().reconnects == 0


def saved_position(replica: Replica) -> tuple[str, int, str]:
    """File, offset and GTIDs as the copy has them."""
    [row] = replica.rows("SELECT filename, position, gtid FROM _duckling.cdc_binlog_position")
    file, offset, gtid = row
    return str(file), int(offset), str(gtid)


def test_transactions_that_are_not_ours_move_the_saved_position(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute("CREATE TABLE ours (id INT PRIMARY KEY)", "CREATE TABLE left_out (id INT PRIMARY KEY)")
    replica = replica_factory(
        database.url, excluded_tables="left_out", position_interval=0.1, heartbeat_seconds=0.2
    ).start()
    other = create_database(database.server)
    try:
        other.execute("CREATE TABLE theirs (id INT PRIMARY KEY)")
        before = saved_position(replica)
        other.execute("INSERT INTO theirs VALUES (1)")
        wait_until(lambda: saved_position(replica)[2] != before[2], "another schema's change moves it")
        before = saved_position(replica)
        database.execute("INSERT INTO left_out VALUES (1)")
        wait_until(lambda: saved_position(replica)[2] != before[2], "an excluded table's change moves it")
        other.execute("FLUSH BINARY LOGS")
        wait_until(lambda: saved_position(replica)[0] > before[0], "a new log file moves it")
        assert replica.assert_equal(without=["left_out"]) == 0
        assert replica.pipeline.status().inserts == 0
    finally:
        other.drop()


def test_a_stopped_replica_goes_on_from_where_it_ended_without_a_copy(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(*NUMBERS)
    first = replica_factory(database.url).start()
    database.execute("INSERT INTO numbers VALUES (6, 'while up', NULL)")
    first.catch_up()
    first.stop()
    database.execute("INSERT INTO numbers VALUES (7, 'while down', NULL)", "DELETE FROM pairs WHERE a = 1")
    second = replica_factory(database.url).start()
    second.catch_up()
    second.assert_equal()
    status = second.pipeline.status()
    assert (status.inserts, status.updates, status.deletes) == (1, 0, 2)
    assert {table.state for table in status.tables} == {TableState.STREAMING}
    assert sorted(map(str, second.copies())) == ["numbers", "pairs"]


def test_a_stream_that_was_stopped_goes_on_without_a_gap(database: Database, replica: Replica) -> None:
    database.execute(*NUMBERS)
    replica.start()
    for round_ in range(3):
        replica.pipeline.stop_stream()
        database.execute(f"INSERT INTO numbers VALUES ({100 + round_}, 'meanwhile', NULL)")
        assert replica.value("SELECT max(id) FROM numbers") == (5 if round_ == 0 else 99 + round_)
        replica.pipeline.start_stream()
        replica.wait_live()
        replica.catch_up()
        replica.assert_equal()


def test_source_and_copy_are_counted_at_one_position_under_load(
    small_shop: Database, replica: Replica
) -> None:
    replica.start()
    with Load(small_shop.url, rate=0, seed=5) as load:
        for step in range(5):
            load.wait_for(50 * (step + 1))
            report = replica.pipeline.validate("count")
            assert report.equal, report.results
            assert len(report.results) == len(shop.TABLES)
    replica.catch_up()
    replica.assert_equal()
