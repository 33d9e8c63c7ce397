"""`duckling serve` that can't start: one line of error, one of hint, exit status 1, and no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

import cdc
from cdc.config import Settings
from cdc.sandbox.databases import Database, create_database, session
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import Server

pytestmark = pytest.mark.timeout(60)

SECRET = "s3cret-of-the-tests"
KEY = "a-key-of-the-tests-0001"


def refused(folder: Path, url: str, **settings: object) -> str:
    """Both lines of the error with which `duckling serve` ends."""
    known = {name.upper() for name in Settings.model_fields}
    environment = {name: value for name, value in os.environ.items() if name.upper() not in known}
    chosen = {
        "mysql_connection_string": url,
        "duckdb_path": folder / "replica.db",
        "duckling_api_key": KEY,
        "port": 0,
        "connect_timeout": 3,
        **settings,
    }
    environment |= {name.upper(): str(value) for name, value in chosen.items()}
    environment["PYTHONPATH"] = str(Path(cdc.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "cdc.cli", "serve"],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"], done.stderr
    assert all(len(line) > len("error: ") for line in lines)
    return done.stderr.lower()


@contextmanager
def account(database: Database, *privileges: str) -> Iterator[str]:
    """The URL of an account that has SELECT on the database, and these privileges on all."""
    name = f"u{database.name[-14:]}"
    with session(database.server.url()) as connection, connection.cursor() as cursor:
        # Some servers have an anonymous account at localhost, which would go before one of any host.
        cursor.execute(f"CREATE USER {name}@'localhost' IDENTIFIED BY '{SECRET}'")
        try:
            cursor.execute(f"GRANT SELECT, LOCK TABLES ON `{database.name}`.* TO {name}@'localhost'")
            for privilege in privileges:
                cursor.execute(f"GRANT {privilege} ON *.* TO {name}@'localhost'")
            at = database.url.rsplit("@", 1)[1]
            yield f"mysql://{name}:{SECRET}@{at}"
        finally:
            cursor.execute(f"DROP USER {name}@'localhost'")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "not a url",
        f"postgres://root:{SECRET}@127.0.0.1/shop",
        f"mysql://root:{SECRET}@127.0.0.1:port/shop",
        f"mysql://root:{SECRET}@127.0.0.1:3306",
        f"mysql://root:{SECRET}@127.0.0.1/shop?ssl-mode=sometimes",
    ],
    ids=["none", "no_url", "other_scheme", "no_port", "no_database", "unknown_option"],
)
def test_a_wrong_url_is_refused(tmp_path: Path, url: str) -> None:
    assert "mysql_connection_string" in refused(tmp_path, url)


def test_a_source_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can listen there either
        port = closed.getsockname()[1]
        error = refused(tmp_path, f"mysql://root:{SECRET}@127.0.0.1:{port}/shop")
    assert "refused" in error
    assert str(port) in error


def test_a_wrong_password_is_refused(database: Database, tmp_path: Path) -> None:
    with account(database, "REPLICATION SLAVE", "REPLICATION CLIENT") as url:
        error = refused(tmp_path, url.replace(SECRET, SECRET[::-1]))
    assert "access denied" in error
    assert "password" in error.splitlines()[1]
    assert SECRET[::-1] not in error


def test_a_database_that_does_not_exist_is_refused(database: Database, tmp_path: Path) -> None:
    error = refused(tmp_path, database.server.url("no_such_database"))
    assert "no_such_database" in error


def test_a_missing_privilege_is_named_with_its_grant(mysql_server: Server, tmp_path: Path) -> None:
    database = create_database(mysql_server)
    database.execute("CREATE TABLE without_a_key (n INT)")
    with account(database, "REPLICATION SLAVE", "REPLICATION CLIENT") as url:
        who = f"{url.split('//')[1].split(':')[0]}@'localhost'"
        database.execute(f"REVOKE LOCK TABLES ON `{database.name}`.* FROM {who}")
        error = refused(tmp_path, url)
    database.drop()
    assert "without_a_key has no primary key" in error.splitlines()[0]
    assert "grant lock tables" in error.splitlines()[1]


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_log_that_must_be_set_otherwise_is_refused_with_the_statement(
    flavor: Flavor, server_factory: Callable[..., Server], tmp_path: Path
) -> None:
    server = server_factory(flavor, "--binlog-row-metadata=MINIMAL")
    with session(server.url()) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE shop")
    error = refused(tmp_path, server.url("shop"))
    assert "no column names" in error
    assert "binlog_row_metadata = 'full'" in error


def test_a_file_that_another_process_has_open_is_refused_with_its_number(
    mysql_server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "replica.db"
    with duckdb.connect(str(path)):
        error = refused(tmp_path, mysql_server.url("mysql"))
    assert str(os.getpid()) in error
    assert str(path).lower() in error


@pytest.mark.parametrize("place", ["under_a_file", "proc", "a_folder", "no_duckdb_file"])
def test_a_file_that_can_not_be_used_is_refused(mysql_server: Server, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("no database" * 500)
    (tmp_path / "folder").mkdir()
    path = {
        "under_a_file": tmp_path / "file" / "replica.db",
        "proc": Path("/proc/duckling/replica.db"),
        "a_folder": tmp_path / "folder",
        "no_duckdb_file": tmp_path / "file",
    }[place]
    error = refused(tmp_path, mysql_server.url("mysql"), duckdb_path=path)
    assert "duckdb_path" in error
    assert (tmp_path / "file").read_text() == "no database" * 500


def test_a_port_that_is_in_use_is_refused(mysql_server: Server, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = refused(tmp_path, mysql_server.url("mysql"), port=port)
    assert f"port {port}" in error
    assert "in use" in error


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"duckling_api_key": ""}, "duckling_api_key"),
        ({"duckling_api_key": "short"}, "duckling_api_key"),
        ({"batch_size": "many"}, "batch_size"),
        ({"port": 70_000}, "port"),
        ({"included_tables": "a,b", "excluded_tables": "b"}, "included_tables"),
    ],
    ids=["no_key", "short_key", "no_number", "out_of_range", "contradiction"],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path: Path, settings: dict[str, object], named: str) -> None:
    assert named in refused(tmp_path, "mysql://root@127.0.0.1:1/shop", **settings)
