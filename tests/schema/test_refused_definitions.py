"""Definitions that could be read from the statement, and still are left to the copy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest

from cdc.replica.schema_history import Outcome, read_changes
from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import Server
from cdc.status import TableState
from tests.replica import Replica
from tests.schema.equality import assert_same
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


def states(replica: Replica) -> dict[str, TableState]:
    return {table.table: table.state for table in replica.pipeline.status().tables}


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE log (v INT) ENGINE = MyISAM"],
        [
            "CREATE TABLE log (id INT DEFAULT 0 PRIMARY KEY, v INT) ENGINE = MyISAM",
            "ALTER TABLE log DROP PRIMARY KEY",
        ],
        ["CREATE TABLE log (id INT, v INT)", "ALTER TABLE log ENGINE = MyISAM"],
    ],
    ids=["created", "key_dropped", "engine_changed"],
)
def test_a_table_without_key_and_transactions_is_refused_by_name_until_it_has_a_key(
    database: Database, replica: Replica, statements: list[str]
) -> None:
    database.execute("CREATE TABLE a (id INT PRIMARY KEY)")
    replica.start()
    database.execute(*statements)
    wait_until(lambda: states(replica).get("log") is TableState.ERRORED, "the table is set aside")
    [told] = [table for table in replica.pipeline.status().tables if table.table == "log"]
    assert told.reason is not None
    assert told.hint is not None
    database.execute(
        "INSERT INTO a VALUES (1)", "INSERT INTO log (v) VALUES (1)", "INSERT INTO log (v) VALUES (1)"
    )
    replica.catch_up()
    assert states(replica) == {"a": TableState.STREAMING, "log": TableState.ERRORED}
    database.execute("ALTER TABLE log ADD COLUMN k INT AUTO_INCREMENT PRIMARY KEY")
    replica.settle()
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)


def test_where_the_server_folds_names_every_spelling_is_the_same_table(
    server_factory: Callable[..., Server], replica_factory: Callable[..., Replica]
) -> None:
    database = create_database(server_factory(Flavor.MARIADB, "--lower-case-table-names=1"))
    database.execute("CREATE TABLE Alpha (id INT PRIMARY KEY, v INT)", "INSERT INTO ALPHA VALUES (1, 1)")
    replica = replica_factory(database.url).start()
    database.execute(
        "CREATE TABLE Beta (id INT PRIMARY KEY)",
        "INSERT INTO bEta VALUES (2)",
        "ALTER TABLE ALPHA ADD COLUMN w INT DEFAULT 5",
        "RENAME TABLE Alpha TO Gamma, BETA TO Alpha",
        "INSERT INTO GAMMA VALUES (3, 3, 3)",
        "INSERT INTO alpha VALUES (4)",
        "CREATE TABLE Delta LIKE Gamma",
        "DROP TABLE DELTA",
        "CREATE TABLE plain (id INT PRIMARY KEY)",
        "INSERT INTO Plain VALUES (6)",
    )
    replica.settle()
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)
        changes = [(change.table, change.outcome) for change in reversed(read_changes(copy))]
    assert ("plain", Outcome.APPLIED) in changes
    assert ("ALPHA", Outcome.APPLIED) in changes or ("alpha", Outcome.APPLIED) in changes
