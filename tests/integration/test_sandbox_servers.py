from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from cdc.errors import ConfigError, SourceUnavailableError
from cdc.sandbox.databases import Database, GivenServer, connect, session
from cdc.sandbox.installation import Flavor, provision
from cdc.sandbox.servers import Server, running

Factory = Callable[..., Server]


@pytest.fixture(params=list(Flavor), ids=str)
def private(request: pytest.FixtureRequest, server_factory: Factory) -> Server:
    return server_factory(request.param)


def ask(url: str, statement: str) -> list[tuple[object, ...]]:
    with session(url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def wait_until_gone(pid: int) -> None:
    """Returns when the process has ended; the test's own timeout bounds it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(descriptor, "rb", closefd=True):
        assert select.select([descriptor], [], [], 30)[0], f"process {pid} is still there"


def test_a_started_server_answers_and_writes_full_row_images_with_metadata(private: Server) -> None:
    rows = ask(
        private.url(),
        "SELECT @@log_bin, @@binlog_format, @@binlog_row_image, @@binlog_row_metadata, @@server_id",
    )
    assert rows == [(1, "ROW", "FULL", "FULL", 1)]


def test_transactions_have_gtids(private: Server) -> None:
    ask(private.url(), "CREATE DATABASE marked")
    variable = "@@gtid_executed" if private.flavor is Flavor.MYSQL else "@@gtid_current_pos"
    [(position,)] = ask(private.url(), f"SELECT {variable}")
    assert position


def test_a_server_listens_on_loopback_only(private: Server) -> None:
    assert ask(private.url(), "SELECT @@bind_address") == [("127.0.0.1",)]


def test_data_port_and_identity_survive_a_restart(private: Server) -> None:
    ask(private.url(), "CREATE DATABASE kept")
    port, pid = private.port, private.pid
    private.restart()
    assert (private.port, private.pid != pid) == (port, True)
    assert ask(private.url(), "SHOW DATABASES LIKE 'kept'") == [("kept",)]


def test_a_killed_server_recovers_what_was_committed(private: Server) -> None:
    ask(private.url(), "CREATE DATABASE kept")
    ask(private.url(), "CREATE TABLE kept.t (id INT PRIMARY KEY)")
    ask(private.url(), "INSERT INTO kept.t VALUES (1), (2)")
    private.kill()
    assert not private.alive
    with pytest.raises(SourceUnavailableError, match="no session"):
        connect(private.url())
    private.start()
    assert ask(private.url(), "SELECT id FROM kept.t ORDER BY id") == [(1,), (2,)]


def test_stopping_ends_the_process_and_its_pid_is_no_longer_told(private: Server) -> None:
    pid = private.pid
    private.stop()
    wait_until_gone(pid)
    with pytest.raises(SourceUnavailableError, match="does not run"):
        _ = private.pid


def test_a_server_outlives_the_thread_that_started_it(private: Server) -> None:
    private.stop()
    thread = threading.Thread(target=private.start)
    thread.start()
    thread.join()
    assert ask(private.url(), "SELECT 1") == [(1,)]
    assert private.alive


@pytest.mark.parametrize("flavor", list(Flavor))
def test_a_server_dies_with_a_process_that_is_killed(flavor: Flavor) -> None:
    code = (
        "import sys, time\n"
        "from cdc.sandbox.servers import Server, provision\n"
        f"server = Server(provision('{flavor}')).start()\n"
        "print(server.pid, server.folder, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    wait_until_gone(int(pid))
    with running(flavor):  # the next server clears the folder away
        assert not os.path.exists(folder)  # noqa: PTH110


@pytest.mark.parametrize("flavor", list(Flavor))
def test_two_servers_of_one_flavor_are_different_servers(flavor: Flavor) -> None:
    with running(flavor) as first, running(flavor, "--server-id=2") as second:
        assert first.port != second.port
        assert first.folder != second.folder
        identity = "@@server_uuid" if flavor is Flavor.MYSQL else "@@server_id"
        assert ask(first.url(), f"SELECT {identity}") != ask(second.url(), f"SELECT {identity}")
    assert not first.folder.exists()
    assert not second.folder.exists()


@pytest.mark.parametrize("flavor", list(Flavor))
def test_an_option_that_the_server_refuses_is_an_error_that_quotes_it(flavor: Flavor) -> None:
    with pytest.raises(SourceUnavailableError, match="no-such-option"), running(flavor, "--no-such-option"):
        pass


def test_the_flavors_are_mysql_9_7_and_mariadb_10_11() -> None:
    assert provision("mysql").version.startswith("9.7.")
    assert provision("mariadb").version.startswith("10.11.")


def test_a_program_given_by_the_environment_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUCKLING_MYSQLD", "/nowhere/mysqld")
    with pytest.raises(ConfigError, match="DUCKLING_MYSQLD"):
        provision("mysql")


def test_a_program_of_the_other_flavor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    start = provision("mysql").command
    monkeypatch.setenv("DUCKLING_MARIADBD", start[0])  # the loader: runs, but is no MariaDB
    with pytest.raises(ConfigError):
        provision("mariadb")


def test_each_test_has_a_database_of_its_own(database: Database) -> None:
    database.execute("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    with database.connect().cursor() as cursor:
        cursor.execute("SELECT DATABASE(), COUNT(*) FROM t")
        assert cursor.fetchone() == (database.name, 1)


def test_a_given_server_tells_its_flavor_and_keeps_the_urls_options(mysql_server: Server) -> None:
    given = GivenServer(mysql_server.url() + "?ssl-mode=DISABLED")
    assert given.flavor is Flavor.MYSQL
    assert given.url("shop").endswith("/shop?ssl-mode=DISABLED")
