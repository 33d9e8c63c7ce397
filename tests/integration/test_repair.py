"""Rows repaired by their keys, as other parts of the engine do: keys of every kind, exactly, at one place."""

from __future__ import annotations

import pytest

from cdc.engine import Engine
from cdc.errors import ConflictError, NotPossibleError
from cdc.replica import state
from cdc.runs import Run
from cdc.sandbox.databases import Database
from cdc.schema import Table
from cdc.validation.repair import HELD_KEYS, Key, repair_rows
from tests.integration.test_validation import repaired, write
from tests.replica import Replica
from tests.types.test_keys import _assert_equal, _create, keys

pytestmark = pytest.mark.crossed


def definition(replica: Replica, name: str) -> Table:
    records = replica.pipeline._engine.replica.read(state.load_tables)
    found = records[name].definition
    assert found is not None
    return found


def repair(replica: Replica, name: str, wanted: list[Key]) -> int:
    pipeline = replica.pipeline
    table = definition(replica, name)
    return repair_rows(pipeline._engine, pipeline._stream, table, wanted, Run("validation"))


def test_keys_of_every_kind_are_found_and_repaired(database: Database, replica: Replica) -> None:
    found = keys(database.flavor)
    with database.connect(sql_mode="").cursor() as cursor:
        for name, key in found.items():
            cursor.execute(_create(name, key))
            for i, each in enumerate(key.keys):
                cursor.execute(f"INSERT INTO {name} VALUES ({each}, {i})")
    replica.start()
    assert replica.pipeline.validate("checksum").equal
    for name in found:
        write(replica, f"UPDATE {name} SET n = -1 WHERE n IN (0, 3)", f"DELETE FROM {name} WHERE n IN (1, 7)")
    with database.connect(sql_mode="").cursor() as cursor:
        for name, key in found.items():
            # by the stream: what stands beside the rows that are to be repaired
            cursor.execute(f"INSERT INTO {name} VALUES ({key.moved[0]}, 8)")
    replica.catch_up()
    for name, result in repaired(replica).items():
        assert (result.missing, result.changed, result.extra) == (2, 2, 0), name
        assert result.repair is not None
        assert result.repair.rows == 4, name
    _assert_equal(database, replica, found)


def test_rows_that_the_source_lacks_are_removed(database: Database, replica: Replica) -> None:
    database.execute(
        "CREATE TABLE pairs (a INT, b VARCHAR(9), n INT, PRIMARY KEY (b, a))",
        "INSERT INTO pairs VALUES (1, 'x', 1), (2, 'y', 2)",
    )
    replica.start()
    write(replica, "INSERT INTO pairs VALUES (3, 'z', 3)", "UPDATE pairs SET n = 9 WHERE a = 1")
    assert repair(replica, "pairs", [("z", 3), ("x", 1), ("nowhere", 5)]) == 3
    replica.assert_equal()


def test_more_rows_than_the_stream_is_held_for_are_repaired_in_parts(
    database: Database, replica: Replica
) -> None:
    count = 2 * HELD_KEYS + 5
    database.execute(
        "CREATE TABLE numbers (id INT PRIMARY KEY, n INT)",
        "INSERT INTO numbers VALUES " + ", ".join(f"({i}, {i})" for i in range(count)),
    )
    replica.start()
    write(replica, "UPDATE numbers SET n = n + 1")
    assert repair(replica, "numbers", [(i,) for i in range(count)]) == count
    replica.assert_equal()


def test_what_the_source_writes_right_before_and_after_a_repair_stays(
    database: Database, replica: Replica
) -> None:
    database.execute(
        "CREATE TABLE numbers (id INT PRIMARY KEY, n INT)", "INSERT INTO numbers VALUES (1, 1), (2, 2)"
    )
    replica.start()
    for step in range(20):
        database.execute(f"UPDATE numbers SET n = {step}", f"DELETE FROM numbers WHERE id = {1 + step % 2}")
        repair(replica, "numbers", [(1,), (2,)])
        assert replica.rows("SELECT * FROM numbers") == [(2 - step % 2, step)]
        database.execute(f"INSERT INTO numbers VALUES ({1 + step % 2}, 100)")
    replica.catch_up()
    replica.assert_equal()


def test_a_table_without_a_key_has_no_rows_to_repair(database: Database, replica: Replica) -> None:
    database.execute("CREATE TABLE visits (page VARCHAR(9))")
    replica.start()
    with pytest.raises(NotPossibleError) as raised:
        repair(replica, "visits", [("x",)])
    assert raised.value.code == "NO_KEY"


def test_without_a_stream_nothing_is_repaired(database: Database, replica: Replica) -> None:
    database.execute("CREATE TABLE numbers (id INT PRIMARY KEY)", "INSERT INTO numbers VALUES (1)")
    replica.start()
    replica.pipeline.stop_stream()
    with pytest.raises(ConflictError):
        repair(replica, "numbers", [(1,)])


def test_a_position_that_moved_on_under_a_repair_lets_it_begin_anew(
    database: Database, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the stream is lost while it is held, and a new one has applied more by the time of the write."""
    database.execute("CREATE TABLE numbers (id INT PRIMARY KEY, n INT)", "INSERT INTO numbers VALUES (1, 1)")
    replica.start()
    write(replica, "UPDATE numbers SET n = 9")
    engine: Engine = replica.pipeline._engine
    submit = engine.writer.submit
    moved: list[int] = []

    def after_another_position(job: object) -> object:
        if not moved and getattr(job, "__qualname__", "").startswith("_repair."):
            moved.append(1)
            place = engine.position()
            assert place is not None
            write(replica, "UPDATE _duckling.cdc_binlog_position SET position = position + 1")
            try:
                return submit(job)  # type: ignore[arg-type]
            finally:
                submit(lambda cursor: state.save_position(cursor, engine.id, place))
        return submit(job)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.writer, "submit", after_another_position)
    assert repair(replica, "numbers", [(1,)]) == 1
    assert moved == [1]
    monkeypatch.undo()
    assert replica.pipeline.validate("checksum").equal
    assert replica.rows("SELECT * FROM numbers") == [(1, 1)]
