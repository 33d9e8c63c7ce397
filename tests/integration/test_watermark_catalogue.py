"""Watermark sync while tables change: new, gone, emptied, swapped, or with a row that is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from cdc.errors import DucklingError
from cdc.sandbox.databases import Database
from cdc.status import TableState
from cdc.watermark import poll, questions
from cdc.watermark.choice import Followed
from cdc.watermark.questions import Answer
from cdc.watermark.source_session import SourceSession
from tests.integration.polling import ITEMS, sync
from tests.replica import Replica
from tests.waiting import SECONDS

pytestmark = [pytest.mark.timeout(90), pytest.mark.crossed]


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE items ADD COLUMN more INT DEFAULT 7",
        "ALTER TABLE items MODIFY note TEXT",
        "ALTER TABLE items DROP PRIMARY KEY, ADD PRIMARY KEY (id, note)",
        "ALTER TABLE items CHANGE updated_at changed_at TIMESTAMP(3) NULL",
        "DROP TABLE items",
        "RENAME TABLE items TO things",
        "CREATE TABLE fresh AS SELECT 1 AS one",
        "TRUNCATE TABLE items",
        "DELETE FROM items",
    ],
)
def test_a_changed_new_gone_or_emptied_table_is_noticed(
    database: Database, polled: Callable[..., Replica], statement: str
) -> None:
    database.execute(
        ITEMS,
        "CREATE TABLE other (id INT PRIMARY KEY, created_at DATE)",
        "INSERT INTO items VALUES (1, 'a', '2024-01-01'), (2, 'b', NULL)",
        "INSERT INTO other VALUES (1, '2024-01-01')",
    )
    replica = polled()
    sync(replica)
    database.execute(statement, "INSERT INTO other VALUES (2, '2024-01-02')")
    sync(replica)
    replica.assert_equal()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE items ADD COLUMN extra INT NOT NULL DEFAULT 7",
        "ALTER TABLE items DROP COLUMN note",
        "DROP TABLE others",
        "RENAME TABLE others TO elsewhere",
        "CREATE TABLE fresh (id INT PRIMARY KEY) SELECT 1 AS id",
    ],
)
def test_a_change_of_the_catalogue_in_the_middle_of_a_sync_loses_nothing(
    database: Database, polled: Callable[..., Replica], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Between the look at the catalogue and the questions."""
    database.execute(
        ITEMS,
        "CREATE TABLE others LIKE items",
        "INSERT INTO items VALUES (1, 'a', '2024-01-01'), (2, 'b', NULL)",
        "INSERT INTO others SELECT * FROM items",
    )
    replica = polled()
    sync(replica)
    sync(replica)
    database.execute("UPDATE items SET note = 'B', updated_at = NOW(3)")
    ask = questions.ask
    asked: list[object] = []

    def ask_behind_it(session: SourceSession, tables: Sequence[Followed]) -> dict[str, Answer]:
        asked.append(tables)
        if len(asked) == 1:
            session.end()  # its snapshot would keep the change waiting
            database.execute(change)
            session.begin()
        return ask(session, tables)

    monkeypatch.setattr(poll, "ask", ask_behind_it)
    sync(replica)
    sync(replica)
    assert asked
    replica.assert_equal()


def test_a_table_that_became_a_view_of_nothing_does_not_stand_in_the_others_way(
    database: Database, polled: Callable[..., Replica]
) -> None:
    database.execute(
        ITEMS,
        "CREATE TABLE others LIKE items",
        "CREATE TABLE gone LIKE items",
        "INSERT INTO items VALUES (1, 'a', '2024-01-01')",
    )
    replica = polled()
    sync(replica)
    sync(replica)
    database.execute(
        "DROP TABLE others",
        "CREATE VIEW others AS SELECT * FROM gone",
        "DROP TABLE gone",
        "INSERT INTO items VALUES (2, 'b', NOW(3))",
    )
    sync(replica)
    replica.assert_equal()


def test_a_table_swap_is_not_kept_waiting_by_syncs(
    database: Database, polled: Callable[..., Replica]
) -> None:
    """A rename locks both names; a sync that held one and waited for the other would block it, and itself."""
    database.execute(ITEMS, "INSERT INTO items VALUES (1, 'a', '2024-01-01')")
    replica = polled(included_tables=["items"])
    sync(replica)
    swaps = 20
    swapped = threading.Event()

    def swap() -> None:
        for _ in range(swaps):
            database.execute(
                "DROP TABLE IF EXISTS retired",
                "CREATE TABLE next LIKE items",
                "INSERT INTO next SELECT * FROM items",
                "RENAME TABLE items TO retired, next TO items",
            )
        swapped.set()

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        while not swapped.is_set():
            with suppress(DucklingError):  # MariaDB shows the moment between the two renames
                sync(replica)
    finally:
        swapping.join()
    sync(replica)
    assert replica.rows("SELECT id, note FROM items") == [(1, "a")]


def test_a_row_that_can_not_be_converted_sets_its_table_aside_alone(
    database: Database, polled: Callable[..., Replica]
) -> None:
    database.execute(
        "CREATE TABLE good (id INT PRIMARY KEY, updated_at DATETIME)",
        "CREATE TABLE poor (id INT PRIMARY KEY, day DATE, updated_at DATETIME)",
        "INSERT INTO good VALUES (1, '2024-01-01')",
        "INSERT INTO poor VALUES (1, '2024-01-01', '2024-01-01')",
    )
    replica = polled(zero_dates="error")
    sync(replica)
    connection = database.connect(sql_mode="")
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO poor VALUES (2, '2024-00-00', '2024-01-02')")
        cursor.execute("INSERT INTO good VALUES (2, '2024-01-02')")
    result = sync(replica)
    assert {each.table: each.status for each in result.tables} == {"good": "success", "poor": "error"}
    states = {each.table: each.state for each in replica.pipeline.status().tables}
    assert states == {"good": TableState.POLLING, "poor": TableState.ERRORED}
    assert replica.rows("SELECT id FROM good ORDER BY id") == [(1,), (2,)]
    assert replica.rows("SELECT id FROM poor") == [(1,)]
    with connection.cursor() as cursor:
        cursor.execute("UPDATE poor SET day = '2024-01-02' WHERE id = 2")
    assert replica.pipeline.start_table_sync("poor").wait(SECONDS).snapshots == 1
    replica.assert_equal()
