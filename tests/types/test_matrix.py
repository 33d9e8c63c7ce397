"""Every type of both servers, by every way, against what the server itself prints in UTC (G4)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import Server
from tests.replica import Replica
from tests.types.cases import GENERATED, Case, create, groups, insert

WAYS = {"copied": 0, "inserted": 10_000, "updated": 20_000, "polled": 30_000}
"""How rows come into the copy, and from which id on they are: by the copy, by the stream's inserts and updates,
and by a watermark sync."""

MODES = (
    "",
    "ALLOW_INVALID_DATES",
    "ANSI_QUOTES,PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT",
    "NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_AUTO_VALUE_ON_ZERO",
    "NO_BACKSLASH_ESCAPES,REAL_AS_FLOAT,IGNORE_SPACE",
)
"""What does not fit is changed with a warning, for none is strict: zero dates, "?", the empty member."""

SERVERS = (
    (Flavor.MYSQL, "+05:30", "ANSI_QUOTES,PAD_CHAR_TO_FULL_LENGTH", "with a key"),
    (Flavor.MYSQL, "America/New_York", "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE", "without a key"),
    (Flavor.MARIADB, "+05:30", "NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH", "with a key"),
    (Flavor.MARIADB, "America/New_York", "ORACLE", "without a key"),
)


@pytest.fixture
def in_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Puts this process, and the servers that it starts, into a time zone of the operating system."""

    def put(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("flavor", "zone", "mode", "key"), SERVERS, ids=lambda value: str(value).split(",")[0]
)
def test_every_value_is_what_the_server_prints_by_every_way(
    flavor: Flavor,
    zone: str,
    mode: str,
    key: str,
    server_factory: Callable[..., Server],
    replica_factory: Callable[..., Replica],
    in_zone: Callable[[str], None],
) -> None:
    fixed = zone.startswith("+")
    if not fixed:
        in_zone(zone)
    options = ("--default-time-zone=" + (zone if fixed else "SYSTEM"), f"--sql-mode={mode}")
    database = create_database(server_factory(flavor, *options))
    cases = groups(flavor)
    rows = {name: _rows(kinds) for name, kinds in cases.items()}
    for name, kinds in cases.items():
        _writing(database, "", create(name, kinds, keyed=key == "with a key"))
        _fill(database, name, kinds, rows[name], WAYS["copied"])
    replica = replica_factory(database.url).start()
    for name, kinds in cases.items():
        _fill(database, name, kinds, rows[name], WAYS["inserted"])
        _update(database, name, kinds, len(rows[name]))
    replica.catch_up()
    streamed = {name: _held(replica, name, kinds) for name, kinds in cases.items()}
    replica.stop()
    polled = _polled(database, replica_factory, cases, rows, keyed=key == "with a key")
    for name, kinds in cases.items():
        shown, held = _shown(database, name, kinds), streamed[name] | polled[name]
        ids = list(shown)
        assert list(held) == ids
        assert len(ids) == len(WAYS) * len(rows[name])
        for at, case in enumerate(kinds):
            theirs = {
                number: case.there(row[at]) if row[at] is not None else None for number, row in shown.items()
            }
            ours = {
                number: case.here(row[at]) if row[at] is not None else None for number, row in held.items()
            }
            wrong = {
                number: (theirs[number], ours[number]) for number in ids if theirs[number] != ours[number]
            }
            assert not wrong, (case.kind, dict(list(wrong.items())[:3]))
            if not case.kind.startswith("TIMESTAMP"):  # the source itself reads an hour twice in autumn
                for first, second in pairwise(WAYS.values()):
                    for i in range(len(rows[name])):
                        assert ours[first + i] == ours[second + i], (case.kind, i)


def _polled(
    database: Database,
    replica_factory: Callable[..., Replica],
    cases: dict[str, list[Case]],
    rows: dict[str, list[list[object]]],
    *,
    keyed: bool,
) -> dict[str, dict[int, tuple[object, ...]]]:
    """The rows that come by watermark sync, by table: those with a key by their timestamp, the others by a copy
    of their table when its checksum differs."""
    stamp = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) INVISIBLE"
    for name in cases:
        _writing(database, "ALLOW_INVALID_DATES", f"ALTER TABLE {name} ADD COLUMN {stamp}")
    replica = replica_factory(database.url, cdc_enabled=False, auto_start_sync=False).start(live=False)
    replica.catch_up()
    for name, kinds in cases.items():
        _fill(database, name, kinds, rows[name], WAYS["polled"])
    ways = {table.sync_type for table in replica.catch_up().tables}
    assert ways == ({"micro-batch"} if keyed else {"snapshot"})
    held = {name: _held(replica, name, kinds) for name, kinds in cases.items()}
    return {
        name: {number: row for number, row in found.items() if number >= WAYS["polled"]}
        for name, found in held.items()
    }


def _rows(cases: list[Case]) -> list[list[object]]:
    r = random.Random(20240229)
    count = GENERATED + max(len(case.edges) for case in cases) + 1
    return [list(row) for row in zip(*(case.values(r, count) for case in cases), strict=True)]


def _writing(database: Database, mode: str, *statements: str) -> None:
    """Statements of an ordinary client: in the server's own time zone."""
    connection = database.connect(sql_mode=mode, init_command="SET time_zone = @@GLOBAL.time_zone")
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _fill(database: Database, name: str, cases: list[Case], rows: list[list[object]], first: int) -> None:
    """Inserts the rows, each sql_mode its share."""
    for at, mode in enumerate(MODES):
        connection = database.connect(sql_mode=mode, init_command="SET time_zone = @@GLOBAL.time_zone")
        share = {first + i: row for i, row in enumerate(rows) if i % len(MODES) == at}
        insert(connection, name, cases, share)


def _update(database: Database, name: str, cases: list[Case], count: int) -> None:
    """Rows of NULLs, each of which then becomes the row of the same values that was inserted."""
    first, by = WAYS["updated"], WAYS["updated"] - WAYS["inserted"]
    empty = ", ".join(f"({first + i})" for i in range(count))
    columns = ", ".join(f"t.c{i} = s.c{i}" for i in range(len(cases)))
    _writing(
        database,
        "ALLOW_INVALID_DATES",
        f"INSERT INTO {name} (id) VALUES {empty}",
        f"UPDATE {name} t JOIN {name} s ON s.id = t.id - {by} SET {columns} WHERE t.id >= {first}",
    )


def _shown(database: Database, name: str, cases: list[Case]) -> dict[int, tuple[str | None, ...]]:
    """What the server prints, as text, to a session in UTC."""
    columns = ", ".join(case.shown.format(f"c{i}") for i, case in enumerate(cases))
    with database.connect(conv={}, sql_mode="").cursor() as cursor:
        cursor.execute(f"SELECT id, {columns} FROM {name} ORDER BY id")
        return {int(row[0]): tuple(row[1:]) for row in cursor.fetchall()}


def _held(replica: Replica, name: str, cases: list[Case]) -> dict[int, tuple[object, ...]]:
    columns = ", ".join(f"c{i}" for i in range(len(cases)))
    return {row[0]: row[1:] for row in replica.rows(f"SELECT id, {columns} FROM {name} ORDER BY id")}
