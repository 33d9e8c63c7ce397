"""SIGKILL at random moments, and SIGTERM under load: nothing is lost, doubled or half done.

The moments come from a seed, which a failing test prints; DUCKLING_TEST_SEED sets it.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cdc.errors import ReplicaError
from cdc.replica.row_groups import ROW_GROUP
from cdc.sandbox import shop
from cdc.sandbox.databases import Database
from cdc.sandbox.load import Load
from cdc.sandbox.service import Service
from tests.faults.conftest import assert_equal_after_stop, live, remains, wait_live
from tests.replica import copied_tables, staging_tables
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(150)

KILLS = 5
ROWS = 6_000
SMALL = {"copy_batch_rows": 60}
"""Pieces so small that there are many moments in a copy."""


@pytest.fixture
def moments() -> random.Random:
    seed = int(os.environ.get("DUCKLING_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"DUCKLING_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def small_shop(database: Database) -> Database:
    connection = database.connect()
    shop.create_tables(connection)
    shop.fill_tables(connection, rows=ROWS)
    database.execute(
        "CREATE TABLE giro (id INT PRIMARY KEY, balance BIGINT)",
        "CREATE TABLE savings (account INT, balance BIGINT)",
        "INSERT INTO giro VALUES (1, 1000), (2, 1000), (3, 1000)",
        "INSERT INTO savings VALUES (1, 1000), (1, 1000)",
    )
    return database


def copied_rows(service: Service) -> int:
    """Rows that the copy under way has taken; a large number where there is none."""
    progress = service.get("/sync/progress")
    return sum(table["rowsDone"] for table in progress["tables"]) if progress["isRunning"] else 1 << 60


def copying(service: Service) -> bool:
    return copied_rows(service) < 1 << 60


def test_a_first_copy_that_is_killed_again_and_again_leaves_nothing_half_done(
    small_shop: Database, service_factory: Callable[..., Service], moments: random.Random, tmp_path: Path
) -> None:
    service = service_factory(small_shop.url, **SMALL)
    with Load(small_shop.url, rate=50, seed=21):
        for kill in range(KILLS):
            service.start()
            moment = moments.randrange(ROWS)
            wait_until(lambda: copying(service) or live(service), "the copy begins")
            wait_until(lambda: copied_rows(service) >= moment, f"{moment} rows are copied")  # noqa: B023
            service.kill()
            with remains(service, tmp_path / f"killed-{kill}") as file:
                visible = copied_tables(file) - staging_tables(file)
                assert visible in (set(), {*shop.TABLES, "giro", "savings"})
                if not visible:
                    continue
                positions = file.execute("SELECT count(*) FROM _duckling.cdc_binlog_position").fetchall()
                assert positions == [(1,)]
        service.start()
        wait_live(service)
        tables = service.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'")
        assert {row["table_name"] for row in tables} == {*shop.TABLES, "giro", "savings"}
    assert_equal_after_stop(service, small_shop.url)


def test_a_copy_again_that_is_killed_leaves_the_old_rows_until_it_is_done(
    small_shop: Database, service_factory: Callable[..., Service], moments: random.Random, tmp_path: Path
) -> None:
    service = service_factory(small_shop.url, **SMALL).start()
    wait_live(service)
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in shop.TABLES)
    for kill in range(3):
        moment = moments.randrange(ROWS)
        service.post("/sync/full?wait=false")
        wait_until(lambda: copied_rows(service) >= moment, f"{moment} rows are copied")  # noqa: B023
        service.kill()
        with remains(service, tmp_path / f"killed-{kill}") as file:
            assert file.execute(f"SELECT {counts}").fetchall() == [tuple(shop.table_sizes(ROWS).values())]
        service.start()
        wait_live(service)
        assert not service.query(
            "SELECT table_name FROM duckdb_tables() WHERE starts_with(table_name, '__duckling_staging__')"
        )
    assert_equal_after_stop(service, small_shop.url)


def test_a_copy_of_whole_row_groups_that_is_killed_is_made_again_in_full(
    database: Database, service_factory: Callable[..., Service], moments: random.Random, tmp_path: Path
) -> None:
    """They go into the file past the write-ahead log, beside changes that go through it."""
    rows = 2 * ROW_GROUP + 5_000
    database.execute(
        "CREATE TABLE large (id INT PRIMARY KEY, n INT, note VARCHAR(40))",
        "INSERT INTO large VALUES (1, 1, 'row 1')",
        *(
            f"INSERT INTO large SELECT id + {1 << power}, n, CONCAT('row ', id + {1 << power}) FROM large"
            f" WHERE id + {1 << power} <= {rows}"
            for power in range(rows.bit_length())
        ),
        "CREATE TABLE giro (id INT PRIMARY KEY, balance BIGINT)",
        "INSERT INTO giro VALUES (1, 1000), (2, 1000)",
    )
    changes = ("UPDATE giro SET balance = balance + 1", "UPDATE large SET n = n + 1 WHERE id % 50000 = 7")
    service = service_factory(database.url)
    for kill, moment in enumerate((1, ROW_GROUP, 2 * ROW_GROUP)):
        service.start()
        wait_until(lambda: copying(service) or live(service), "the copy begins")
        wait_until(lambda: copied_rows(service) >= moment, f"{moment} rows are copied")  # noqa: B023
        database.execute(*changes)
        service.kill()
        with remains(service, tmp_path / f"killed-{kill}") as file:
            assert copied_tables(file) - staging_tables(file) in (set(), {"large", "giro"})
    service.start()
    wait_live(service, 60)
    # Beside the stream, and killed the moment it is live: the log says where the rows are, and little else.
    for moment in (ROW_GROUP, 1 << 60):
        service.post("/sync/full?wait=false")
        wait_until(lambda: copied_rows(service) >= moment, "the copy is so far")  # noqa: B023
        database.execute(*changes)
        service.kill()
        service.start()
        wait_live(service, 60)
    key = moments.randrange(1, rows)
    assert service.query(f"SELECT note FROM large WHERE id = {key}") == [{"note": f"row {key}"}]
    assert_equal_after_stop(service, database.url)


@pytest.mark.parametrize(("batch_size", "kills"), [(50_000, KILLS), (20, 2)])
def test_a_stream_that_is_killed_again_and_again_goes_on_from_a_boundary(
    small_shop: Database,
    service_factory: Callable[..., Service],
    moments: random.Random,
    tmp_path: Path,
    batch_size: int,
    kills: int,
) -> None:
    service = service_factory(small_shop.url, batch_size=batch_size).start()
    wait_live(service)
    transfer = (
        "BEGIN",
        "UPDATE giro SET balance = balance - 1",
        "UPDATE savings SET balance = balance + 3 LIMIT 1",
        "COMMIT",
    )
    with Load(small_shop.url, rate=60, seed=22) as load:
        for kill in range(kills):
            applied = service.get("/cdc/status")["status"]["transactionsProcessed"]
            moment = applied + moments.randrange(50)
            wait_until(
                lambda: service.get("/cdc/status")["status"]["transactionsProcessed"] >= moment,  # noqa: B023
                "transactions are applied",
            )
            small_shop.execute(*(transfer * 3))
            service.kill()
            with remains(service, tmp_path / f"killed-{kill}") as file:
                total = "SELECT (SELECT sum(balance) FROM giro) + (SELECT sum(balance) FROM savings)"
                assert file.execute(total).fetchall() == [(5000,)]
            load.wait_for(load.figures.transactions + moments.randrange(20))
            service.start()
            wait_live(service)
    logged = service.query("SELECT count(*) AS copies FROM _duckling.sync_log WHERE sync_type = 'snapshot'")
    assert int(logged[0]["copies"]) == len(shop.TABLES) + 2  # those of the first copy
    assert_equal_after_stop(service, small_shop.url)


def test_a_kill_within_a_large_transaction_leaves_nothing_of_it(
    small_shop: Database, service_factory: Callable[..., Service], tmp_path: Path
) -> None:
    service = service_factory(small_shop.url, batch_size=100).start()
    wait_live(service)
    small_shop.execute(
        "BEGIN",
        "UPDATE order_lines SET quantity = quantity + 1000",
        "INSERT INTO events SELECT * FROM events",
        "DELETE FROM products",
        "COMMIT",
    )
    counted = service.get("/cdc/status")["status"]["updatesProcessed"]
    wait_until(
        lambda: service.get("/cdc/status")["status"]["updatesProcessed"] > max(counted, 500), "rows are read"
    )
    service.kill()
    with remains(service, tmp_path / "killed") as file:
        [row] = file.execute(
            "SELECT (SELECT count(*) FROM products), (SELECT count(*) FROM events),"
            " (SELECT count(*) FROM order_lines WHERE quantity > 1000)"
        ).fetchall()
    sizes = shop.table_sizes(ROWS)
    before = (sizes["products"], sizes["events"], 0)
    after = (0, 2 * sizes["events"], sizes["order_lines"])
    assert row in (before, after)
    service.start()
    wait_live(service)
    assert_equal_after_stop(service, small_shop.url)


def test_sigterm_under_load_ends_the_service_in_order_and_the_next_one_goes_on_exactly(
    small_shop: Database, service_factory: Callable[..., Service]
) -> None:
    service = service_factory(small_shop.url).start()
    wait_live(service)
    with Load(small_shop.url, rate=0, seed=23) as load:
        for _ in range(2):
            load.wait_for(load.figures.transactions + 40)
            began = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - began < 10
            service.start()
            wait_live(service)
    logged = service.query("SELECT count(*) AS copies FROM _duckling.sync_log WHERE sync_type = 'snapshot'")
    assert int(logged[0]["copies"]) == len(shop.TABLES) + 2
    assert "Traceback" not in service.log.read_text()
    assert_equal_after_stop(service, small_shop.url)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_during_a_copy_ends_the_service_and_leaves_no_staging_table(
    small_shop: Database, service_factory: Callable[..., Service], tmp_path: Path, number: signal.Signals
) -> None:
    service = service_factory(small_shop.url, **SMALL).start()
    wait_until(lambda: copying(service) and copied_rows(service) > 300, "300 rows are copied")
    began = time.monotonic()
    os.kill(service.pid, number)
    wait_until(lambda: ended(service), "the service ends", timeout=10)
    assert time.monotonic() - began < 10
    assert service.stop() == 0
    with remains(service, tmp_path / "ended") as file:
        assert staging_tables(file) == set()
    assert "Traceback" not in service.log.read_text()


def ended(service: Service) -> bool:
    try:
        return service.pid == 0
    except ReplicaError:
        return True
