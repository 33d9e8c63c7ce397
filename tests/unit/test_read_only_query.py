"""What clients' SQL may do, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from cdc import query, read_only
from cdc.deadlines import Deadlines
from cdc.errors import DucklingError, QueryError, QueryTimeoutError, StoppedError
from cdc.query import QueryResult, described, reading_statement, run_query
from cdc.read_only import MAX_SQL, READ_ONLY, check_read_only
from cdc.replica.database import ReplicaDatabase

OUTSIDE = "outside.csv"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[duckdb.DuckDBPyConnection]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / OUTSIDE).write_text("secret\n1\n")
    with duckdb.connect(str(tmp_path / "copy.db")) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, note VARCHAR)")
        connection.execute("INSERT INTO orders VALUES (1, 'one'), (2, 'two'), (3, NULL)")
        connection.execute("CREATE SEQUENCE numbers")
        connection.execute("CREATE SCHEMA _duckling")
        connection.execute("CREATE TABLE _duckling.sync_log (message VARCHAR)")
        connection.execute("CREATE TABLE _duckling.orders (hidden VARCHAR)")
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection


def run(
    database: duckdb.DuckDBPyConnection,
    sql: str,
    params: Any = None,
    *,
    max_rows: int = 100,
    timeout_ms: int = 10_000,
) -> QueryResult:
    with database.cursor() as cursor:
        return run_query(cursor, sql, params, max_rows, timeout_ms)


READING = (
    "SELECT * FROM orders",
    "FROM orders",
    "TABLE orders",
    "VALUES (1)",
    "WITH x AS (SELECT 1 AS a) SELECT a FROM x",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) FROM r",
    "SELECT * FROM range(3) UNION ALL SELECT * FROM generate_series(2)",
    "SELECT unnest([1, 2])",
    "DESCRIBE orders",
    "SHOW TABLES",
    "SHOW ALL TABLES",
    "SUMMARIZE orders",
    "EXPLAIN SELECT * FROM orders",
    "EXPLAIN ANALYZE SELECT * FROM orders",
    "explain (format json) select 1",
    "PIVOT orders ON id IN (1, 2) USING count(*)",
    "UNPIVOT orders ON id",
    "SELECT table_name FROM duckdb_tables()",
    "SELECT table_name FROM information_schema.tables",
    "SELECT 1;",
    "SELECT 'é;' ; -- the end; really ;",
    "/* first */ SELECT 1 /* last */ ; ;",
)


@pytest.mark.parametrize("sql", READING)
def test_statements_that_read_are_run(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    assert run(database, sql).columns


REFUSED = (
    "INSERT INTO orders VALUES (9, 'x')",
    "INSERT INTO orders VALUES (9, 'x') RETURNING *",
    "UPDATE orders SET note = 'x'",
    "DELETE FROM orders",
    "MERGE INTO orders USING (SELECT 1 AS id) AS s USING (id) WHEN MATCHED THEN DELETE",
    "TRUNCATE orders",
    "WITH w AS (INSERT INTO orders VALUES (9, 'x') RETURNING *) SELECT * FROM w",
    "WITH w AS (DELETE FROM orders RETURNING *) SELECT * FROM w",
    "WITH w AS (UPDATE orders SET note = 'x' RETURNING *) SELECT * FROM w",
    "EXPLAIN ANALYZE INSERT INTO orders VALUES (9, 'x')",
    "EXPLAIN ANALYZE WITH w AS (DELETE FROM orders RETURNING *) SELECT * FROM w",
    "EXPLAIN /* x */ ANALYZE DELETE FROM orders",
    "CREATE TABLE t (a INTEGER)",
    "CREATE TEMP TABLE t (a INTEGER)",
    "CREATE TABLE t AS SELECT 1",
    "CREATE MACRO m() AS 1",
    "DROP TABLE orders",
    "ALTER TABLE orders ADD COLUMN x INTEGER",
    "COPY orders TO 'out.csv'",
    "COPY (SELECT 1) TO 'out.csv'",
    f"COPY orders FROM '{OUTSIDE}'",
    "EXPORT DATABASE 'out'",
    "IMPORT DATABASE 'out'",
    "ATTACH 'other.db'",
    "ATTACH ':memory:' AS other",
    "DETACH copy",
    "USE main",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET memory_limit = '1GB'",
    "SET search_path = '_duckling'",
    "SET VARIABLE x = 1",
    "RESET memory_limit",
    "PRAGMA enable_profiling",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CALL force_checkpoint()",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "SELECT nextval('numbers')",
    "SELECT write_log('x')",
    "SELECT (SELECT nextval('numbers'))",
    "FROM checkpoint()",
    "SELECT * FROM orders, LATERAL (SELECT * FROM force_checkpoint())",
    "FROM enable_logging()",
    "FROM truncate_duckdb_logs()",
    "FROM enable_profiling(format = 'json', save_location = 'profile.json')",
    f"FROM '{OUTSIDE}'",
    f'FROM "{OUTSIDE}"',
    f"SELECT * FROM read_csv('{OUTSIDE}')",
    f"SELECT * FROM READ_CSV_AUTO('{OUTSIDE}')",
    f"SELECT * FROM \"Read_Text\"('{OUTSIDE}')",
    f"SELECT * FROM main.read_text('{OUTSIDE}')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_json('x.json')",
    "SELECT * FROM read_parquet('https://example.com/x.parquet')",
    "SELECT * FROM parquet_metadata('x.parquet')",
    "SELECT * FROM sniff_csv('x.csv')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_duckdb('other.db')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_settings()",
    f"SELECT (SELECT count(*) FROM read_text('{OUTSIDE}'))",
    f"SELECT 1 WHERE EXISTS (FROM read_text('{OUTSIDE}'))",
    f"WITH x AS (FROM read_text('{OUTSIDE}')) SELECT 1",
    f"SELECT 1 ORDER BY (SELECT content FROM read_text('{OUTSIDE}'))",
    f"EXPLAIN SELECT * FROM read_text('{OUTSIDE}')",
    f"SUMMARIZE FROM read_csv('{OUTSIDE}')",
    f"DESCRIBE FROM read_csv('{OUTSIDE}')",
    f"PIVOT (FROM read_csv('{OUTSIDE}')) ON secret IN (1)",
    "FROM query('SELECT 1')",
    f"FROM query('FROM read_text(''{OUTSIDE}'')')",
    f"FROM query_table('{OUTSIDE}')",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE orders",
    "COMMIT; DROP TABLE orders",
    "",
    "-- nothing",
    ";",
)


@pytest.mark.parametrize("sql", REFUSED)
def test_statements_that_do_more_than_read_are_refused(
    database: duckdb.DuckDBPyConnection, tmp_path: Path, sql: str
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(QueryError) as caught:
        run(database, sql)
    assert caught.value.code == READ_ONLY
    assert caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert database.execute("SELECT count(*), count(note) FROM orders").fetchone() == (3, 2)


@pytest.mark.parametrize("sql", READING)
def test_columns_are_named_as_describe_names_them(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    """They come from the bound statement, which is not run for it."""
    with database.cursor() as cursor:
        statement, is_select = check_read_only(cursor, sql)
        if is_select:
            told = cursor.execute(f"DESCRIBE {statement}").fetchall()
            assert [(c.name, c.type) for c in described(cursor, statement, [])] == [row[:2] for row in told]


def test_types_are_told_as_describe_tells_them(database: duckdb.DuckDBPyConnection) -> None:
    with database.cursor() as cursor:
        for sql, params in (
            ("FROM test_all_types()", []),
            ("SELECT ? AS a, $2 AS b, NULL AS c, [NULL] AS d", [1.5, [1, None]]),
            ("SELECT $name AS a, {'x y': $name} AS b", {"name": "x"}),
        ):
            told = cursor.execute(f"DESCRIBE {sql}", params).fetchall()
            assert [(c.name, c.type) for c in described(cursor, sql, params)] == [row[:2] for row in told]


def test_to_describe_a_statement_does_not_run_it(database: duckdb.DuckDBPyConnection) -> None:
    with database.cursor() as cursor:
        [column] = described(cursor, "SELECT (error('run') || $text)::VARCHAR AS n", {"text": "x"})
    assert (column.name, column.type) == ("n", "VARCHAR")


def test_a_text_that_passed_is_not_looked_at_again(
    database: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever tables there are now; what was refused is looked at each time, and what is long too."""
    looked: list[str] = []

    def look(cursor: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, bool]:
        looked.append(sql)
        return plain(cursor, sql)

    plain = read_only._check
    monkeypatch.setattr(read_only, "_check", look)
    monkeypatch.setattr(read_only, "_passed", read_only._Passed())
    database.execute("CREATE TABLE brief AS SELECT 1 AS n")
    long = f"SELECT 1 AS n -- {'x' * read_only.KEPT_LENGTH}"
    for _ in range(2):
        assert run(database, "FROM brief;").rows == [{"n": 1}]
        assert run(database, long).rows == [{"n": 1}]
        with pytest.raises(QueryError, match="refused"):
            run(database, "DROP TABLE brief")
    assert looked == ["FROM brief;", long, "DROP TABLE brief", long, "DROP TABLE brief"]
    database.execute("DROP TABLE brief")
    with pytest.raises(QueryError, match="brief"):
        run(database, "FROM brief;")
    database.execute("CREATE TABLE brief AS SELECT 'x' AS other")
    assert run(database, "FROM brief;").rows == [{"other": "x"}]
    # the latest that were asked for stay
    for number in range(read_only.KEPT_TEXTS):
        run(database, f"SELECT {number}")
        run(database, "FROM brief;")
    del looked[:]
    run(database, "FROM brief;")
    run(database, "SELECT 1")
    run(database, "SELECT 0")
    assert looked == ["SELECT 0"]


def test_python_variables_are_no_tables(database: duckdb.DuckDBPyConnection) -> None:
    frame = duckdb.connect().sql("SELECT 42 AS secret").to_arrow_table()
    assert frame.num_rows == 1
    with pytest.raises(QueryError, match="frame"):
        run(database, "SELECT * FROM frame")


def test_tables_registered_by_the_writer_are_not_seen(database: duckdb.DuckDBPyConnection) -> None:
    database.register("batch", duckdb.connect().sql("SELECT 42 AS id").to_arrow_table())
    with pytest.raises(QueryError, match="batch"):
        run(database, "SELECT * FROM batch")


def test_the_file_is_opened_without_access_to_others_for_good(tmp_path: Path) -> None:
    """What `run_query` takes for granted: no cursor of the replica's, the writer's neither, reaches another file."""
    (tmp_path / OUTSIDE).write_text("secret\n1\n")
    replica = ReplicaDatabase(tmp_path / "replica.db", memory_limit="100MB")
    replica.open()
    try:
        for _ in range(2):
            with replica.cursor() as cursor:
                with pytest.raises(duckdb.PermissionException):
                    cursor.execute(f"SELECT * FROM read_csv('{tmp_path / OUTSIDE}')")
                assert cursor.execute("SELECT current_setting('preserve_insertion_order')").fetchall() == [
                    (True,)
                ]
                for change in ("SET enable_external_access = true", "SET lock_configuration = false"):
                    with pytest.raises(duckdb.Error):
                        cursor.execute(change)
    finally:
        replica.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM missing",
        "SELEC 1",
        "SELECT missing FROM orders",
        "SELECT 'x'::INTEGER",
        "SELECT ?",
        "SELECT error('mine')",
        "SELECT \x00 1",
    ],
)
def test_wrong_sql_is_named_in_one_line(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    with pytest.raises(QueryError) as caught:
        run(database, sql)
    assert caught.value.code == "QUERY"
    assert "\n" not in caught.value.message


def test_deep_and_long_statements_are_run_or_refused_but_end_nothing(
    database: duckdb.DuckDBPyConnection,
) -> None:
    assert run(database, f"SELECT {'+'.join(['1'] * 400)} AS n").rows == [{"n": 400}]
    for sql in (
        f"SELECT {'(' * 40_000}1{')' * 40_000}",
        f"SELECT {'+'.join(['1'] * 40_000)}",
        f"SELECT * FROM {'(SELECT * FROM ' * 800}range(1){')' * 800}",
        f"SELECT {'NOT ' * 20_000}TRUE",
        f"SELECT '{'x' * MAX_SQL}'",
    ):
        with pytest.raises(QueryError):
            run(database, sql)
    assert run(database, "SELECT 1 AS one").rows == [{"one": 1}]


def test_words_inside_of_literals_are_no_statements(database: duckdb.DuckDBPyConnection) -> None:
    text = '"type":"INSERT_QUERY_NODE" "function_name":"nextval" "type":"TABLE_FUNCTION"'
    assert run(database, f"SELECT '{text}' AS t, 1 AS \"insert\"").rows == [{"t": text, "insert": 1}]


def test_parameters_go_by_place_or_by_name(database: duckdb.DuckDBPyConnection) -> None:
    assert run(database, "SELECT note FROM orders WHERE id = ?", [2]).rows == [{"note": "two"}]
    assert run(database, "SELECT note FROM orders WHERE id = $id", {"id": 1}).rows == [{"note": "one"}]
    with pytest.raises(QueryError):
        run(database, "SELECT ?", [1, 2])


def test_rows_beyond_the_limit_are_cut_and_told(database: duckdb.DuckDBPyConnection) -> None:
    cut = run(database, "SELECT id FROM orders ORDER BY id DESC", max_rows=2)
    assert (cut.rows, cut.truncated) == ([{"id": 3}, {"id": 2}], True)
    assert not run(database, "SELECT id FROM orders", max_rows=3).truncated
    endless = run(database, "SELECT * FROM range(1000000000000)", max_rows=5)
    assert (len(endless.rows), endless.truncated) == (5, True)


def test_a_query_over_its_time_is_interrupted(database: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(QueryTimeoutError, match="longer than 50 ms"):
        run(database, "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b", timeout_ms=50)
    with pytest.raises(QueryTimeoutError):
        run(database, "SELECT sleep_ms(60000)", timeout_ms=50)
    assert run(database, "SELECT 1 AS one").rows == [{"one": 1}]


def test_a_deadline_that_passes_between_two_statements_is_kept(
    database: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB forgets the interrupt of that moment, as it does while a statement is bound."""
    deadlines = Deadlines()
    monkeypatch.setattr(query, "_deadlines", deadlines)

    def run_late(cursor: duckdb.DuckDBPyConnection) -> None:
        with reading_statement(cursor, "SELECT sleep_ms(60000)", 1) as (statement, _):
            [passed] = deadlines._due
            assert passed.wait(10)
            cursor.execute(statement)

    with database.cursor() as cursor, pytest.raises(QueryTimeoutError, match="longer than 1 ms"):
        run_late(cursor)


def test_a_query_interrupted_by_others_is_no_timeout(database: duckdb.DuckDBPyConnection) -> None:
    with database.cursor() as cursor:
        timer = threading.Timer(0.1, cursor.interrupt)
        timer.start()
        with pytest.raises(StoppedError):
            run_query(cursor, "SELECT sleep_ms(60000)", None, 1, 60_000)
        timer.join()


def test_a_cursor_is_free_again_after_each_query(database: duckdb.DuckDBPyConnection) -> None:
    with database.cursor() as cursor:
        for sql in ("SELECT 1", "SELECT * FROM missing", "SELECT 'x'::INTEGER", "DROP TABLE orders"):
            try:
                run_query(cursor, sql, None, 1, 1000)
            except DucklingError:
                continue
        assert run_query(cursor, "SELECT count(*) AS n FROM orders", None, 1, 1000).rows == [{"n": 3}]


def test_names_resolve_in_main_and_then_in_the_bookkeeping(database: duckdb.DuckDBPyConnection) -> None:
    assert [c.name for c in run(database, "FROM sync_log").columns] == ["message"]
    assert [c.name for c in run(database, "FROM orders").columns] == ["id", "note"]
