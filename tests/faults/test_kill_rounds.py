"""kill -9 in rounds, at random moments, over everything that a service does; contents equal each time.

Four rounds, or 200 with FAULTS=all. The moments come from a seed, which a failing test prints; DUCKLING_TEST_SEED
sets it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from cdc.sandbox import shop
from cdc.sandbox.databases import Database, Host, create_database
from cdc.sandbox.load import Load
from cdc.sandbox.service import Service
from tests.faults.conftest import sample, wait_live
from tests.replica import assert_equal, opened

ROUNDS = sample(200, 4)
pytestmark = pytest.mark.timeout(60 + 30 * ROUNDS)


@pytest.fixture
def small_shop(request: pytest.FixtureRequest) -> Iterator[Database]:
    host: Host = request.getfixturevalue(f"{request.param}_server")
    database = create_database(host)
    connection = database.connect()
    shop.create_tables(connection)
    shop.fill_tables(connection, rows=3_000)
    database.execute(
        "CREATE TABLE altered (id INT AUTO_INCREMENT PRIMARY KEY, n INT)",
        "INSERT INTO altered (n) VALUES (1), (2), (3)",
        "CREATE TABLE ledger (id INT PRIMARY KEY, n BIGINT)",
        "INSERT INTO ledger SELECT line + order_id * 100, 0 FROM order_lines",
    )
    yield database
    database.drop()


class Work:
    """What a service may be at when it is killed; each begins, and does not wait for the end."""

    KINDS = ("change_schema", "change_much", "copy_all", "copy_one", "clear")

    def __init__(self, database: Database, service: Service, chance: random.Random) -> None:
        self._database = database
        self._service = service
        self._chance = chance

    def begin(self, kind: str) -> None:
        getattr(self, kind)()

    def change_schema(self) -> None:
        name = f"c{self._chance.randrange(1 << 30)}"
        self._database.execute(
            f"ALTER TABLE altered ADD COLUMN {name} INT DEFAULT {self._chance.randrange(9)}",
            "INSERT INTO altered (n) VALUES (4)",
            self._chance.choice([f"ALTER TABLE altered DROP COLUMN {name}", "UPDATE altered SET n = n + 1"]),
        )

    def change_much(self) -> None:
        self._database.execute(
            "BEGIN", "UPDATE ledger SET n = n + 1", "DELETE FROM ledger LIMIT 20", "COMMIT"
        )

    def copy_all(self) -> None:
        self._service.post("/sync/full?wait=false")

    def copy_one(self) -> None:
        table = self._chance.choice(list(shop.TABLES))
        self._service.post(f"/sync/table/{table}?mode=full&wait=false")

    def clear(self) -> None:
        with self._service.client() as client:
            client.delete("/sync/clear-all").raise_for_status()
        self.copy_all()


@pytest.mark.parametrize("small_shop", ["mysql", "mariadb"] if ROUNDS > 6 else ["mysql"], indirect=True)
def test_no_kill_at_any_moment_loses_or_doubles_a_row(
    small_shop: Database, service_factory: Callable[..., Service]
) -> None:
    seed = int(os.environ.get("DUCKLING_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"DUCKLING_TEST_SEED={seed}")
    chance = random.Random(seed)
    settings = {
        "copy_batch_rows": 100,
        "batch_size": 500,
        "checkpoint_wal_bytes": 1 << 20,
        "checkpoint_idle": 0.2,
    }
    service = service_factory(small_shop.url, **settings).start()
    wait_live(service)
    for number in range(ROUNDS):
        kind = Work.KINDS[number] if number < len(Work.KINDS) else chance.choice(Work.KINDS)
        with Load(small_shop.url, rate=150, seed=seed % 1000 + number + 1) as load:
            load.wait_for(chance.randrange(1, 20))
            Work(small_shop, service, chance).begin(kind)
            load.wait_for(load.figures.transactions + chance.randrange(1, 60))
            service.kill()
            load.wait_for(load.figures.transactions + chance.randrange(10))
        service.start()
        wait_live(service)
        service.post("/sync/incremental")
        assert service.stop() == 0, f"round {number}: {kind}"
        with opened(service.duckdb_path) as copy:
            assert_equal(small_shop.url, copy)
        service.start()
        wait_live(service)
