"""`python -m tests.soak`: load, schema changes, kills, cuts and comparisons for SOAK_MINUTES (60).

A server of its own (SOAK_FLAVOR: mysql or mariadb), a service that reaches it through a proxy. Every minute the
service is killed, connections are cut, a table is altered; every five minutes a validation by checksums runs under
load, and at the end every value of every row is compared. The report is SOAK_REPORT (build/soak.md). Exit status 1
where anything differed. SOAK_SEED repeats a run's choices.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from cdc.errors import DucklingError, ReplicaError
from cdc.sandbox import shop
from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.load import Load
from cdc.sandbox.servers import running
from cdc.sandbox.service import Service
from tests.faults.conftest import live
from tests.faults.memory import resident
from tests.faults.proxy import Proxy, proxied
from tests.replica import assert_equal, opened
from tests.soak.record import Record, Sample
from tests.waiting import wait_until

KILL_EVERY = 60.0
CUT_EVERY = 23.0
ALTER_EVERY = 17.0
VALIDATE_EVERY = 300.0
SAMPLE_EVERY = 2.0
MEMORY_LIMIT = 900 << 20
"""Bytes of memory that a service with these settings must never pass."""


class Soak:
    """One run."""

    def __init__(self, database: Database, proxy: Proxy, service: Service, chance: random.Random) -> None:
        self.record = Record()
        self.differences: list[str] = []
        self.kills = self.cuts = self.alters = self.validations = 0
        self._database = database
        self._proxy = proxy
        self._service = service
        self._chance = chance

    def run(self, seconds: float) -> None:
        """Until `seconds` have passed; `differences` has what was found wrong."""
        scale = min(1.0, seconds / 600)  # a short run must meet everything too
        due = {
            self.sample: SAMPLE_EVERY,
            self.kill: max(15.0, KILL_EVERY * scale),
            self.cut: max(5.0, CUT_EVERY * scale),
            self.alter: max(5.0, ALTER_EVERY * scale),
            self.validate: max(40.0, VALIDATE_EVERY * scale),
        }
        next_at = dict(due)
        pause = threading.Event()
        while self.record.seconds < seconds:
            for task, every in due.items():
                if self.record.seconds >= next_at[task]:
                    try:
                        task()
                    except ReplicaError as error:
                        self.record.note(f"{task.__name__}: not now ({error.message})")
                    next_at[task] = self.record.seconds + every
            pause.wait(0.2)

    def sample(self) -> None:
        status = self._service.get("/cdc/status")["status"]
        path = self._service.duckdb_path
        log = path.with_name(path.name + ".wal")
        memory = resident(self._service.pid)
        lag = status["lagSeconds"]
        self.record.samples.append(
            Sample(
                self.record.seconds,
                memory,
                path.stat().st_size,
                log.stat().st_size if log.exists() else 0,
                None if lag is None else float(lag),
                int(status["transactionsProcessed"]),
            )
        )
        if memory > MEMORY_LIMIT:
            self.differences.append(f"{memory >> 20} MB of memory at {self.record.seconds:.0f} s")
        if status["state"] in ("failed", "needs_resync"):
            self.differences.append(f"the stream stopped: {status['lastError']}")

    def kill(self) -> None:
        self._service.kill()
        self._service.start()
        self.kills += 1
        self.record.note("killed and started again")

    def cut(self) -> None:
        if self._chance.random() < 0.5:
            self._proxy.cut()
        else:
            self._proxy.cut_next_dump(packets=self._chance.randrange(1, 200))
            self._proxy.cut()
        self.cuts += 1

    def alter(self) -> None:
        name = f"c{self.alters}"
        change = self._chance.choice(
            [
                f"ALTER TABLE altered ADD COLUMN {name} VARCHAR(20) DEFAULT '{name}'",
                f"ALTER TABLE altered ADD COLUMN {name} INT FIRST",
                "ALTER TABLE altered MODIFY n BIGINT",
                f"CREATE TABLE made_{name} AS SELECT * FROM altered",
                "TRUNCATE TABLE altered",
                "RENAME TABLE altered TO away, away TO altered",
            ]
        )
        self._database.execute(
            change,
            "INSERT INTO altered (n) VALUES (1), (2), (3)",
            "UPDATE altered SET n = n + 1 LIMIT 2",
            # A cascade, which MariaDB does not log.
            f"INSERT INTO parent VALUES ({self.alters + 10}), ({self.alters + 100_000})",
            f"INSERT INTO child VALUES ({self.alters + 10}, {self.alters + 10})",
            f"DELETE FROM parent WHERE id IN ({self.alters + 7}, {self.alters + 100_000})",
        )
        self.alters += 1
        self.record.note(change)

    def validate(self) -> None:
        wait_until(lambda: live(self._service), "the service streams every table", timeout=120)
        report = self._service.get("/sync/validate?mode=checksum")
        self.validations += 1
        self.record.note(f"{report['matchingTables']} of {report['totalTables']} tables match")
        for mismatch in report["mismatches"]:
            self.differences.append(f"table {mismatch['table']} differs at {self.record.seconds:.0f} s")


def main() -> int:
    """Runs it; 0 where nothing differed."""
    seconds = 60 * float(os.environ.get("SOAK_MINUTES", "60"))
    seed = int(os.environ.get("SOAK_SEED") or time.time_ns() % (1 << 32))
    flavor = os.environ.get("SOAK_FLAVOR", "mysql")
    report = Path(os.environ.get("SOAK_REPORT", "build/soak.md"))
    print(f"{seconds / 60:.0f} minutes on {flavor}, SOAK_SEED={seed}", flush=True)
    with running(flavor) as server, tempfile.TemporaryDirectory(prefix="duckling-soak-") as folder:
        database = create_database(server, "soak")
        shop.create_tables(database.connect())
        shop.fill_tables(database.connect(), rows=20_000)
        database.execute(
            "CREATE TABLE altered (id INT AUTO_INCREMENT PRIMARY KEY, n INT)",
            "CREATE TABLE parent (id INT PRIMARY KEY)",
            "CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE)",
            "INSERT INTO parent VALUES (1), (2), (3)",
            "INSERT INTO child VALUES (1, 1), (2, 2), (3, 3)",
        )
        with (
            proxied(database.url) as proxy,
            Service(proxy.url, Path(folder), retry_max_seconds=1.0) as service,
        ):
            service.start()
            soak = Soak(database, proxy, service, random.Random(seed))
            loads = [
                Load(database.url, rate=150, seed=seed % 1000 + 1),
                Load(database.url, rate=40, seed=seed % 1000 + 2),
            ]
            for load in loads:
                load.start()
            try:
                soak.run(seconds)
                figures = [load.stop() for load in loads]
                service.start() if not running_now(service) else None
                wait_until(lambda: live(service), "the service streams every table", timeout=300)
                service.post("/sync/incremental")
                assert service.stop() == 0
                with opened(service.duckdb_path) as copy:
                    rows = assert_equal(database.url, copy)
                soak.record.note(f"{rows} rows are equal in every value")
            except (AssertionError, DucklingError) as error:
                soak.differences.append(f"{type(error).__name__}: {str(error)[:500]}")
                figures = []
                log = report.with_suffix(".log")
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_bytes(service.log.read_bytes())
            verdict = "no difference" if not soak.differences else "; ".join(soak.differences)
            memory = max((each.memory for each in soak.record.samples), default=0)
            soak.record.write(
                report,
                verdict,
                {
                    "duration": f"{soak.record.seconds / 60:.1f} minutes on {flavor}, seed {seed}",
                    "transactions": str(sum(each.transactions for each in figures)),
                    "rows changed": str(sum(each.rows for each in figures)),
                    "kills": str(soak.kills),
                    "connections cut": str(soak.cuts),
                    "schema changes": str(soak.alters),
                    "validations": str(soak.validations),
                    "largest memory": f"{memory >> 20} MB",
                },
            )
    print(f"{verdict}; report: {report}", flush=True)
    return 1 if soak.differences else 0


def running_now(service: Service) -> bool:
    """Whether the process lives."""
    try:
        return service.pid > 0
    except ReplicaError:
        return False


if __name__ == "__main__":
    sys.exit(main())
