"""Validation: whatever differs is found, whatever is equal raises no alarm, also while both are written to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from cdc.errors import NotPossibleError
from cdc.sandbox import shop
from cdc.sandbox.databases import Database
from cdc.sandbox.installation import Flavor
from cdc.sandbox.load import Load
from cdc.status import RowDifference, TableComparison
from tests.replica import Replica
from tests.waiting import wait_until

pytestmark = pytest.mark.crossed

NUMBERS = 70_000
"""Rows of the large table: more than one span."""
VALIDATIONS = 50 if os.environ.get("FAULTS") == "all" else 8
"""Under load, one after another."""


def numbers_table(database: Database, count: int = NUMBERS) -> None:
    most = "cte_max_recursion_depth" if database.flavor is Flavor.MYSQL else "max_recursive_iterations"
    with database.connect().cursor() as cursor:
        cursor.execute(f"SET SESSION {most} = {count + 1}")
        cursor.execute(
            "CREATE TABLE numbers (id INT PRIMARY KEY, word VARCHAR(40), price DECIMAL(12,2), at DATETIME(6),"
            " flags SMALLINT UNSIGNED, data VARBINARY(300), ratio DOUBLE)"
        )
        cursor.execute(
            "INSERT INTO numbers WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n"
            f" WHERE i < {count}) SELECT i * 3, CONCAT('wörd ', i), i / 7, '2024-01-01' + INTERVAL i SECOND,"
            " i % 512, UNHEX(SHA2(i, 256)), i / 3e0 FROM n"
        )


def write(replica: Replica, *statements: str) -> None:
    """Changes the copy behind the stream's back."""

    def job(cursor: object) -> None:
        for statement in statements:
            cursor.execute(statement)  # type: ignore[attr-defined]

    replica.pipeline._engine.writer.submit(job).result()


def compared(replica: Replica, table: str) -> TableComparison:
    [result] = replica.pipeline.validate("checksum", table).results
    return result


def test_a_changed_bit_a_missing_and_an_extra_row_are_found_and_named(
    database: Database, replica: Replica
) -> None:
    numbers_table(database)
    replica.start()
    assert compared(replica, "numbers").matches
    for change, difference in (
        (
            "UPDATE numbers SET flags = xor(flags, 256) WHERE id = 30000",
            RowDifference("changed", {"id": "30000"}),
        ),
        ("DELETE FROM numbers WHERE id = 3", RowDifference("missing", {"id": "3"})),
        ("INSERT INTO numbers (id) VALUES (2000000)", RowDifference("extra", {"id": "2000000"})),
        ("INSERT INTO numbers (id) VALUES (-1)", RowDifference("extra", {"id": "-1"})),
    ):
        write(replica, change)
        found = compared(replica, "numbers")
        assert not found.matches
        assert difference in found.differences
    assert (found.missing, found.extra, found.changed, found.complete) == (1, 2, 1, True)
    assert (found.source_rows, found.replica_rows) == (NUMBERS, NUMBERS + 1)


@pytest.mark.parametrize(
    "change",
    [
        "word = word || ' '",
        "word = NULL",
        "word = ''",
        "price = price + 0.01",
        '"at" = "at" + to_microseconds(1)',
        "data = data || '\\x00'::BLOB",
        "ratio = -ratio",
        "ratio = ratio * (1 + 2.3e-16)",
    ],
)
def test_the_smallest_change_of_a_value_is_a_difference(
    change: str, database: Database, replica: Replica
) -> None:
    numbers_table(database, 500)
    replica.start()
    write(replica, f"UPDATE numbers SET {change} WHERE id = 300")
    found = compared(replica, "numbers")
    assert found.differences == (RowDifference("changed", {"id": "300"}),)


def test_an_empty_copy_and_an_empty_source_differ_in_every_row(database: Database, replica: Replica) -> None:
    numbers_table(database, 2_500)
    database.execute("CREATE TABLE emptied (id INT PRIMARY KEY)")
    replica.start()
    write(replica, "DELETE FROM numbers", "INSERT INTO emptied SELECT range FROM range(2500)")
    report = {each.table: each for each in replica.pipeline.validate("checksum").results}
    assert (report["numbers"].missing, report["numbers"].replica_rows) == (2_500, 0)
    assert (report["emptied"].extra, report["emptied"].source_rows) == (2_500, 0)


def test_rows_without_a_key_are_counted(database: Database, replica: Replica) -> None:
    database.execute(
        "CREATE TABLE visits (page VARCHAR(20), hits INT)",
        "INSERT INTO visits VALUES ('/', 1), ('/', 1), ('/', 1), ('/a', NULL)",
    )
    replica.start()
    assert compared(replica, "visits").matches
    write(replica, "INSERT INTO visits VALUES ('/', 1)")
    found = compared(replica, "visits")
    assert (found.missing, found.extra, found.changed) == (0, 1, 0)
    write(replica, "DELETE FROM visits WHERE page = '/'", "INSERT INTO visits VALUES ('/', 1)")
    found = compared(replica, "visits")
    assert (found.missing, found.extra, found.changed) == (2, 0, 0)


def test_keys_that_only_the_copy_tells_apart_are_found(database: Database, replica: Replica) -> None:
    database.execute(
        "CREATE TABLE words (word VARCHAR(20), n INT, PRIMARY KEY (word)) CHARACTER SET utf8mb4",
        "INSERT INTO words VALUES ('a', 1), ('b', 2)",
    )
    replica.start()
    write(replica, "UPDATE words SET word = 'A' WHERE word = 'a'")
    found = compared(replica, "words")
    assert list(found.differences) == [
        RowDifference("extra", {"word": "A"}),
        RowDifference("missing", {"word": "a"}),
    ]
    repaired(replica, "words")
    replica.assert_equal()


def test_names_that_checksums_use_themselves_are_names_like_others(
    database: Database, replica: Replica
) -> None:
    quoted = """`a "b" 'c' %s ``d```"""
    database.execute(
        f'CREATE TABLE {quoted} (d INT, k0 INT, k INT, `x y``"z` VARCHAR(9), digests INT, PRIMARY KEY (d, k0))',
        f"INSERT INTO {quoted} VALUES (1, 2, 3, 'x', 4), (2, 2, 3, 'y', 4)",
    )
    replica.start()
    name = """a "b" 'c' %s `d`"""
    assert compared(replica, name).matches
    write(replica, f"""UPDATE "{name.replace('"', '""')}" SET k = 0 WHERE d = 2""")
    assert compared(replica, name).differences == (RowDifference("changed", {"d": "2", "k0": "2"}),)
    repaired(replica, name)
    replica.assert_equal()


def test_what_is_no_text_at_the_source_raises_no_alarm(database: Database, replica: Replica) -> None:
    database.execute(
        "CREATE TABLE halves (id INT PRIMARY KEY, half VARCHAR(20) CHARACTER SET ucs2)",
        "INSERT INTO halves VALUES (1, x'D8000041'), (2, x'0041'), (3, x'DC00')",
    )
    replica.start()
    assert replica.value("SELECT half FROM halves WHERE id = 1") == "\ufffd\ufffd\ufffdA"
    assert compared(replica, "halves").matches
    write(replica, "UPDATE halves SET half = half || 'x' WHERE id = 1")
    assert compared(replica, "halves").differences == (RowDifference("changed", {"id": "1"}),)


def test_dates_that_the_calendar_lacks_raise_no_alarm(database: Database, replica: Replica) -> None:
    with database.connect(sql_mode="ALLOW_INVALID_DATES").cursor() as cursor:
        cursor.execute("CREATE TABLE days (id INT PRIMARY KEY, d DATE NOT NULL, t DATETIME NOT NULL)")
        cursor.execute(
            "INSERT INTO days VALUES (1, '0000-00-00', '0000-00-00'), (2, '2024-02-31', '2023-02-29 01:02:03'),"
            " (3, '2024-02-29', '1999-12-31 23:59:59'), (4, '2024-00-05', '0000-05-01')"
        )
    replica.start()
    assert replica.value("SELECT count(*) FROM days WHERE d IS NULL AND t IS NULL") == 3
    assert compared(replica, "days").matches


def test_under_load_many_validations_raise_no_alarm(database: Database, replica: Replica) -> None:
    shop.create_tables(database.connect())
    shop.fill_tables(database.connect(), rows=400)
    replica.start()
    with Load(database.url, rate=200, seed=21) as load:
        for step in range(VALIDATIONS):
            load.wait_for(4 * (step + 1))
            report = replica.pipeline.validate("checksum")
            assert report.equal, report.results
            assert report.at_one_position
            assert {each.table for each in report.results} == set(shop.TABLES)
    replica.catch_up()
    replica.assert_equal()


def test_a_difference_is_found_under_load_too(database: Database, replica: Replica) -> None:
    shop.create_tables(database.connect())
    shop.fill_tables(database.connect(), rows=400)
    numbers_table(database, 1_000)
    replica.start()
    write(replica, "UPDATE numbers SET word = upper(word) WHERE id = 300")
    with Load(database.url, rate=200, seed=22) as load:
        load.wait_for(20)
        report = replica.pipeline.validate("checksum")
    wrong = [each for each in report.results if not each.matches]
    assert [each.table for each in wrong] == ["numbers"]
    assert wrong[0].differences == (RowDifference("changed", {"id": "300"}),)


def test_a_table_that_is_set_aside_is_not_said_to_match(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    database.execute(
        "CREATE TABLE fine (id INT PRIMARY KEY)",
        "CREATE TABLE days (id INT PRIMARY KEY, d DATE)",
        "INSERT INTO fine VALUES (1)",
    )
    replica = replica_factory(database.url, zero_dates="error").start()
    with database.connect(sql_mode="").cursor() as cursor:
        cursor.execute("INSERT INTO days VALUES (1, '0000-00-00')")
    wait_until(lambda: any(t.state == "errored" for t in replica.pipeline.status().tables), "it is set aside")
    replica.pipeline.wait_streaming(30)
    fine = {each.table: each for each in replica.pipeline.validate("count").results}
    assert fine["fine"].matches
    assert not fine["days"].matches
    assert fine["days"].error is not None
    assert "errored" in fine["days"].error


# Repair ------------------------------------------------------------------------------------------------------


def repaired(replica: Replica, table: str | None = None) -> dict[str, TableComparison]:
    report = replica.pipeline.start_validation("checksum", table, repair=True).report(60)
    return {each.table: each for each in report.results}


def test_a_repair_writes_just_the_rows_that_differ_and_is_recorded(
    database: Database, replica: Replica
) -> None:
    numbers_table(database)
    replica.start()
    write(
        replica,
        "UPDATE numbers SET word = 'wrong' WHERE id = 30000",
        "DELETE FROM numbers WHERE id IN (3, 6)",
        "INSERT INTO numbers (id) VALUES (2000000)",
    )
    found = repaired(replica)["numbers"]
    assert not found.matches
    assert found.repair is not None
    assert (found.repair.rows, found.repair.copied_again) == (4, False)
    replica.assert_equal()
    entry = replica.pipeline.sync_log(1)[0]
    assert (entry.table, entry.sync_type, entry.records, entry.status) == ("numbers", "repair", 4, "success")


def test_a_table_without_a_key_is_repaired_by_a_copy(database: Database, replica: Replica) -> None:
    database.execute(
        "CREATE TABLE visits (page VARCHAR(20))", "INSERT INTO visits VALUES ('/'), ('/'), ('/a')"
    )
    replica.start()
    write(replica, "DELETE FROM visits WHERE page = '/'")
    found = repaired(replica)["visits"]
    assert found.repair is not None
    assert found.repair.copied_again
    replica.settle()
    replica.assert_equal()


def test_rows_that_change_all_the_time_are_repaired_to_what_they_are(
    database: Database, replica: Replica
) -> None:
    """A repair that wrote an image older or newer than its place would leave a row wrong at the end."""
    database.execute(
        "CREATE TABLE counters (id INT PRIMARY KEY, n BIGINT NOT NULL, word VARCHAR(20))",
        "INSERT INTO counters VALUES " + ", ".join(f"({i}, 0, 'x')" for i in range(200)),
    )
    replica.start()
    over = threading.Event()
    rounds = 0

    def change() -> None:
        nonlocal rounds
        with database.connect() as connection, connection.cursor() as cursor:
            while not over.is_set():
                rounds += 1
                cursor.execute(f"UPDATE counters SET n = n + 1 WHERE id % 3 = {rounds % 3}")
                cursor.execute(f"DELETE FROM counters WHERE id = {rounds % 200}")
                cursor.execute(f"INSERT INTO counters VALUES ({rounds % 200}, {rounds}, 'new')")

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for attempt in range(12):
            before = rounds
            write(
                replica,
                "UPDATE counters SET word = 'wrong' WHERE id % 7 = 1",
                "DELETE FROM counters WHERE id % 50 = 2",
            )
            wait_until(lambda past=before: rounds > past + 3, "the source is written to")  # type: ignore[misc]
            repaired(replica)
            assert replica.pipeline.validate("checksum").equal, attempt
    finally:
        over.set()
        writer.join()
    replica.catch_up()
    replica.assert_equal()


def test_counts_alone_repair_nothing(database: Database, replica: Replica) -> None:
    numbers_table(database, 10)
    replica.start()
    with pytest.raises(NotPossibleError) as raised:
        replica.pipeline.start_validation("count", repair=True)
    assert raised.value.code == "REPAIR_NEEDS_CHECKSUM"
