"""Online schema changes as the known tools make them: gh-ost by the binary log, pt-osc by triggers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pymysql
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

from cdc.sandbox.databases import Database
from cdc.sandbox.installation import Flavor
from cdc.schema import quote_mysql
from tests.sessions import waiting_for_a_lock
from tests.waiting import wait_until

CHUNK = 100
"""Rows that are copied at a time."""
_RETRIED = {1205, 1213}


class Migration:
    """A change of `table` through a copy of it that takes its place; `alter` is what ALTER TABLE is told.

    The copy has the columns `shared` from the table, and rows are known by `id`.
    """

    def __init__(self, database: Database, table: str, alter: str, shared: tuple[str, ...]) -> None:
        self._database = database
        self._connection = database.connect()
        self._table = table
        self._alter = alter
        self._shared = ", ".join(shared)
        self._columns = shared

    def _run(self, *statements: str) -> None:
        for statement in statements:
            while True:
                try:
                    with self._connection.cursor() as cursor:
                        cursor.execute(statement)
                except pymysql.OperationalError as error:
                    if error.args[0] not in _RETRIED:
                        raise
                else:
                    break

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Bounds of the numbers to copy, the first excluded, the last included."""
        low = -1
        while True:
            with self._connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT MAX(id) FROM (SELECT id FROM {self._table} WHERE id > {low} ORDER BY id LIMIT {CHUNK}) c"
                )
                [high] = cursor.fetchone()
            if high is None:
                return
            yield low, int(high)
            low = int(high)


class GhOst(Migration):
    """A ghost table, filled in chunks and kept up by row events of the log; cut over by an atomic rename."""

    def migrate(self) -> None:
        """Does it all."""
        table, ghost, log, sentry = (
            quote_mysql(name)
            for name in (self._table, f"_{self._table}_gho", f"_{self._table}_ghc", f"_{self._table}_del")
        )
        self._ghost = ghost
        self._run(
            f"CREATE /* gh-ost */ TABLE {log} (id BIGINT AUTO_INCREMENT PRIMARY KEY, hint VARCHAR(64) NOT NULL)",
            f"CREATE /* gh-ost */ TABLE {ghost} LIKE {table}",
            f"ALTER /* gh-ost */ TABLE {ghost} {self._alter}",
            f"INSERT INTO {log} (hint) VALUES ('state at ghost table')",
        )
        with closing(self._events()) as events:
            for low, high in self._chunks():
                self._run(
                    f"INSERT /* gh-ost */ IGNORE INTO {ghost} ({self._shared}) (SELECT {self._shared} FROM {table}"
                    f" FORCE INDEX (PRIMARY) WHERE id > {low} AND id <= {high} LOCK IN SHARE MODE)",
                    f"INSERT INTO {log} (hint) VALUES ('heartbeat')",
                )
                self._apply(events)
            self._cut_over(events, table, ghost, sentry)
        self._run(f"DROP /* gh-ost */ TABLE IF EXISTS {log}", f"DROP /* gh-ost */ TABLE IF EXISTS {sentry}")

    def _cut_over(self, events: BinLogStreamReader, table: str, ghost: str, sentry: str) -> None:
        """Writers wait at a lock while the last events are applied; behind it the rename comes first."""
        self._run(f"CREATE /* gh-ost */ TABLE {sentry} (id INT PRIMARY KEY) COMMENT='ghost-cut-over-sentry'")
        holder, renamer = self._database.connect(), self._database.connect()
        with holder.cursor() as cursor:
            cursor.execute(f"LOCK /* gh-ost */ TABLES {table} WRITE, {sentry} WRITE")
            self._apply(events)
            statement = f"RENAME /* gh-ost */ TABLE {table} TO {sentry}, {ghost} TO {table}"
            failed: list[Exception] = []
            thread = threading.Thread(target=_execute, args=(renamer, statement, failed))
            thread.start()
            wait_until(lambda: self._waits(renamer.thread_id()), "the rename waits behind the lock")
            cursor.execute(f"DROP /* gh-ost */ TABLE {sentry}")
            cursor.execute("UNLOCK TABLES")
        thread.join()
        assert not failed, failed

    def _waits(self, thread: int) -> bool:
        return thread in waiting_for_a_lock(self._database)

    def _events(self) -> BinLogStreamReader:
        with self._connection.cursor() as cursor:
            mariadb = self._database.flavor is Flavor.MARIADB
            cursor.execute("SHOW MASTER STATUS" if mariadb else "SHOW BINARY LOG STATUS")
            file, position, *_ = cursor.fetchone()
        settings: dict[str, Any] = {
            "host": self._connection.host,
            "port": self._connection.port,
            "user": "root",
            "password": "",
        }
        return BinLogStreamReader(
            settings,
            server_id=self._connection.thread_id() + 900_000,
            log_file=file,
            log_pos=position,
            resume_stream=True,
            enable_logging=False,
            only_schemas=[self._database.name],
            only_tables=[self._table],
            only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
        )

    def _apply(self, events: BinLogStreamReader) -> None:
        """Applies what the log has by now: REPLACE for what is there, DELETE for what went."""
        with self._connection.cursor() as cursor:
            for event in events:
                for row in event.rows:
                    if not isinstance(event, WriteRowsEvent):
                        before = row.get("before_values") or row["values"]
                        cursor.execute(f"DELETE FROM {self._ghost} WHERE id = %s", (before["id"],))
                    if not isinstance(event, DeleteRowsEvent):
                        after = row.get("after_values") or row["values"]
                        marks = ", ".join(["%s"] * len(self._columns))
                        cursor.execute(
                            f"REPLACE INTO {self._ghost} ({self._shared}) VALUES ({marks})",
                            [after[name] for name in self._columns],
                        )


def _execute(connection: pymysql.Connection, statement: str, failed: list[Exception]) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except pymysql.MySQLError as error:
        failed.append(error)


class PtOsc(Migration):
    """A new table, filled in chunks and kept up by triggers; swapped in by a rename, the old one dropped."""

    def migrate(self) -> None:
        """Does it all."""
        table, new, old = (
            quote_mysql(name) for name in (self._table, f"_{self._table}_new", f"_{self._table}_old")
        )
        mine = ", ".join(f"NEW.{name}" for name in self._columns)
        triggers = [f"pt_osc_{self._table}_{event}" for event in ("del", "upd", "ins")]
        self._run(
            f"CREATE TABLE {new} LIKE {table}",
            f"ALTER TABLE {new} {self._alter}",
            f"CREATE TRIGGER `{triggers[0]}` AFTER DELETE ON {table} FOR EACH ROW"
            f" DELETE IGNORE FROM {new} WHERE {new}.id <=> OLD.id",
            f"CREATE TRIGGER `{triggers[1]}` AFTER UPDATE ON {table} FOR EACH ROW BEGIN"
            f" DELETE IGNORE FROM {new} WHERE !(OLD.id <=> NEW.id) AND {new}.id <=> OLD.id;"
            f" REPLACE INTO {new} ({self._shared}) VALUES ({mine}); END",
            f"CREATE TRIGGER `{triggers[2]}` AFTER INSERT ON {table} FOR EACH ROW"
            f" REPLACE INTO {new} ({self._shared}) VALUES ({mine})",
        )
        for low, high in self._chunks():
            self._run(
                f"INSERT LOW_PRIORITY IGNORE INTO {new} ({self._shared}) SELECT {self._shared} FROM {table}"
                f" FORCE INDEX (PRIMARY) WHERE id > {low} AND id <= {high} LOCK IN SHARE MODE"
                f" /*pt-online-schema-change {low} copy nibble*/"
            )
        self._run(
            f"ANALYZE TABLE {new} /* pt-online-schema-change */",
            f"RENAME TABLE {table} TO {old}, {new} TO {table}",
            f"DROP TABLE IF EXISTS {old}",
            *(f"DROP TRIGGER IF EXISTS `{trigger}`" for trigger in triggers),
        )
