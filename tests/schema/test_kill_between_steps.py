"""SIGKILL between each pair of steps of applying one change: not applied twice, and no position lost.

A step is a statement that DuckDB gets, or what follows a COMMIT. With DUCKLING_EXAMPLES every line of the code
is one, all of them are tried, and each change on both servers; without it those around a COMMIT and some others,
of some changes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from cdc.replica.tables import STAGING_PREFIX
from cdc.sandbox.databases import Database
from cdc.sandbox.installation import Flavor
from tests.replica import Replica
from tests.schema.equality import assert_same, copy_shapes
from tests.schema.stepping import kill_at, steps_to_the_end

EVERY_LINE = bool(os.environ.get("DUCKLING_EXAMPLES"))
pytestmark = pytest.mark.timeout(0 if EVERY_LINE else 120)

TABLES = (
    "CREATE TABLE a (pad INT, id INT PRIMARY KEY, v VARCHAR(20), n INT)",
    "INSERT INTO a VALUES (0, 1, 'one', 10), (0, 2, 'two', 20), (0, 3, NULL, NULL)",
    "CREATE TABLE b (id INT PRIMARY KEY, w VARCHAR(20) CHARACTER SET latin1)",
    "INSERT INTO b VALUES (1, 'é'), (2, 'b')",
    "CREATE TABLE later (id INT AUTO_INCREMENT PRIMARY KEY)",
)
CHANGES = {
    "columns_added_in_front": "ALTER TABLE a ADD x INT NOT NULL DEFAULT 7 FIRST, ADD y VARCHAR(9) DEFAULT 'y' AFTER v",
    "column_dropped_before_the_key": "ALTER TABLE a DROP COLUMN pad",
    "columns_renamed_and_widened": "ALTER TABLE a RENAME COLUMN n TO m, MODIFY v VARCHAR(200)",
    "key_changed": "ALTER TABLE a DROP PRIMARY KEY, ADD PRIMARY KEY (id, pad)",
    "values_converted": "ALTER TABLE b CONVERT TO CHARACTER SET utf8mb4, MODIFY id DECIMAL(9,2)",
    "two_swapped": "RENAME TABLE a TO tmp, b TO a, tmp TO b",
    "emptied": "TRUNCATE TABLE a",
    "dropped": "DROP TABLE a",
    "made_like_another": "CREATE TABLE c LIKE a",
}

OFTEN = {
    (Flavor.MYSQL, "columns_added_in_front"),
    (Flavor.MYSQL, "two_swapped"),
    (Flavor.MARIADB, "key_changed"),
}
"""What is tried without DUCKLING_EXAMPLES."""

Contents = dict[str, tuple[object, list[tuple[object, ...]]]]


def contents(copy: duckdb.DuckDBPyConnection) -> Contents:
    """Shape and rows of all tables that readers see, but for the one that gets rows behind the change."""
    return {
        name: (shape, sorted(copy.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr))
        for name, shape in copy_shapes(copy).items()
        if name != "later" and not name.startswith(STAGING_PREFIX)
    }


def bookkeeping(copy: duckdb.DuckDBPyConnection) -> tuple[tuple[str, int], bool]:
    """The position's file and offset, and whether a table waits to be copied again."""
    [(file, offset)] = copy.execute("SELECT filename, position FROM _duckling.cdc_binlog_position").fetchall()
    states = copy.execute("SELECT DISTINCT state FROM _duckling.table_states").fetchall()
    return (str(file), int(offset)), any(state != ("streaming",) for state in states)


def end_of_log(database: Database) -> tuple[str, int]:
    with database.connect().cursor() as cursor:
        cursor.execute(
            "SHOW MASTER STATUS" if database.flavor is Flavor.MARIADB else "SHOW BINARY LOG STATUS"
        )
        file, offset, *_ = cursor.fetchone()
    return str(file), int(offset)


def copied(source: Path, target: Path) -> Path:
    """The file of a replica that has ended, under another name."""
    target.parent.mkdir(exist_ok=True)
    for end in ("", ".wal"):
        there = target.with_name(target.name + end)
        there.unlink(missing_ok=True)
        if source.with_name(source.name + end).exists():
            shutil.copyfile(source.with_name(source.name + end), there)
    return target


def replicated(url: str, path: Path) -> Contents:
    """Brings the file to the source's end, compares, and tells what it then holds."""
    replica = Replica(url, path).start(live=False)
    try:
        replica.settle()
        with closing(replica.pipeline.reader()) as copy:
            assert_same(url, copy)
            return contents(copy)
    finally:
        replica.stop()


def chosen(steps: list[str]) -> list[tuple[int, str]]:
    """The steps to be killed at, with their numbers."""
    edges = [step for step, name in enumerate(steps) if "COMMIT" in name]
    around = {near for edge in edges for near in (edge - 1, edge, edge + 1)}
    return [(step, name) for step, name in enumerate(steps) if EVERY_LINE or step in around or step % 10 == 0]


def cases() -> Iterator[object]:
    for flavor in Flavor:
        for name, change in CHANGES.items():
            if EVERY_LINE or (flavor, name) in OFTEN:
                yield pytest.param(flavor, change, id=f"{flavor}-{name}")


@pytest.mark.parametrize(("server", "change"), list(cases()), indirect=["server"])
def test_a_kill_between_any_two_steps_of_a_change_leaves_a_state_of_the_source(
    database: Database, tmp_path: Path, change: str
) -> None:
    database.execute(*TABLES)
    base = tmp_path / "base.db"
    states = [replicated(database.url, base)]
    before = copied(base, tmp_path / "before" / "replica.db")
    database.execute("INSERT INTO a (pad, id, v) VALUES (5, 5, 'before')", "DELETE FROM b WHERE id = 2")
    states.append(replicated(database.url, before))
    place = end_of_log(database)
    database.execute(change)
    behind = end_of_log(database)
    steps = steps_to_the_end(
        database.url, copied(base, tmp_path / "after" / "replica.db"), every_line=EVERY_LINE
    )
    states.append(replicated(database.url, tmp_path / "after" / "replica.db"))
    unchanged, changed = states[:2], states[2:]
    print(len(steps), *steps, sep="\n")

    killed = tmp_path / "killed" / "replica.db"
    kills = 0
    for step, name in chosen(steps):
        kills += kill_at(database.url, copied(base, killed), step, every_line=EVERY_LINE)
        with duckdb.connect(str(copied(killed, tmp_path / "remains" / "replica.db"))) as copy:
            found = contents(copy)
            position, waits = bookkeeping(copy)
        # Between both places stands the change, and what others wrote to their databases meanwhile.
        legal = unchanged if position <= place else changed if position >= behind else states
        assert found in (states if waits else legal), name
        database.execute("INSERT INTO later () VALUES ()")
        replicated(database.url, killed)
    assert kills
