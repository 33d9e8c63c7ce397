"""A trial: one source database, a copy of it that is stopped, killed and started again, and their comparison."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pymysql

from cdc.errors import ReplicaError
from cdc.sandbox.databases import Host, create_database
from cdc.sandbox.service import Service
from tests.faults.conftest import live
from tests.replica import Replica, opened
from tests.schema.equality import assert_same
from tests.waiting import wait_until

STOP, START, SERVE, KILL, COMPARE = "-- stop", "-- start", "-- serve", "-- kill", "-- compare"
"""What a script may hold besides SQL: what happens to the replica."""

_LOST = {2006, 2013}
"""CR_SERVER_GONE_ERROR, CR_SERVER_LOST: no answer of the server, which a refusal is."""


class Trial:
    """A database on `server` and a replica of it in `folder`. Use as a context manager.

    The replica is a pipeline of this process (`start`) or `duckling serve` (`serve`), by turns on the same
    file. `script` holds everything that was done, to be read, and to be played again with `play`.
    """

    def __init__(self, server: Host, folder: Path) -> None:
        self.database = create_database(server)
        self.script: list[str] = []
        self.refused = 0
        self.kills = 0
        self._folder = folder
        self._connection = self.database.connect()
        self._replica: Replica | None = None
        self._service: Service | None = None

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        if self._replica is not None:
            self._replica.stop()
        if self._service is not None:
            self._service.close()
        self.database.drop()

    @property
    def connection(self) -> pymysql.Connection:
        """The session in which the script runs."""
        return self._connection

    def execute(self, statement: str) -> bool:
        """Runs a statement; False where the server refused it, which changes nothing at the source."""
        self.script.append(statement)
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
        except pymysql.MySQLError as error:
            if not error.args or error.args[0] in _LOST:
                raise
            self.script[-1] = f"{statement}  -- refused: {error.args[0]}"
            self.refused += 1
            return False
        return True

    def play(self, *script: str) -> None:
        """Runs statements, none of which may be refused, and what else a script may hold."""
        for line in script:
            if line in _DOINGS:
                _DOINGS[line](self)
            else:
                assert self.execute(line), self.script[-1]

    # The replica -------------------------------------------------------------------------------------

    def start(self) -> None:
        """A pipeline in this process, connected or about to be; one that runs already stays."""
        if self._replica is None:
            self.stop()
            self.script.append(START)
            self._replica = Replica(self.database.url, self._folder / "replica.db").start(live=False)

    def serve(self) -> None:
        """`duckling serve` in a process of its own; one that runs already stays."""
        if self._service is None:
            self.stop()
            self.script.append(SERVE)
            self._service = Service(self.database.url, self._folder, duckdb_threads=2, retry_max_seconds=0.5)
            self._service.start()

    def stop(self) -> None:
        """Ends in order what runs."""
        if self._replica is not None or self._service is not None:
            self.script.append(STOP)
        if self._replica is not None:
            self._replica.stop()
            self._replica = None
        if self._service is not None:
            status = self._service.stop()
            self._close_service()
            assert status == 0, self._words()

    def kill(self) -> None:
        """SIGKILL to the service, where one runs."""
        if self._service is not None:
            self.script.append(KILL)
            self.kills += 1
            self._service.kill()
            self._close_service()

    def _settled(self) -> bool:
        assert self._service is not None
        try:
            settled = live(self._service)
            if settled:
                self._service.post("/sync/incremental")
        except ReplicaError:
            self._service.pid  # noqa: B018 - raises with the log's last words where the process has ended
            return False
        # A table that changed on the way is copied again by itself.
        return settled and live(self._service)

    def _close_service(self) -> None:
        if self._service is not None:
            self._service.close()
            self._service = None

    def _words(self) -> str:
        return (self._folder / "service.log").read_text(errors="replace")[-5000:]

    # The comparison ----------------------------------------------------------------------------------

    def compare(self) -> int:
        """Lets the replica come to the source's end and asserts that both are the same; the rows compared."""
        self.script.append(COMPARE)
        if self._service is not None:
            wait_until(self._settled, "the service has applied everything")
            assert self._service.stop() == 0, self._words()
            self._close_service()
            with opened(self._folder / "replica.db") as copy:
                return assert_same(self.database.url, copy)
        if self._replica is None:
            self._replica = Replica(self.database.url, self._folder / "replica.db").start(live=False)
        self._replica.settle()
        with closing(self._replica.pipeline.reader()) as copy:
            return assert_same(self.database.url, copy)


_DOINGS = {STOP: Trial.stop, START: Trial.start, SERVE: Trial.serve, KILL: Trial.kill, COMPARE: Trial.compare}
