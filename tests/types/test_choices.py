"""What the settings choose: TINYINT(1), ENUM and zero dates, the same by copy and by stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from cdc.config import Settings
from cdc.metrics import Metrics
from cdc.pipeline import Pipeline
from cdc.sandbox.databases import Database
from cdc.status import TableState
from tests.replica import Replica
from tests.waiting import SECONDS, wait_until

LENIENT = "ALLOW_INVALID_DATES"


def types(replica: Replica, table: str) -> dict[str, str]:
    """The table's columns with their DuckDB types."""
    found = replica.rows(f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = '{table}'")
    return dict(found)


def write(database: Database, *statements: str) -> None:
    """Statements of a session that takes zero dates and values that are no member."""
    with database.connect(sql_mode=LENIENT).cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def states(replica: Replica) -> dict[str, TableState]:
    return {table.table: table.state for table in replica.pipeline.status().tables}


def copies(replica: Replica) -> list[str | None]:
    """Tables that were copied, as the log of runs has them, the oldest first."""
    return replica.copies()


def test_a_tinyint_of_width_one_is_an_integer_unless_booleans_are_chosen(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    write(
        database,
        "CREATE TABLE t (id INT PRIMARY KEY, a TINYINT(1), b BOOL, c TINYINT, d TINYINT(1) UNSIGNED)",
        "CREATE TABLE k (flag TINYINT(1) PRIMARY KEY)",
        "INSERT INTO t VALUES (1, 0, 1, 2, 3), (2, 2, -1, -1, 0), (3, NULL, NULL, NULL, NULL)",
        "INSERT INTO k VALUES (1)",
    )
    replica = replica_factory(database.url, tinyint1="boolean").start()
    write(
        database,
        "INSERT INTO t VALUES (11, 0, 1, 2, 3), (12, 2, -1, -1, 0), (13, NULL, NULL, NULL, NULL)",
        "INSERT INTO k VALUES (2), (-1)",
    )
    replica.catch_up()
    assert types(replica, "t") == {
        "id": "INTEGER",
        "a": "BOOLEAN",
        "b": "BOOLEAN",
        "c": "TINYINT",
        "d": "UTINYINT",
    }
    copied = replica.rows("SELECT a, b, c, d FROM t WHERE id < 10 ORDER BY id")
    assert copied == [(False, True, 2, 3), (True, True, -1, 0), (None, None, None, None)]
    assert replica.rows("SELECT a, b, c, d FROM t WHERE id > 10 ORDER BY id") == copied
    # in a key, 1 and 2 must not become one
    assert types(replica, "k") == {"flag": "TINYINT"}
    assert replica.rows("SELECT flag FROM k ORDER BY flag") == [(-1,), (1,), (2,)]


def test_an_enum_is_duckdbs_own_where_that_is_chosen(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    write(
        database,
        "CREATE TABLE t (id INT PRIMARY KEY, e ENUM('small','b''c','d,e') CHARACTER SET latin1,"
        " f ENUM('x','') NOT NULL)",
        "CREATE TABLE k (e ENUM('z','a') PRIMARY KEY, n INT)",
        "CREATE TABLE n (e ENUM('z','a'))",
        "INSERT INTO t VALUES (1, 'small', 'x'), (2, 'b''c', ''), (3, 'none', 'none'), (4, NULL, 'x')",
        "INSERT INTO k VALUES ('z', 1)",
        "INSERT INTO n VALUES ('z'), ('z'), (NULL)",
    )
    replica = replica_factory(database.url, enum="enum").start()
    write(
        database,
        "INSERT INTO t VALUES (11, 'small', 'x'), (12, 'b''c', ''), (13, 'none', 'none'), (14, NULL, 'x')",
        "INSERT INTO k VALUES ('a', 2)",
        "UPDATE k SET n = 3 WHERE e = 'z'",
        "UPDATE n SET e = 'a' WHERE e = 'z' LIMIT 1",
        "DELETE FROM n WHERE e IS NULL",
    )
    replica.catch_up()
    assert types(replica, "t")["e"] == "ENUM('', 'small', 'b''c', 'd,e')"
    assert types(replica, "t")["f"] == "ENUM('x', '')"
    copied = replica.rows("SELECT e, f FROM t WHERE id < 10 ORDER BY id")
    assert copied == [("small", "x"), ("b'c", ""), ("", ""), (None, "x")]
    assert replica.rows("SELECT e, f FROM t WHERE id > 10 ORDER BY id") == copied
    # the order of members, as at the source
    assert replica.rows("SELECT e, n FROM k ORDER BY e") == [("z", 3), ("a", 2)]
    assert replica.rows("SELECT e FROM n ORDER BY e") == [("z",), ("a",)]


def test_a_duckdb_enum_follows_its_members(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    write(
        database,
        "CREATE TABLE t (id INT PRIMARY KEY, e ENUM('b','a'))",
        "INSERT INTO t VALUES (1, 'b'), (2, 'a')",
    )
    replica = replica_factory(database.url, enum="enum").start()
    write(
        database,
        "INSERT INTO t VALUES (3, 'b')",
        "ALTER TABLE t MODIFY e ENUM('a','new','b')",
        "INSERT INTO t VALUES (4, 'new')",
    )
    replica.settle()
    assert types(replica, "t")["e"] == "ENUM('', 'a', 'new', 'b')"
    assert replica.rows("SELECT id, e FROM t ORDER BY id") == [(1, "b"), (2, "a"), (3, "b"), (4, "new")]


def test_an_enum_with_members_that_the_catalogue_cannot_print_stays_text(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    write(
        database,
        "CREATE TABLE t (id INT PRIMARY KEY, e ENUM('😀','b') CHARACTER SET utf8mb4)",
        "INSERT INTO t VALUES (1, '😀')",
    )
    replica = replica_factory(database.url, enum="enum").start()
    write(database, "INSERT INTO t VALUES (2, '😀')")
    replica.catch_up()
    assert types(replica, "t")["e"] == "VARCHAR"
    assert replica.rows("SELECT e FROM t ORDER BY id") == [("😀",), ("😀",)]


ODD_DATES = "'0000-00-00', '2024-00-00 01:02:03', 0, 1"
"""Three dates that the calendar lacks, in a row that has a fourth column."""
DATED = "d DATE NOT NULL, dt DATETIME(3) NOT NULL, ts TIMESTAMP NOT NULL DEFAULT 0, n INT"


@pytest.fixture
def measured(database: Database, tmp_path: Path) -> Iterator[tuple[Pipeline, Metrics]]:
    """A pipeline of `database` with the usual settings, not started yet, and its metrics."""
    metrics = Metrics()
    settings = Settings(mysql_connection_string=SecretStr(database.url), duckdb_path=tmp_path / "measured.db")
    pipeline = Pipeline("default", settings, metrics.for_database("default"))
    yield pipeline, metrics
    pipeline.stop()


def zero_dates(metrics: Metrics) -> dict[str, float]:
    return {
        sample.labels["table"]: sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == "duckling_zero_dates_total"
    }


def test_zero_dates_become_null_also_where_null_is_not_allowed_and_are_counted(
    database: Database, measured: tuple[Pipeline, Metrics]
) -> None:
    write(
        database,
        f"CREATE TABLE t (id INT PRIMARY KEY, {DATED})",
        "CREATE TABLE clean (id INT PRIMARY KEY, d DATE)",
        f"INSERT INTO t VALUES (1, {ODD_DATES}), (2, '2024-02-29', '2024-01-01', '2024-01-01', 2)",
        "INSERT INTO clean VALUES (1, '2024-01-01'), (2, NULL)",
    )
    pipeline, metrics = measured
    pipeline.check_start()
    pipeline.start()
    pipeline.wait_streaming(SECONDS)
    assert zero_dates(metrics) == {"t": 3}
    write(
        database,
        f"INSERT INTO t VALUES (3, {ODD_DATES})",
        "INSERT INTO clean VALUES (3, NULL)",
        "UPDATE t SET d = '0000-00-00' WHERE id = 2",
    )
    pipeline.start_incremental_sync().wait(SECONDS)
    reader = pipeline.reader()
    rows = reader.execute("SELECT id, d, dt IS NULL, ts IS NULL, n FROM t ORDER BY id").fetchall()
    reader.close()
    assert rows == [(1, None, True, True, 1), (2, None, False, False, 2), (3, None, True, True, 1)]
    assert zero_dates(metrics) == {"t": 7}


def test_a_table_with_zero_dates_is_set_aside_where_they_are_an_error(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    for name in ("copied", "streamed", "clean"):
        write(database, f"CREATE TABLE {name} (id INT PRIMARY KEY, {DATED})")
    write(database, f"INSERT INTO copied VALUES (1, {ODD_DATES})")
    replica = replica_factory(database.url, zero_dates="error").start(live=False)
    replica.pipeline.wait_streaming(SECONDS)
    assert states(replica)["copied"] is TableState.ERRORED
    write(
        database,
        "INSERT INTO streamed VALUES (1, '2024-01-01', '2024-01-01', '2024-01-01', 1)",
        f"INSERT INTO streamed VALUES (2, {ODD_DATES})",
        "INSERT INTO clean VALUES (1, '2024-01-01', '2024-01-01', '2024-01-01', 1)",
    )
    wait_until(lambda: states(replica)["streamed"] is TableState.ERRORED, "the table is set aside")
    replica.pipeline.wait_streaming(SECONDS)
    replica.catch_up()
    assert states(replica)["clean"] is TableState.STREAMING
    assert replica.value("SELECT count(*) FROM clean") == 1
    reasons = {table.table: table.reason or "" for table in replica.pipeline.status().tables}
    assert "Column d holds a date that the calendar lacks" in reasons["copied"]
    assert "Column d holds a date that the calendar lacks" in reasons["streamed"]
    # repaired at the source, and asked for again
    write(database, "DELETE FROM copied", "DELETE FROM streamed WHERE id = 2")
    for name in ("copied", "streamed"):
        replica.pipeline.start_table_sync(name).wait(SECONDS)
    replica.settle()
    assert set(states(replica).values()) == {TableState.STREAMING}
    assert replica.rows("SELECT id FROM streamed") == [(1,)]


@pytest.mark.parametrize("by", ["copy", "stream"])
def test_a_zero_date_in_a_primary_key_is_always_an_error(
    database: Database, replica_factory: Callable[..., Replica], by: str
) -> None:
    row = "INSERT INTO t VALUES ('0000-00-00', 1), ('2024-00-00', 2)"
    write(database, "CREATE TABLE t (d DATE PRIMARY KEY, n INT)", *([row] if by == "copy" else []))
    replica = replica_factory(database.url).start(live=False)
    replica.pipeline.wait_streaming(SECONDS)
    if by == "stream":
        write(database, "INSERT INTO t VALUES ('2024-01-01', 0)", row)
    wait_until(lambda: states(replica)["t"] is TableState.ERRORED, "the table is set aside")


def test_a_changed_setting_copies_the_tables_again_that_it_concerns(
    database: Database, replica_factory: Callable[..., Replica]
) -> None:
    write(
        database,
        "CREATE TABLE flags (id INT PRIMARY KEY, a TINYINT(1))",
        "CREATE TABLE members (id INT PRIMARY KEY, e ENUM('x','y'))",
        "CREATE TABLE dates (id INT PRIMARY KEY, d DATE)",
        "CREATE TABLE keyed (d DATE PRIMARY KEY)",
        "CREATE TABLE plain (id INT PRIMARY KEY)",
        "INSERT INTO flags VALUES (1, 2)",
        "INSERT INTO members VALUES (1, 'y')",
        "INSERT INTO dates VALUES (1, '2024-01-01')",
    )
    replica = replica_factory(database.url).start()
    first = ["dates", "flags", "keyed", "members", "plain"]
    assert sorted(map(str, copies(replica))) == first
    replica.stop()
    write(database, "INSERT INTO flags VALUES (2, 0)", "INSERT INTO plain VALUES (5)")

    changed = replica_factory(database.url, tinyint1="boolean", enum="enum").start()
    changed.settle()
    assert sorted(map(str, copies(changed)[5:])) == ["flags", "members"]
    assert types(changed, "flags")["a"] == "BOOLEAN"
    assert types(changed, "members")["e"] == "ENUM('', 'x', 'y')"
    assert changed.rows("SELECT id, a FROM flags ORDER BY id") == [(1, True), (2, False)]
    assert changed.rows("SELECT id FROM plain") == [(5,)]
    changed.stop()

    same = replica_factory(database.url, tinyint1="boolean", enum="enum").start()
    same.settle()
    assert len(copies(same)) == 7
    same.stop()

    strict = replica_factory(database.url, tinyint1="boolean", enum="enum", zero_dates="error").start()
    strict.settle()
    assert copies(strict)[7:] == ["dates"]


@pytest.mark.parametrize("by", ["copy", "stream"])
def test_a_table_that_was_set_aside_is_copied_again_when_its_setting_is_changed(
    database: Database, replica_factory: Callable[..., Replica], by: str
) -> None:
    write(database, f"CREATE TABLE t (id INT PRIMARY KEY, {DATED})")
    row = f"INSERT INTO t VALUES (1, {ODD_DATES})"
    if by == "copy":
        write(database, row)
    replica = replica_factory(database.url, zero_dates="error").start(live=False)
    replica.pipeline.wait_streaming(SECONDS)
    if by == "stream":
        write(database, row)
    wait_until(lambda: states(replica)["t"] is TableState.ERRORED, "the table is set aside")
    replica.stop()
    lenient = replica_factory(database.url, zero_dates="null").start(live=False)
    lenient.settle()
    assert lenient.rows("SELECT id, d, n FROM t") == [(1, None, 1)]
