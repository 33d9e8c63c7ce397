"""binlog_row_value_options = PARTIAL_JSON: the documents are those that SELECT prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cdc.sandbox.databases import Database, Host, create_database
from tests.replica import Replica

pytestmark = pytest.mark.timeout(90)

TABLES = (
    "CREATE TABLE docs (id INT PRIMARY KEY, j JSON, n INT, k JSON, t TEXT)",
    """INSERT INTO docs VALUES
    (1, '{"a": 1, "b": [1, 2, {"c": "x"}], "long key": "padding padding padding padding padding", "é": 1.50}',
     1, '[1, 2, 3, "a string that is long enough to make a partial update worth while"]', 'one'),
    (2, '{"a": {"b": {"c": {"d": [null, true, false]}}}, "z": "more padding, more padding, more padding"}',
     2, NULL, NULL),
    (3, NULL, 3, '{}', 'three')""",
    "CREATE TABLE keyless (j JSON, n INT)",
    """INSERT INTO keyless VALUES ('{"a": 1, "b": "padding padding padding padding padding"}', 1),
    ('{"a": 1, "b": "padding padding padding padding padding"}', 1)""",
)

CHANGES = (
    "UPDATE docs SET j = JSON_SET(j, '$.a', 'A', '$.b[1]', 2.5) WHERE id = 1",
    "UPDATE docs SET j = JSON_SET(j, '$.\"long key\"', 'quote \" and \\\\\\\\ and \\\\n', '$.é', -0.0) WHERE id = 1",
    "UPDATE docs SET j = JSON_REMOVE(j, '$.b[0]'), k = JSON_REMOVE(k, '$[1]', '$[1]') WHERE id = 1",
    "UPDATE docs SET j = JSON_SET(j, '$.bb', CAST('[1, {\"x\": 1e300}]' AS JSON), '$.aaa', NULL) WHERE id = 1",
    "UPDATE docs SET j = JSON_REPLACE(j, '$.b', 7), n = 70 WHERE id = 1",
    "UPDATE docs SET j = JSON_SET(j, '$.a.b.c.d[3]', 'four', '$.a.b.c.d[9]', 5) WHERE id = 2",
    "UPDATE docs SET j = JSON_SET(j, '$.z', CAST('2024-01-02 03:04:05.678' AS DATETIME(3))) WHERE id = 2",
    "UPDATE docs SET j = JSON_SET(j, '$.a.b.c.d[0]', CAST(1.10 AS DECIMAL(10,2))) WHERE id = 2",
    "UPDATE docs SET n = 33 WHERE id = 3",
    "UPDATE docs SET j = '[]' WHERE id = 3",
    "UPDATE docs SET j = JSON_SET(j, '$[0]', 1), k = JSON_SET(k, '$.\"with.dot and [0]\"', 'v') WHERE id = 3",
    "UPDATE docs SET k = JSON_SET(k, '$[0]', 'only the second document') WHERE id = 1",
    "UPDATE docs SET id = 9, j = JSON_SET(j, '$.a', 'moved') WHERE id = 1",
    "UPDATE docs SET j = JSON_SET(j, '$.a', 'A') WHERE id = 9",
)


@pytest.fixture
def mysql(mysql_server: Host) -> Iterator[Database]:
    made = create_database(mysql_server)
    made.execute(*TABLES)
    yield made
    made.drop()


@pytest.mark.parametrize("batch_size", [50_000, 1])
@pytest.mark.parametrize("in_one", [True, False], ids=["one_transaction", "one_by_one"])
@pytest.mark.parametrize("image", ["FULL", "MINIMAL", "NOBLOB"])
def test_partial_updates_of_json_give_the_documents_of_the_source(
    mysql: Database, replica_factory: Callable[..., Replica], image: str, in_one: bool, batch_size: int
) -> None:
    replica = replica_factory(mysql.url, batch_size=batch_size).start()
    with mysql.connect() as session, session.cursor() as cursor:
        cursor.execute(f"SET binlog_row_value_options = PARTIAL_JSON, binlog_row_image = {image}")
        if in_one:
            cursor.execute("BEGIN")
        for statement in CHANGES:
            cursor.execute(statement)
        cursor.execute("COMMIT")
    replica.catch_up()
    assert replica.assert_equal() == 5
    assert replica.pipeline.status().errors == 0


def test_partial_updates_reach_a_table_without_a_key(
    mysql: Database, replica_factory: Callable[..., Replica]
) -> None:
    replica = replica_factory(mysql.url).start()
    mysql.execute(
        "SET binlog_row_value_options = PARTIAL_JSON",
        "UPDATE keyless SET j = JSON_SET(j, '$.a', 2) LIMIT 1",
        "UPDATE keyless SET j = JSON_SET(j, '$.a', 3), n = 2 WHERE j->'$.a' = 2",
    )
    replica.catch_up()
    assert replica.assert_equal() == 5
    assert replica.pipeline.status().errors == 0
