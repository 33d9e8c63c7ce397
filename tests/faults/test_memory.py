"""Memory is bounded by settings, not by the size of rows, transactions and schemas."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from cdc.replica import memory, memory_demand
from cdc.sandbox.databases import Database, Host, create_database, session
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import Server
from cdc.sandbox.service import Service
from tests.faults.conftest import EVERYTHING, assert_equal_after_stop, sample, wait_live
from tests.faults.memory import peak, resident
from tests.replica import Replica, opened
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(1800 if EVERYTHING else 180)

TABLES = sample(5_000, 60)
CHANGES = sample(5_000_000, 100_000)
CELL = sample(60_000_000, 16_000_000)


def test_a_schema_of_many_tables_starts_streams_and_starts_again(
    mysql_server: Host, service_factory: Callable[..., Service]
) -> None:
    database = create_database(mysql_server)
    with session(database.url) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        for number in range(TABLES):
            cursor.execute(f"CREATE TABLE t{number} (id INT PRIMARY KEY, n INT)")
            cursor.execute(f"INSERT INTO t{number} VALUES (1, {number})")
    service = service_factory(database.url).start()
    wait_live(service, timeout=sample(600, 60))
    for _ in range(2):
        with session(database.url) as connection, connection.cursor() as cursor:
            for number in range(TABLES):
                cursor.execute(f"UPDATE t{number} SET n = n + 1")
            cursor.execute("FLUSH TABLES")  # the server gives its tables new numbers
        service.post("/sync/incremental")
        assert peak(service.pid) < (350 << 20) + TABLES * (100 << 10)  # 100 KiB a table
        assert service.stop() == 0
        service.start()
        wait_live(service, timeout=sample(600, 60))
    logged = service.query("SELECT count(*) AS n FROM _duckling.sync_log WHERE sync_type = 'snapshot'")
    assert int(logged[0]["n"]) == TABLES
    assert_equal_after_stop(service, database.url)
    database.drop()


def test_a_transaction_of_very_many_changes_needs_no_more_memory_than_a_batch(
    mysql_server: Host, service_factory: Callable[..., Service]
) -> None:
    database = create_database(mysql_server)
    database.execute(
        "CREATE TABLE big (id INT PRIMARY KEY, n BIGINT, name VARCHAR(40))",
        "CREATE TABLE d (n INT PRIMARY KEY)",
        "INSERT INTO d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
    )
    service = service_factory(database.url, batch_size=20_000).start()
    wait_live(service)
    digits = " CROSS JOIN ".join(f"d d{place}" for place in range(7))
    number = " + ".join(f"d{place}.n * {10**place}" for place in range(7))
    database.execute(
        f"INSERT INTO big SELECT {number}, 1, CONCAT('row ', {number}) FROM {digits} WHERE {number} < {CHANGES}"
    )
    service.post("/sync/incremental")
    [row] = service.query("SELECT count(*) AS rows, sum(id) AS ids FROM big")
    assert (int(row["rows"]), int(row["ids"])) == (CHANGES, CHANGES * (CHANGES - 1) // 2)
    assert peak(service.pid) < 700 << 20
    assert_equal_after_stop(service, database.url)
    database.drop()


@pytest.mark.parametrize("flavor", [Flavor.MYSQL, Flavor.MARIADB] if EVERYTHING else [Flavor.MYSQL], ids=str)
def test_rows_of_many_megabytes_are_copied_and_streamed_one_at_a_time(
    flavor: Flavor, server_factory: Callable[..., Server], service_factory: Callable[..., Service]
) -> None:
    database = Database(server_factory(flavor, "--max-allowed-packet=512M"), "shop")
    with session(database.server.url()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
    database.execute("CREATE TABLE t (id INT PRIMARY KEY, body LONGTEXT, raw LONGBLOB)")
    row = f"REPEAT(SHA2({{}}, 256), {CELL // 64}), NULL"
    database.execute(*(f"INSERT INTO t SELECT {i}, {row.format(i)}" for i in range(4)))
    # DuckDB holds some copies of a row while it is written, for which its memory limit grows.
    service = service_factory(database.url).start()
    wait_live(service)
    database.execute(
        *(f"INSERT INTO t SELECT {i}, {row.format(i)}" for i in range(4, 8)),
        "UPDATE t SET body = CONCAT(body, 'x') WHERE id IN (1, 5)",
        "DELETE FROM t WHERE id = 2",
    )
    service.post("/sync/incremental")
    assert peak(service.pid) < (600 << 20) + 20 * CELL
    assert_equal_after_stop(service, database.url)


def test_rows_that_are_changed_over_and_over_grow_neither_the_file_nor_the_memory(
    mysql_server: Host, replica_factory: Callable[..., Replica]
) -> None:
    """Deleted rows leave room in the file, and that room is used again."""
    database = create_database(mysql_server)
    database.execute(
        "CREATE TABLE t (id INT PRIMARY KEY, n BIGINT, body VARCHAR(140))",
        "CREATE TABLE d (n INT PRIMARY KEY)",
        "INSERT INTO d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
        "INSERT INTO t SELECT a.n + b.n * 10 + c.n * 100 + d.n * 1000, 0, SHA2(a.n + b.n * 10 + c.n * 100, 512)"
        " FROM d a, d b, d c, d",
    )
    replica = replica_factory(database.url, checkpoint_wal_bytes=1 << 20, checkpoint_idle=0.05).start()
    file = replica.pipeline._engine.replica
    sizes: list[tuple[int, int]] = []
    for _ in range(sample(300, 15)):
        database.execute("UPDATE t SET n = n + 1, body = SHA2(CONCAT(body, n), 512)")
        replica.catch_up()
        sizes.append((file.file_bytes, resident(os.getpid())))
    replica.settle()
    replica.assert_equal()
    wait_until(lambda: file.wal_bytes < 1 << 20, "the log is written into the file")
    assert file.file_bytes < 40 << 20, sizes  # the rows are 2 MB
    assert sizes[-1][1] - sizes[9][1] < 150 << 20, sizes
    database.drop()


def _many_tables(database: Database, count: int) -> None:
    database.execute(
        "CREATE TABLE numbers (n INT PRIMARY KEY)",
        "INSERT INTO numbers VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)",
        *(f"CREATE TABLE t{n} (id INT PRIMARY KEY, n INT)" for n in range(count)),
        *(
            f"INSERT INTO t{n} SELECT a.n + b.n * 10 + c.n * 100, 0 FROM numbers a, numbers b, numbers c"
            for n in range(count)
        ),
    )


def test_a_backlog_over_very_many_tables_fits_into_little_memory(
    mysql_server: Host, replica_factory: Callable[..., Replica]
) -> None:
    """Each table that is written to keeps a megabyte of its index in memory, until a checkpoint."""
    database = create_database(mysql_server)
    _many_tables(database, 200)
    replica = replica_factory(database.url, duckdb_memory_limit="200MB").start()
    replica.stop()
    for n in range(200):
        database.execute(f"UPDATE t{n} SET n = n + 1 WHERE id % 7 = 0", f"DELETE FROM t{n} WHERE id = {n}")
    replica.start()
    replica.catch_up()
    assert replica.pipeline.status().errors == 0
    assert replica.assert_equal() == 200 * 999 + 10
    database.drop()


@pytest.mark.parametrize("set_aside", [memory_demand.BYTES_A_TABLE, 0])
@pytest.mark.parametrize("batch_size", [50_000, 1_000])
def test_a_transaction_over_very_many_tables_gets_the_memory_that_it_needs(
    mysql_server: Host,
    replica_factory: Callable[..., Replica],
    monkeypatch: pytest.MonkeyPatch,
    set_aside: int,
    batch_size: int,
) -> None:
    """It can't be committed in pieces, so memory is set aside for its tables, and where that is too little, the limit
    grows; also where it came in parts by its size."""
    monkeypatch.setattr(memory_demand, "BYTES_A_TABLE", set_aside)
    database = create_database(mysql_server)
    _many_tables(database, 150)
    replica = replica_factory(database.url, batch_size=batch_size).start()
    database.execute(
        "BEGIN",
        *(f"UPDATE t{n} SET n = n + 1, id = -id WHERE id % 9 = 0" for n in range(150)),
        "COMMIT",
    )
    replica.settle()
    replica.assert_equal()
    replica.stop()
    if not set_aside:
        with opened(replica.path) as copy:
            sql = "SELECT value FROM _duckling.meta WHERE name = 'memory_base'"
            [[noted]] = copy.execute(sql).fetchall()
        assert int(noted) > memory.FIRST_BYTES
    database.drop()
