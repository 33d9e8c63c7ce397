"""Generated, invisible and hidden columns, and what the copy says about a column."""

from __future__ import annotations

from collections.abc import Callable

from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import Server
from tests.replica import Replica

Rows = list[tuple[object, ...]]


def both_ways(
    database: Database, replica: Replica, created: str, before: str, after: tuple[str, ...], query: str
) -> Rows:
    """The rows of `query` once table t was created, filled, copied, changed and streamed."""
    database.execute(created, before)
    replica.start()
    database.execute(*after)
    replica.catch_up()
    return replica.rows(query)


def test_generated_columns_are_kept_as_values_by_both_ways(database: Database, replica: Replica) -> None:
    rows = both_ways(
        database,
        replica,
        "CREATE TABLE t (id INT PRIMARY KEY, a INT, v INT GENERATED ALWAYS AS (a * 2) VIRTUAL,"
        " s VARCHAR(20) GENERATED ALWAYS AS (CONCAT('n', a)) STORED, z INT)",
        "INSERT INTO t (id, a, z) VALUES (1, 10, 1), (2, NULL, 2)",
        ("INSERT INTO t (id, a, z) VALUES (11, 10, 1), (12, NULL, 2)", "UPDATE t SET a = 7 WHERE id = 2"),
        "SELECT * FROM t ORDER BY id",
    )
    assert rows == [
        (1, 10, 20, "n10", 1),
        (2, 7, 14, "n7", 2),
        (11, 10, 20, "n10", 1),
        (12, None, None, None, 2),
    ]
    assert replica.assert_equal() == 4


def test_invisible_columns_are_columns_of_the_copy(database: Database, replica: Replica) -> None:
    rows = both_ways(
        database,
        replica,
        "CREATE TABLE t (id INT PRIMARY KEY, secret INT INVISIBLE DEFAULT 5, shown INT)",
        "INSERT INTO t (id, shown) VALUES (1, 1)",
        ("INSERT INTO t (id, secret, shown) VALUES (2, 6, 2)", "UPDATE t SET secret = 7 WHERE id = 1"),
        "SELECT id, secret, shown FROM t ORDER BY id",
    )
    assert rows == [(1, 7, 1), (2, 6, 2)]


def test_a_generated_invisible_primary_key_is_the_key(
    server_factory: Callable[..., Server], replica_factory: Callable[..., Replica]
) -> None:
    server = server_factory(
        Flavor.MYSQL,
        "--sql-generate-invisible-primary-key=ON",
        "--show-gipk-in-create-table-and-information-schema=OFF",
    )
    database = create_database(server)
    replica = replica_factory(database.url)
    rows = both_ways(
        database,
        replica,
        "CREATE TABLE t (a INT)",
        "INSERT INTO t VALUES (1), (1)",
        (
            "INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 2 WHERE my_row_id = 1",
            "DELETE FROM t WHERE my_row_id = 2",
        ),
        "SELECT my_row_id, a FROM t ORDER BY 1",
    )
    assert rows == [(1, 2), (3, 1)]
    key = "SELECT constraint_column_names FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'"
    key += " AND table_name = 't'"
    assert replica.rows(key) == [(["my_row_id"],)]


def test_hidden_columns_of_the_server_are_left_out(database: Database, replica: Replica) -> None:
    """MariaDB keeps a hash of a long unique key, MySQL a column for each functional index."""
    index = (
        "UNIQUE KEY (b)"
        if database.flavor is Flavor.MARIADB
        else "KEY ((LENGTH(b) + 1)), KEY ((CAST(j->'$[*]' AS UNSIGNED ARRAY)))"
    )
    rows = both_ways(
        database,
        replica,
        f"CREATE TABLE t (id INT PRIMARY KEY, j JSON, b TEXT, c INT, {index})",
        "INSERT INTO t VALUES (1, '[1, 2]', 'long', 1)",
        ("INSERT INTO t VALUES (2, '[3]', 'longer', 2)", "UPDATE t SET b = 'short' WHERE id = 1"),
        "SELECT * FROM t ORDER BY id",
    )
    assert rows == [(1, "[1, 2]", "short", 1), (2, "[3]", "longer", 2)]


def test_columns_say_how_the_source_declares_them(database: Database, replica: Replica) -> None:
    point = "POINT NOT NULL SRID 4326" if database.flavor is Flavor.MYSQL else "POINT REF_SYSTEM_ID=4326"
    database.execute(
        "CREATE TABLE t (id INT UNSIGNED PRIMARY KEY, v VARCHAR(9) CHARACTER SET latin1 COLLATE latin1_bin,"
        " u VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, e ENUM('it''s','b') CHARACTER SET ascii,"
        f" d DECIMAL(65,30), p {point}, g INT GENERATED ALWAYS AS (id) VIRTUAL,"
        " i DATETIME(3) INVISIBLE, f TINYINT(1), b BLOB)"
    )
    replica.start()
    comments = dict(replica.rows("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 't'"))
    assert comments.pop("id") in ("int unsigned", "int(10) unsigned")
    assert comments.pop("g") in ("int GENERATED", "int(11) GENERATED")
    assert comments == {
        "v": "varchar(9) CHARACTER SET latin1 COLLATE latin1_bin",
        "u": "varchar(9) COLLATE utf8mb4_bin",
        "e": "enum('it''s','b') CHARACTER SET ascii COLLATE ascii_general_ci",
        "d": "decimal(65,30)",
        "p": "point SRID 4326",
        "i": "datetime(3) INVISIBLE",
        "f": "tinyint(1)",
        "b": "blob",
    }
