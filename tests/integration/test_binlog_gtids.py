"""GTIDs with tags, of several servers and with gaps: the stream starts again where it ended."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.sandbox.databases import create_database
from cdc.sandbox.servers import Server
from tests.replica import Replica

pytestmark = pytest.mark.timeout(90)

OTHER = "11111111-2222-3333-4444-555555555555"


def test_tagged_gtids_are_followed_and_asked_for_after_a_restart(
    server_factory: Callable[..., Server], replica_factory: Callable[..., Replica]
) -> None:
    server = server_factory("mysql")
    database = create_database(server)
    database.execute(
        "CREATE TABLE t (id INT PRIMARY KEY)",
        "SET gtid_next = 'AUTOMATIC:before_the_copy'",
        "INSERT INTO t VALUES (1)",
    )
    replica = replica_factory(database.url).start()
    database.execute(
        "SET gtid_next = 'AUTOMATIC:mytag'",
        "INSERT INTO t VALUES (2), (3)",
        "DELETE FROM t WHERE id = 1",
        "SET gtid_next = 'AUTOMATIC'",
        "INSERT INTO t VALUES (4)",
    )
    replica.catch_up()
    assert replica.assert_equal() == 3
    position = replica.value("SELECT gtid FROM _duckling.cdc_binlog_position")
    assert ":mytag:1-2" in position
    assert ":before_the_copy:1" in position
    replica.stop()
    database.execute(
        "FLUSH BINARY LOGS",
        f"SET gtid_next = '{OTHER}:a_tag_of_some_more_letters_____:9223372036854775000'",
        "INSERT INTO t VALUES (5)",
        f"SET gtid_next = '{OTHER}:100'",
        "INSERT INTO t VALUES (6)",
        f"SET gtid_next = '{OTHER}:98'",
        "INSERT INTO t VALUES (7)",
        "SET gtid_next = 'AUTOMATIC:mytag'",
        "INSERT INTO t VALUES (8)",
    )
    replica.start()
    replica.catch_up()
    assert replica.assert_equal() == 7
    assert replica.pipeline.status().errors == 0
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("SELECT @@gtid_executed")
        executed = "".join(str(cursor.fetchone()[0]).split())
    assert replica.value("SELECT gtid FROM _duckling.cdc_binlog_position") == executed
