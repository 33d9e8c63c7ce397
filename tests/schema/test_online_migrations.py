"""gh-ost and pt-online-schema-change, under load: no reader sees anything but a state of the source."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from cdc.sandbox.databases import Database
from tests.replica import Replica
from tests.schema import ledger
from tests.schema.equality import assert_same
from tests.schema.ledger import Clerk, Readers
from tests.schema.online_migrations import GhOst, PtOsc

pytestmark = [
    pytest.mark.timeout(120),
    # mysql-replication calls PyMySQL by an argument's old name
    pytest.mark.filterwarnings("ignore:'db' is deprecated:DeprecationWarning"),
]

OLD = ("id", "owner", "balance", "note")
CHANGES = {
    "column_in_front_and_key_changed": (
        "ADD COLUMN generation INT NOT NULL DEFAULT 7 FIRST, DROP PRIMARY KEY, ADD PRIMARY KEY (id, generation)",
        OLD,
        ("generation", *OLD),
    ),
    "column_dropped_and_type_changed": (
        "DROP COLUMN note, MODIFY balance DECIMAL(30,2) NOT NULL, CONVERT TO CHARACTER SET utf16",
        OLD[:3],
        OLD[:3],
    ),
}


BOTH = [(tool, name) for tool in (GhOst, PtOsc) for name in CHANGES]
LIVE = BOTH if os.environ.get("DUCKLING_EXAMPLES") else [BOTH[0], BOTH[-1]]
"""With DUCKLING_EXAMPLES each tool makes each change; without it, one."""


@pytest.mark.parametrize(("tool", "change"), LIVE)
def test_a_table_that_is_migrated_online_is_always_whole(
    database: Database,
    replica: Replica,
    tool: type[GhOst | PtOsc],
    change: str,
) -> None:
    alter, shared, after = CHANGES[change]
    ledger.create(database)
    replica.start()
    with Clerk(database, 1).at_work() as clerk, Readers(replica).at_work() as readers:
        clerk.wait_for_more(10)
        tool(database, "ledger", alter, shared).migrate()
        clerk.wait_for_more(20)
        readers.wait_for_columns(after)
        clerk.wait_for_more(20)
        readers.wait_for_more()
    readers.assert_history([OLD, after])
    replica.settle()
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)


@pytest.mark.parametrize("tool", [GhOst, PtOsc])
def test_a_migration_in_the_backlog_is_followed_to_its_end(
    database: Database, replica: Replica, tool: type[GhOst | PtOsc]
) -> None:
    ledger.create(database)
    replica.start()
    replica.stop()
    # Slowly enough for the tool to catch up with it on any machine.
    with Clerk(database, 2, pause=0.02).at_work() as clerk:
        clerk.wait_for_more(10)
        for alter, shared, _ in CHANGES.values():
            migration = tool(database, "ledger", alter, shared)
            migration.migrate()
            clerk.wait_for_more(10)
    replica.start(live=False)
    with Readers(replica).at_work() as readers:
        replica.settle()
        readers.wait_for_more()
    readers.assert_history([OLD, ("generation", *OLD), ("generation", *OLD[:3])])
    with closing(replica.pipeline.reader()) as copy:
        assert_same(database.url, copy)
