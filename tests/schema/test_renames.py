"""Tables that wait for their copy and get a name that readers know: readers keep the name's last good rows.

A session locks the tables at the source, so that no copy gets on before what readers see was looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

import duckdb
import pytest

from cdc.replica.tables import STAGING_PREFIX
from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.installation import Flavor
from cdc.schema import quote_mysql
from cdc.status import TableState
from tests.replica import Replica, copied_tables, opened, source_tables
from tests.schema.equality import assert_same
from tests.waiting import wait_until

EVERYWHERE = bool(os.environ.get("DUCKLING_EXAMPLES"))
pytestmark = pytest.mark.timeout(90)

TABLES = (
    "CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(20))",
    "INSERT INTO a VALUES (1, 'a')",
    "CREATE TABLE b (id INT PRIMARY KEY, v VARCHAR(20))",
    "INSERT INTO b VALUES (2, 'b')",
    "CREATE TABLE ghost (id INT PRIMARY KEY, v VARCHAR(20))",
    "INSERT INTO ghost VALUES (3, 'stale')",
    "CREATE TABLE _hidden (id INT PRIMARY KEY, v VARCHAR(20))",
    "INSERT INTO _hidden VALUES (4, 'hidden')",
)
BEFORE = (
    "INSERT INTO a VALUES (10, 'last')",
    "ALTER TABLE ghost MODIFY v VARCHAR(7)",  # narrower: it is copied again
    "INSERT INTO ghost VALUES (30, 'later')",
)
A_WAITS = "ALTER TABLE a MODIFY v VARCHAR(6)"

Row = tuple[object, ...]
Rows = dict[str, list[Row]]
A: list[Row] = [(1, "a"), (10, "last")]
B: list[Row] = [(2, "b")]
STALE: list[Row] = [(3, "stale")]

CASES: dict[str, tuple[list[str], Rows]] = {
    "swapped_in": (["RENAME TABLE a TO old, ghost TO a"], {"a": A, "b": B}),
    "swapped_in_and_the_old_one_dropped": (
        ["RENAME TABLE a TO old, ghost TO a", "DROP TABLE old"],
        {"a": A, "b": B},
    ),
    "swapped_in_for_one_that_is_not_chosen": (["RENAME TABLE a TO _old, ghost TO a"], {"a": A, "b": B}),
    "swapped_in_from_one_that_is_not_chosen": (
        ["RENAME TABLE a TO _old, _hidden TO a"],
        {"a": A, "b": B, "ghost": STALE},
    ),
    "both_change_places": (["RENAME TABLE a TO tmp, ghost TO a, tmp TO ghost"], {"a": A, "b": B, "ghost": STALE}),
    "a_chain_behind_it": (["RENAME TABLE b TO c, a TO b, ghost TO a"], {"a": A, "b": B}),
    "a_chain_of_which_only_the_end_waits": (
        [A_WAITS, "RENAME TABLE a TO c, b TO a"],
        {"a": B, "c": A, "ghost": STALE},
    ),
    "neither_streams": ([A_WAITS, "RENAME TABLE a TO old, ghost TO a"], {"a": A, "b": B}),
    "neither_streams_and_both_change_places": (
        [A_WAITS, "RENAME TABLE a TO tmp, ghost TO a, tmp TO ghost"],
        {"a": A, "b": B, "ghost": STALE},
    ),
    "swapped_in_and_back": (
        ["RENAME TABLE a TO old, ghost TO a", "RENAME TABLE a TO ghost, old TO a"],
        {"a": A, "b": B},
    ),
    "swapped_in_twice": (
        [
            "RENAME TABLE a TO old, ghost TO a",
            "CREATE TABLE next LIKE a",
            "INSERT INTO next VALUES (5, 'next')",
            "RENAME TABLE a TO older, next TO a",
        ],
        {"a": A, "b": B},
    ),
    "in_two_statements": (["RENAME TABLE a TO old", "RENAME TABLE ghost TO a"], {"old": A, "b": B}),
    "behind_a_drop": (["DROP TABLE a", "RENAME TABLE ghost TO a"], {"b": B}),
    "to_and_fro_in_one_statement": (
        ["RENAME TABLE a TO tmp, tmp TO a, ghost TO z, z TO ghost"],
        {"a": A, "b": B, "ghost": STALE},
    ),
    "two_that_stream_change_places": (
        ["RENAME TABLE a TO _tmp, b TO a, _tmp TO b", "INSERT INTO b VALUES (11, 'more')"],
        {"a": B, "b": [*A, (11, "more")], "ghost": STALE},
    ),
    "three_in_a_ring": (
        ["RENAME TABLE a TO x, b TO a, ghost TO b, x TO ghost"],
        {"a": A, "b": B, "ghost": STALE},
    ),
}  # fmt: skip


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """No table of the database can be read by others."""
    with closing(database.connect()) as session, session.cursor() as cursor:
        names = ", ".join(f"{quote_mysql(name)} WRITE" for name in sorted(source_tables(database.url)))
        cursor.execute(f"LOCK TABLES {names}")
        yield


def readable(copy: duckdb.DuckDBPyConnection) -> Rows:
    """All that readers see, but for the table that marks the end."""
    return {
        name: sorted(copy.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
        for name in copied_tables(copy)
        if not name.startswith(STAGING_PREFIX) and name != "marker"
    }


def follow(database: Database, replica: Replica, statements: list[str]) -> Rows:
    """Carries the statements out with the replica stopped; what readers see when it has passed them, copies
    held up."""
    replica.stop()
    database.execute(*statements, "CREATE TABLE marker (id INT PRIMARY KEY)")
    with locked(database):
        replica.start(live=False)
        wait_until(
            lambda: replica.rows("SELECT 1 FROM _duckling.table_states WHERE table_name = 'marker'"),
            "the changes are carried out",
        )
        with closing(replica.pipeline.reader()) as copy:
            return readable(copy)


def assert_equal(replica: Replica, database: Database) -> None:
    replica.settle()
    replica.assert_equal(without=[name for name in source_tables(database.url) if name.startswith("_")])


def cases() -> Iterator[object]:
    """Each case on one of both servers in turn; with DUCKLING_EXAMPLES on both."""
    flavors = list(Flavor)
    for number, case in enumerate(CASES):
        for flavor in flavors if EVERYWHERE else [flavors[number % len(flavors)]]:
            yield pytest.param(flavor, case, id=f"{flavor}-{case}")


@pytest.mark.parametrize(("server", "case"), list(cases()), indirect=["server"])
def test_a_name_keeps_its_last_good_rows_until_a_table_that_streams_takes_it(
    database: Database, replica_factory: Callable[..., Replica], case: str
) -> None:
    statements, expected = CASES[case]
    database.execute(*TABLES)
    replica = replica_factory(database.url, excluded_tables=["_*"]).start()
    seen = follow(database, replica, [*BEFORE, *statements])
    assert seen == {name: sorted(rows, key=repr) for name, rows in expected.items()}
    assert_equal(replica, database)
    database.execute("INSERT INTO a (id) VALUES (99)")
    assert_equal(replica, database)


@pytest.mark.parametrize("name", ["z", "A"])
def test_a_table_that_does_not_stream_shows_its_last_rows_under_a_name_that_nobody_knew(
    database: Database, replica_factory: Callable[..., Replica], name: str
) -> None:
    database.execute("CREATE TABLE a (id INT PRIMARY KEY, d DATE)", "INSERT INTO a VALUES (1, '2024-01-01')")
    replica = replica_factory(database.url, zero_dates="error").start()
    seen = follow(
        database,
        replica,
        [
            "SET SESSION sql_mode = ''",
            "INSERT INTO a VALUES (2, '0000-00-00')",
            f"RENAME TABLE a TO {name}",
            f"DELETE FROM {name} WHERE id = 2",
            f"INSERT INTO {name} VALUES (3, NULL)",
        ],
    )
    assert seen == {name: [(1, date(2024, 1, 1))]}
    replica.settle()
    replica.assert_equal()


def test_a_table_of_another_schema_takes_a_name_when_it_is_copied(
    database: Database, replica: Replica
) -> None:
    database.execute(*TABLES)
    replica.start()
    other = create_database(database.server)
    try:
        seen = follow(
            database,
            replica,
            [
                f"CREATE TABLE `{other.name}`.a (id INT PRIMARY KEY, w INT)",
                f"INSERT INTO `{other.name}`.a VALUES (7, 7)",
                f"RENAME TABLE a TO `{other.name}`.gone, `{other.name}`.a TO a",
                f"RENAME TABLE b TO `{other.name}`.b",
                f"RENAME TABLE `{other.name}`.b TO b",
            ],
        )
        assert seen == {"a": [(1, "a")], "ghost": STALE, "_hidden": [(4, "hidden")]}
        replica.settle()
    finally:
        other.drop()
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)
        assert readable(copy)["a"] == [(7, 7)]


def test_a_service_that_ends_behind_the_swap_copies_both_names_when_it_is_back(
    database: Database, replica: Replica
) -> None:
    database.execute(*TABLES)
    replica.start()
    follow(database, replica, [*BEFORE, "RENAME TABLE a TO old, ghost TO a"])
    replica.stop()
    with opened(Path(replica.path)) as copy:
        assert readable(copy)["a"] in (A, [(3, "stale"), (30, "later")])
    replica.start(live=False).settle()
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)


def test_a_table_that_is_being_copied_under_its_old_name_does_not_go_live_under_the_new_one(
    database: Database, replica: Replica
) -> None:
    database.execute(*TABLES)
    replica.start()
    with closing(database.connect()) as session, session.cursor() as cursor:
        cursor.execute("ALTER TABLE ghost MODIFY v VARCHAR(7)")
        # The copy of the ghost waits for this lock, in its snapshot; the rename comes while it does.
        cursor.execute("LOCK TABLES ghost WRITE, a WRITE")
        cursor.execute("INSERT INTO ghost VALUES (31, 'more')")
        wait_until(
            lambda: any(
                table.table == "ghost" and table.state is not TableState.STREAMING
                for table in replica.pipeline.status().tables
            ),
            "the ghost leaves the stream",
        )
        wait_until(lambda: replica.pipeline.current_run() is not None, "the copy begins")
        cursor.execute("UNLOCK TABLES")
        cursor.execute("RENAME TABLE a TO old, ghost TO a")
        cursor.execute("INSERT INTO a VALUES (32, 'new')")
    replica.settle()
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)


def test_a_pending_table_whose_name_differs_by_case_only_takes_no_other_table_with_it(
    database: Database, replica: Replica
) -> None:
    """DuckDB takes both names for one, so only the first of them is in the copy."""
    database.execute(*TABLES)
    replica.start()
    database.execute(
        "CREATE TABLE A (id INT PRIMARY KEY)",
        "INSERT INTO A VALUES (1)",
        "RENAME TABLE A TO `AA`",
        "CREATE TABLE B (id INT PRIMARY KEY)",
        "DROP TABLE B",
    )
    replica.settle()
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)
