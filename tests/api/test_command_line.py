"""The commands that talk to a running service, and `check`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc.sandbox.databases import Database
from tests.api.conftest import KEY, OTHER_KEY, WAIT, replicated
from tests.api.test_serve import account, assert_refused, duckling, with_login

Command = Callable[..., Any]


@pytest.fixture
def shop(database: Database) -> Database:
    database.execute(
        "CREATE TABLE orders (id INT PRIMARY KEY, note VARCHAR(50))",
        "INSERT INTO orders VALUES (1, 'one'), (2, NULL)",
        "CREATE TABLE visits (page VARCHAR(50))",
    )
    return database


@pytest.fixture
def command(shop: Database, tmp_path: Path) -> Iterator[Command]:
    """`command(*arguments)` runs a command against a service that has copied the shop and streams."""
    with replicated(shop.url, tmp_path) as (client, pipeline):
        client.post("/sync/full").raise_for_status()
        pipeline.wait_streaming(WAIT)
        port = client.base_url.port

        def run(*arguments: str, **settings: object) -> Any:
            return duckling(tmp_path, *arguments, **{"port": port, "duckling_api_key": KEY, **settings})

        yield run


def test_a_query_prints_a_table_or_json(command: Command) -> None:
    done = command("query", "SELECT id, note FROM orders ORDER BY id")
    assert done.returncode == 0
    assert "NULL" in done.stdout
    assert "2 rows" in done.stdout
    body = json.loads(command("query", "SELECT id FROM orders ORDER BY id", "--json").stdout)
    assert body["result"] == [{"id": 1}, {"id": 2}]


def test_values_can_not_steer_the_terminal(command: Command) -> None:
    done = command("query", "SELECT '[red]x' || chr(27) || '[2J' AS value")
    assert "[red]x\\x1b[2J" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_refused_query_is_one_line_and_a_hint(command: Command) -> None:
    assert_refused(command("query", "DELETE FROM orders"), "DELETE")
    assert_refused(command("query", "SELECT 1", "--db", "missing"), "no such database")


def test_the_status_names_states_and_tables(command: Command) -> None:
    done = command("status")
    assert done.returncode == 0
    for word in ("default: streaming", "orders", "visits"):
        assert word in done.stdout
    assert json.loads(command("status", "--json").stdout)["databases"][0]["id"] == "default"


def test_the_status_of_one_database_is_asked_by_its_id(command: Command) -> None:
    assert "default: streaming" in command("status", "--db", "default").stdout
    assert_refused(command("status", "--db", "missing"), "no such database")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands(tmp_path: Path, shell: str) -> None:
    environment = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = duckling(tmp_path, "--show-completion", shell, **environment)
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout


@pytest.mark.parametrize(
    "arguments", [("--full",), ("--incremental",), (), ("--table", "orders"), ("--table", "orders", "--full")]
)
def test_a_sync_waits_for_its_end(command: Command, arguments: tuple[str, ...]) -> None:
    done = command("sync", *arguments)
    assert done.returncode == 0, done.stderr
    assert " rows in " in done.stdout
    assert json.loads(command("sync", *arguments, "--json").stdout)["failedTables"] == 0


def test_a_sync_of_a_table_that_does_not_exist_fails(command: Command) -> None:
    assert_refused(command("sync", "--table", "missing"), "missing")


def test_full_and_incremental_together_are_wrong_usage(command: Command) -> None:
    assert command("sync", "--full", "--incremental").returncode == 2


def test_validation_fails_where_source_and_copy_differ(command: Command) -> None:
    done = command("validate")
    assert done.returncode == 0
    assert "2 of 2 tables match" in done.stdout
    assert json.loads(command("validate", "--table", "orders", "--json").stdout)["totalTables"] == 1


def test_contents_are_compared_and_repaired_by_the_command(command: Command, shop: Database) -> None:
    done = command("validate", "--checksum")
    assert (done.returncode, "2 of 2 tables match" in done.stdout) == (0, True), done.stderr
    with shop.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        cursor.execute("DELETE FROM orders ORDER BY id LIMIT 1")
    done = command("validate", "--checksum", "--table", "orders")
    assert done.returncode == 1
    assert "NO: 1 extra" in done.stdout
    assert "orders: extra: id=" in done.stdout
    done = command("validate", "--checksum", "--repair")
    assert (done.returncode, "NO: 1 extra; repaired 1" in done.stdout) == (0, True), done.stdout
    body = json.loads(command("validate", "--checksum", "--json").stdout)
    assert (body["matchingTables"], body["mismatches"]) == (2, [])
    assert command("validate", "--repair").returncode == 2
    assert_refused(command("validate", "--checksum", "--table", "missing"), "missing")


def test_clearing_wants_a_yes(command: Command) -> None:
    assert command("clear").returncode == 2
    done = command("clear", "--yes")
    assert done.returncode == 0
    assert "2 tables dropped" in done.stdout


def test_a_wrong_key_is_told_with_the_setting(command: Command) -> None:
    done = command("status", duckling_api_key="another-key-of-the-tests")
    assert_refused(done, "key")
    assert "DUCKLING_API_KEY" in done.stderr


def test_the_first_of_several_keys_is_sent(command: Command) -> None:
    assert command("status", duckling_api_key=f"{OTHER_KEY},another-key-of-the-tests").returncode == 0


@pytest.mark.parametrize(
    "arguments", [("status",), ("validate",), ("query", "SELECT 1"), ("sync",), ("clear", "--yes")]
)
def test_a_service_that_does_not_answer_is_one_line_and_a_hint(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    done = duckling(tmp_path, *arguments, port=1)
    assert_refused(done, "http://127.0.0.1:1")
    assert "duckling serve" in done.stderr


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    assert_refused(duckling(tmp_path, "status", "--url", "nonsense"), "--url")


def test_a_check_of_a_good_source_is_ready(tmp_path: Path, shop: Database) -> None:
    done = duckling(tmp_path, "check", mysql_connection_string=shop.url)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "ready"
    body = json.loads(duckling(tmp_path, "check", "--json", mysql_connection_string=shop.url).stdout)
    assert (body["ok"], body["tables"]) == (True, 2)
    assert not (tmp_path / "data").exists()


def test_a_check_tells_the_statement_that_mends(tmp_path: Path, shop: Database) -> None:
    with account(shop, "hush") as name:
        shop.execute(f"GRANT SELECT ON `{shop.name}`.* TO '{name}'@'%'")
        url = with_login(shop.url, name, "hush")
        done = duckling(tmp_path, "check", mysql_connection_string=url)
    assert done.returncode == 1
    assert "error: the account may not read the binary log" in done.stdout
    assert f"    GRANT REPLICATION SLAVE ON *.* TO '{name}'@'%'" in done.stdout.replace("`", "'")
    assert done.stdout.splitlines()[-1].startswith("not ready")


def test_a_check_without_a_source_is_one_line_and_a_hint(tmp_path: Path) -> None:
    assert_refused(duckling(tmp_path, "check"), "MYSQL_CONNECTION_STRING")
    assert_refused(
        duckling(tmp_path, "check", mysql_connection_string="mysql://u@127.0.0.1:1/d"), "127.0.0.1"
    )


def test_the_help_names_every_command(tmp_path: Path) -> None:
    done = duckling(tmp_path, "--help")
    assert done.returncode == 0
    for name in ("serve", "check", "demo", "sync", "status", "validate", "query", "clear"):
        assert f"  {name} " in done.stdout


def test_an_unknown_command_is_wrong_usage(tmp_path: Path) -> None:
    assert duckling(tmp_path, "fly").returncode == 2
