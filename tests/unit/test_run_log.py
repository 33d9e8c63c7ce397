"""The log of runs: what is kept of it."""

from __future__ import annotations

import duckdb
import pytest

from cdc.replica import run_log
from cdc.runs import Run
from cdc.status import TableResult


def test_the_log_keeps_the_latest_rows_of_both_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "_KEPT", 20)
    monkeypatch.setattr(run_log, "_PRUNED_EVERY", 10)
    with duckdb.connect() as cursor:
        cursor.execute("CREATE SCHEMA _duckling")
        cursor.execute(run_log.CREATE)
        runs = [Run("full") for _ in range(60)]
        for number, run in enumerate(runs):
            run_log.begin(cursor, run)
            results = [
                TableResult(f"t{each}", number, 1, "success", "snapshot") for each in range(number % 4)
            ]
            run_log.end(cursor, run, "success", results, records=number)
        entries = run_log.read_log(cursor, 1_000)
        assert 20 <= len(entries) <= 30
        assert [entry.records for entry in entries] == sorted((e.records for e in entries), reverse=True)
        kept = run_log.latest(cursor, 1_000)
        assert 20 <= len(kept) <= 35
        assert [record.id for record in kept] == [run.id for run in reversed(runs)][: len(kept)]


def test_a_run_over_thousands_of_tables_is_one_statement_of_the_log() -> None:
    with duckdb.connect() as cursor:
        cursor.execute("CREATE SCHEMA _duckling")
        cursor.execute(run_log.CREATE)
        run = Run("full")
        run_log.begin(cursor, run)
        results = [TableResult(f"t{n}", n, 1, "error", "snapshot", "'; \" \n") for n in range(3_000)]
        run_log.end(cursor, run, "error", results, error="three thousand failed", error_code="X")
        found = run_log.find(cursor, run.id)
        assert found is not None
        assert list(found[1]) == results
        assert (found[0].error, found[0].error_code) == ("three thousand failed", "X")
        assert len(run_log.read_log(cursor, 10_000)) == 3_001


@pytest.mark.parametrize("begun", [True, False])
def test_the_record_of_an_end_is_whole_with_and_without_that_of_the_beginning(begun: bool) -> None:
    with duckdb.connect() as cursor:
        cursor.execute("CREATE SCHEMA _duckling")
        cursor.execute(run_log.CREATE)
        run = Run("table", ("a", "b"), automatic=True)
        if begun:
            run_log.begin(cursor, run)
        run_log.end(cursor, run, "error", records=3, duration_ms=4, error="lost", error_code="X")
        [found] = run_log.latest(cursor, 10)
        assert found.ended_at is not None
        assert found == run_log.RunRecord(
            run.id, "table", ("a", "b"), True, "error", 3, 4, "lost", "X", run.asked_at, found.ended_at
        )
        assert run_log.interrupt(cursor) == 0
        [entry] = run_log.read_log(cursor, 10)
        assert (entry.table, entry.status, entry.records, entry.error) == (None, "error", 3, "lost")
