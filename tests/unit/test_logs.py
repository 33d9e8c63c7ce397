"""Logs: one line an event, and no secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import duckdb
import pytest
import structlog

from cdc.errors import RowRefusedError
from cdc.logs import configure_logs, mask


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    configured = structlog.get_config()
    yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(level)
    structlog.configure(**configured)


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mysql://u:pw@h:3306/db", "mysql://u:***@h:3306/db"),
        ("at mysql://u:p@w@h/db now", "at mysql://u:***@h/db now"),
        ("mysql://u@h/db", "mysql://u@h/db"),
        ("http://127.0.0.1:3001/status", "http://127.0.0.1:3001/status"),
        ("a@b.c: d@e", "a@b.c: d@e"),
    ],
)
def test_passwords_in_urls_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_a_record_is_one_line_of_json(stream: io.StringIO) -> None:
    configure_logs("INFO", "json", stream)
    structlog.get_logger("cdc.test").info("batch_applied", rows=3, note="two\nlines")
    (record,) = records(stream)
    assert record["event"] == "batch_applied"
    assert record["level"] == "info"
    assert record["logger"] == "cdc.test"
    assert record["rows"] == 3
    assert str(record["timestamp"]).endswith("Z")


def test_no_secret_reaches_the_log(stream: io.StringIO) -> None:
    configure_logs("DEBUG", "json", stream)
    log = structlog.get_logger("cdc.test")
    url = "mysql://u:hush@h/db"
    log.info("connected", url=url, password="hush", api_key="hush", nested={"token": "hush", "urls": [url]})
    logging.getLogger("library").warning("could not open %s", url)
    try:
        raise RuntimeError(f"no answer from {url}")
    except RuntimeError:
        log.exception("crashed")
    assert len(records(stream)) == 3
    assert "hush" not in stream.getvalue()
    assert "RuntimeError" in str(records(stream)[2]["exception"])


def test_of_a_librarys_exception_the_log_has_the_place_and_not_the_text(stream: io.StringIO) -> None:
    configure_logs(stream=stream)
    log = structlog.get_logger()
    try:
        try:
            duckdb.execute(
                "SELECT CAST(? AS INTEGER)", [" ".join(("a", "value", "of", "a", "row"))]
            ).fetchall()
        except duckdb.Error as error:
            raise RowRefusedError("table t refused a row", table="t") from error
    except RowRefusedError as error:
        log.exception("failed")
        log.error("failed", exc_info=error.__cause__)
    assert "a value of a row" not in stream.getvalue()
    first, second = records(stream)
    assert "duckdb.ConversionException" in str(first["exception"])
    assert "RowRefusedError: table t refused a row" in str(first["exception"])
    assert "test_logs.py" in str(first["exception"])
    assert "duckdb.ConversionException" in str(second["exception"])


def test_text_is_for_people(stream: io.StringIO) -> None:
    configure_logs("INFO", "text", stream)
    structlog.get_logger("cdc.test").info("connected", url="mysql://u:hush@h/db")
    assert "connected" in stream.getvalue()
    assert "***" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_json_is_the_default_where_there_is_no_terminal(stream: io.StringIO) -> None:
    configure_logs("INFO", "auto", stream)
    structlog.get_logger("cdc.test").info("connected")
    assert records(stream)[0]["event"] == "connected"


def test_the_level_holds(stream: io.StringIO) -> None:
    configure_logs("WARNING", "json", stream)
    log = structlog.get_logger("cdc.test")
    log.info("quiet")
    log.warning("loud")
    assert [record["event"] for record in records(stream)] == ["loud"]


def test_libraries_report_problems_only(stream: io.StringIO) -> None:
    configure_logs("DEBUG", "json", stream)
    logging.getLogger("pymysqlreplication").info("settings")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").warning("trouble")
    assert [record["event"] for record in records(stream)] == ["trouble"]
