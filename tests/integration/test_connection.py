from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pymysql
import pytest
from pydantic import SecretStr

from cdc.config import Settings
from cdc.errors import (
    BinlogError,
    ConfigError,
    PositionLostError,
    PreflightError,
    SourceAccessError,
    SourceError,
    SourceMismatchError,
    SourceUnavailableError,
)
from cdc.sandbox.servers import Server, running
from cdc.source.connection import (
    SourceEndpoint,
    binlog_end,
    collation_names,
    server_facts,
    translate,
)
from cdc.source.server import flavor_and_version

HOSTILE = (
    "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH",
    "--default-time-zone=+05:30",
    "--character-set-server=latin1",
    "--net-write-timeout=2",
    "--wait-timeout=600",
    "--transaction-isolation=READ-COMMITTED",
    "--autocommit=0",
)
PASSWORD = "pä€ß 'w\"\\rd"
ENCODED = "p%C3%A4%E2%82%AC%C3%9F%20%27w%22%5Crd"


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def hostile(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose defaults are all against us, with a database and an account that may only SELECT."""
    with running(request.param, *HOSTILE) as started:
        with closing(administrator(started)) as root, root.cursor() as cursor:
            for statement in (
                "SET GLOBAL sql_select_limit = 2",
                "CREATE DATABASE shop",
                "CREATE USER reader@'127.0.0.1' IDENTIFIED BY %s",
                "GRANT SELECT ON shop.* TO reader@'127.0.0.1'",
                "CREATE TABLE shop.numbers (n INT PRIMARY KEY, c CHAR(5), x INT INVISIBLE)",
                "INSERT INTO shop.numbers (n, c) VALUES (1, 'a'), (2, 'b'), (3, 'c')",
            ):
                cursor.execute(statement, (PASSWORD,) if "%s" in statement else None)
        yield started


def administrator(server: Server) -> pymysql.Connection:
    pinned = "SET autocommit = 1, sql_mode = ''"
    return pymysql.connect(
        host="127.0.0.1", port=server.port, user="root", init_command=pinned, autocommit=None
    )


def endpoint(
    server: Server, *, login: str = f"reader:{ENCODED}", query: str = "", **more: object
) -> SourceEndpoint:
    text = f"mysql://{login}@127.0.0.1:{server.port}/shop{query}"
    return SourceEndpoint(Settings(mysql_connection_string=SecretStr(text), **more))  # type: ignore[arg-type]


def values(connection: pymysql.Connection, expressions: str) -> tuple[object, ...]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {expressions}")
        row: tuple[object, ...] = cursor.fetchall()[0]
        return row


def test_every_session_is_set_alike_whatever_the_servers_defaults(hostile: Server) -> None:
    with closing(endpoint(hostile, lock_wait_seconds=7).connect(purpose="a test")) as connection:
        assert values(
            connection,
            "@@time_zone, @@sql_mode, @@autocommit, @@lock_wait_timeout, @@character_set_client,"
            " @@character_set_results, @@character_set_connection",
        ) == ("+00:00", "", 1, 7, "utf8mb4", "utf8mb4", "utf8mb4")
        assert values(connection, "@@net_write_timeout, @@net_read_timeout, @@wait_timeout") == (86_400,) * 3
        with connection.cursor() as cursor:
            cursor.execute("SHOW VARIABLES LIKE '%isolation'")
            names = dict(cursor.fetchall())
            assert (names.get("transaction_isolation") or names["tx_isolation"]) == "REPEATABLE-READ"
            cursor.execute("SHOW VARIABLES LIKE '%time'")
            limits: dict[str, str] = dict(cursor.fetchall())
            assert float(limits.get("max_statement_time", limits.get("max_execution_time", "0"))) == 0
            cursor.execute("SELECT n, c FROM numbers ORDER BY n")
            assert cursor.fetchall() == ((1, "a"), (2, "b"), (3, "c"))


def test_sessions_name_duckling_as_their_program(hostile: Server) -> None:
    with closing(endpoint(hostile, login="root").connect(purpose="a test")) as connection:
        if hostile.flavor == "mysql":
            found = values(
                connection,
                "ATTR_VALUE FROM performance_schema.session_connect_attrs"
                " WHERE ATTR_NAME = 'program_name' AND PROCESSLIST_ID = CONNECTION_ID()",
            )
            assert found == ("duckling",)
        assert connection._connect_attrs["program_name"] == "duckling"


def test_a_short_network_timeout_of_the_server_does_not_cut_a_slow_reader(hostile: Server) -> None:
    with closing(endpoint(hostile).connect(read_timeout=None, purpose="a test")) as connection:
        assert values(connection, "@@net_write_timeout > @@GLOBAL.net_write_timeout") == (1,)


def test_the_read_timeout_is_the_callers_after_the_handshake(hostile: Server) -> None:
    with closing(endpoint(hostile).connect(read_timeout=0.2, purpose="a test")) as connection:
        with pytest.raises(pymysql.err.OperationalError) as caught, connection.cursor() as cursor:
            cursor.execute("SELECT SLEEP(20)")
        error = translate(caught.value, doing="sleeping")
        assert isinstance(error, SourceUnavailableError)
        assert error.message == "sleeping: no answer in time"


@pytest.mark.parametrize("mode", ["disabled", "preferred"])
def test_a_fresh_account_logs_in_without_and_with_tls(hostile: Server, mode: str) -> None:
    # a new password is in no cache of the server, so caching_sha2_password needs its RSA exchange
    with closing(administrator(hostile)) as root, root.cursor() as cursor:
        cursor.execute(f"CREATE USER fresh_{mode} IDENTIFIED BY %s", (PASSWORD,))
        cursor.execute(f"GRANT SELECT ON shop.* TO fresh_{mode}")
        login = f"fresh_{mode}:{ENCODED}"
        source = endpoint(hostile, login=login, query=f"?ssl-mode={mode}")
        with closing(source.connect(purpose="a test")) as session, session.cursor() as reading:
            reading.execute("SHOW STATUS LIKE 'Ssl_cipher'")
            cipher = reading.fetchall()[0][1]
        assert bool(cipher) == (mode == "preferred" and hostile.flavor == "mysql")
        cursor.execute(f"DROP USER fresh_{mode}")


def test_the_password_file_is_read_again_at_every_connect(hostile: Server, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n", encoding="utf-8")
    source = endpoint(hostile, login="rotating:ignored", mysql_password_file=file)
    with closing(administrator(hostile)) as root, root.cursor() as cursor:
        cursor.execute("CREATE USER rotating IDENTIFIED BY 'first'")
        cursor.execute("GRANT SELECT ON shop.* TO rotating")
        source.connect(purpose="a test").close()
        cursor.execute("ALTER USER rotating IDENTIFIED BY 'second'")
        with pytest.raises(SourceAccessError):
            source.connect(purpose="a test")
        file.write_text("second", encoding="utf-8")
        source.connect(purpose="a test").close()
        cursor.execute("DROP USER rotating")


def test_a_password_file_that_is_missing_is_named(hostile: Server, tmp_path: Path) -> None:
    source = endpoint(hostile, mysql_password_file=tmp_path / "absent")
    with pytest.raises(SourceAccessError, match="absent can't be read"):
        source.connect(purpose="a test")


def test_a_wrong_password_is_an_access_error_without_the_password(hostile: Server) -> None:
    with pytest.raises(SourceAccessError) as caught:
        endpoint(hostile, login="reader:wr0ngwr0ng").connect(purpose="copying")
    assert "Access denied for user 'reader'" in caught.value.message
    assert "for copying" in caught.value.message
    assert "MYSQL_PASSWORD_FILE" in caught.value.hint
    assert "wr0ngwr0ng" not in str(caught.value)


def test_an_unknown_database_is_an_access_error(hostile: Server) -> None:
    source = SourceEndpoint(
        Settings(mysql_connection_string=SecretStr(f"mysql://root@127.0.0.1:{hostile.port}/nowhere"))
    )
    with pytest.raises(SourceAccessError, match="Unknown database 'nowhere'") as caught:
        source.connect(purpose="a test")
    assert "name" in caught.value.hint


def test_a_database_without_privileges_is_an_access_error(hostile: Server) -> None:
    text = f"mysql://reader:{ENCODED}@127.0.0.1:{hostile.port}/mysql"
    with pytest.raises(SourceAccessError, match="to database 'mysql'") as caught:
        SourceEndpoint(Settings(mysql_connection_string=SecretStr(text))).connect(purpose="a test")
    assert "GRANT" in caught.value.hint


def test_a_locked_account_is_an_access_error(hostile: Server) -> None:
    with closing(administrator(hostile)) as root, root.cursor() as cursor:
        cursor.execute("CREATE USER locked IDENTIFIED BY 'x' ACCOUNT LOCK")
        with pytest.raises(SourceAccessError) as caught:
            endpoint(hostile, login="locked:x").connect(purpose="a test")
        assert "ACCOUNT UNLOCK" in caught.value.hint
        cursor.execute("DROP USER locked")


def test_a_killed_session_is_unavailable(hostile: Server) -> None:
    with closing(endpoint(hostile).connect(purpose="a test")) as connection:
        with closing(administrator(hostile)) as root, root.cursor() as cursor:
            cursor.execute(f"KILL {connection.thread_id()}")
        with pytest.raises(pymysql.err.Error) as caught:
            values(connection, "SLEEP(5)")
        assert isinstance(translate(caught.value, doing="reading"), SourceUnavailableError)
        with pytest.raises(pymysql.err.Error) as again:
            values(connection, "1")
        assert isinstance(translate(again.value, doing="reading"), SourceUnavailableError)


def test_a_missing_privilege_is_an_access_error(hostile: Server) -> None:
    with closing(endpoint(hostile).connect(purpose="a test")) as connection, connection.cursor() as cursor:
        for statement in ("SELECT * FROM mysql.user", "FLUSH TABLES", "DELETE FROM shop.numbers"):
            with pytest.raises(pymysql.err.Error) as caught:
                cursor.execute(statement)
            assert isinstance(translate(caught.value, doing="reading"), SourceAccessError)


def test_any_other_error_of_the_server_keeps_its_number(hostile: Server) -> None:
    with closing(endpoint(hostile).connect(purpose="a test")) as connection, connection.cursor() as cursor:
        with pytest.raises(pymysql.err.Error) as caught:
            cursor.execute("SELECT * FROM shop.absent")
        cursor.execute("DO 0")
    error = translate(caught.value, doing="reading")
    if hostile.flavor == "mysql":
        assert type(error) is SourceError
        assert error.message.startswith("reading: the server answered error 1146: Table 'shop.absent'")
    else:
        assert type(error) is SourceError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Could not find first log file name in binary log index file", PositionLostError),
        ("Cannot replicate because the source purged required binary logs.", PositionLostError),
        ("Could not find GTID state requested by slave in any binlog files.", PositionLostError),
        ("Replica has more GTIDs than the source has, using the source's SERVER_UUID.", SourceMismatchError),
        (
            "Error: connecting slave requested to start from GTID 0-1-9, which is not in the master's binlog",
            SourceMismatchError,
        ),
        (
            "A replica with the same server_uuid/server_id as this replica has connected",
            SourceUnavailableError,
        ),
        ("binlog truncated in the middle of event; consider out of disk space on source", BinlogError),
    ],
)
def test_a_refused_dump_is_told_apart_by_its_text(text: str, kind: type[SourceError]) -> None:
    assert type(translate(pymysql.err.OperationalError(1236, text), doing="streaming")) is kind


def test_a_closed_port_is_unavailable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(SourceUnavailableError, match="connection refused") as caught:
            SourceEndpoint(
                Settings(mysql_connection_string=SecretStr(f"mysql://u:x@127.0.0.1:{port}/d"))
            ).connect(purpose="x")
    assert caught.value.retryable
    assert caught.value.hint


def test_an_unknown_host_is_unavailable() -> None:
    settings = Settings(
        mysql_connection_string=SecretStr("mysql://u:x@no-such-host.invalid/d"), connect_timeout=5
    )
    with pytest.raises(SourceUnavailableError, match="name is not known"):
        SourceEndpoint(settings).connect(purpose="a test")


def test_a_server_that_never_greets_is_unavailable_after_the_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = f"mysql://u:x@127.0.0.1:{silent.getsockname()[1]}/d"
        settings = Settings(mysql_connection_string=SecretStr(text), connect_timeout=0.3)
        with pytest.raises(SourceUnavailableError, match="no answer in time"):
            SourceEndpoint(settings).connect(purpose="a test")


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x05\x00\x00\x00\x0aabc\x00"]
)
def test_what_is_no_mysql_server_is_an_error_of_the_source(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            peer, _ = other.accept()
            with peer:
                peer.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        text = f"mysql://u:x@127.0.0.1:{other.getsockname()[1]}/d"
        with pytest.raises(SourceError):
            SourceEndpoint(Settings(mysql_connection_string=SecretStr(text), connect_timeout=2)).connect(
                purpose="a test"
            )
        thread.join()


def test_required_tls_is_refused_where_the_server_has_none(hostile: Server) -> None:
    source = endpoint(hostile, query="?ssl-mode=required")
    if hostile.flavor == "mariadb":
        with pytest.raises(SourceAccessError, match="offers no TLS"):
            source.connect(purpose="a test")
    else:
        source.connect(purpose="a test").close()


def test_an_account_that_requires_tls_is_served_with_tls_only(hostile: Server) -> None:
    with closing(administrator(hostile)) as root, root.cursor() as cursor:
        cursor.execute("CREATE USER careful IDENTIFIED BY 'x' REQUIRE SSL")
        cursor.execute("GRANT SELECT ON shop.* TO careful")
        with pytest.raises(SourceAccessError):
            endpoint(hostile, login="careful:x", query="?ssl-mode=disabled").connect(purpose="a test")
        if hostile.flavor == "mysql":
            endpoint(hostile, login="careful:x").connect(purpose="a test").close()
        cursor.execute("DROP USER careful")


def test_certificates_are_verified_as_the_mode_says(hostile: Server) -> None:
    if hostile.flavor == "mariadb":  # has no certificate; a mode that verifies refuses it before the login
        for mode in ("verify-ca", "verify-identity"):
            with pytest.raises(SourceAccessError, match="offers no TLS"):
                endpoint(hostile, query=f"?ssl-mode={mode}").connect(purpose="a test")
        return
    authority = hostile.data / "ca.pem"
    client = f"&ssl-cert={hostile.data}/client-cert.pem&ssl-key={hostile.data}/client-key.pem"
    endpoint(hostile, query=f"?ssl-ca={authority}").connect(purpose="a test").close()
    endpoint(hostile, query=f"?ssl-ca={authority}{client}").connect(purpose="a test").close()
    for query in (f"?ssl-mode=verify-identity&ssl-ca={authority}", "?ssl-mode=verify-ca"):
        with pytest.raises(SourceAccessError, match="certificate is refused") as caught:
            endpoint(hostile, query=query).connect(purpose="a test")
        assert "ssl-ca" in caught.value.hint


def test_tls_files_that_can_not_be_used_are_named(hostile: Server, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(ConfigError, match=r"absent\.pem does not exist"):
        endpoint(hostile, query=f"?ssl-ca={tmp_path}/absent.pem").connect(purpose="a test")
    with pytest.raises(ConfigError, match=r"empty\.pem can't be used"):
        endpoint(hostile, query=f"?ssl-ca={empty}").connect(purpose="a test")


def test_the_facts_are_those_of_the_server(hostile: Server) -> None:
    with closing(endpoint(hostile, login="root").connect(purpose="a test")) as connection:
        facts = server_facts(connection)
    with closing(endpoint(hostile).connect(purpose="a test")) as unprivileged:
        assert server_facts(unprivileged) == facts
    assert facts.flavor == hostile.flavor
    assert facts.version >= ((9, 0) if hostile.flavor == "mysql" else (10, 11))
    assert facts.server_id == 1
    assert facts.server_uuid
    assert facts.log_bin
    assert (facts.binlog_format, facts.row_image, facts.row_metadata) == ("ROW", "FULL", "FULL")
    assert facts.gtid_mode
    assert [facts.replica, facts.partial_revokes] == [False, False]
    assert facts.expire_seconds == (2_592_000 if hostile.flavor == "mysql" else 0)
    assert facts.cascades_logged == (hostile.flavor == "mysql")


@pytest.mark.parametrize(
    ("text", "flavor", "version"),
    [
        ("5.7.44-log", "mysql", (5, 7, 44)),
        ("8.0.36-28.1", "mysql", (8, 0, 36)),
        ("9.7.4-2", "mysql", (9, 7, 4)),
        ("5.5.5-10.11.19-MariaDB-0+deb12u1-log", "mariadb", (10, 11, 19)),
        ("11.8.2-MariaDB", "mariadb", (11, 8, 2)),
    ],
)
def test_flavor_and_version_come_from_the_greeting(text: str, flavor: str, version: tuple[int, ...]) -> None:
    assert flavor_and_version(text) == (flavor, version)


def test_a_greeting_without_a_version_is_refused() -> None:
    with pytest.raises(PreflightError):
        flavor_and_version("proxy")


def test_every_collation_has_its_character_set(hostile: Server) -> None:
    with closing(endpoint(hostile).connect(purpose="a test")) as connection:
        names = collation_names(connection)
        with connection.cursor() as cursor:
            cursor.execute("SHOW COLLATION WHERE Id IS NOT NULL")
            shown = {
                row[2]: row[1].replace("utf8mb3", "utf8").replace("utf8", "utf8mb3")
                for row in cursor.fetchall()
            }
    assert names[45] == names[46] == "utf8mb4"
    assert names[63] == "binary"
    assert names[33] == "utf8mb3"
    assert names[8] == "latin1"
    assert names[255 if hostile.flavor == "mysql" else 2304] == "utf8mb4"
    assert shown.keys() <= names.keys()


def test_the_end_of_the_log_moves_with_each_transaction(hostile: Server) -> None:
    with (
        closing(endpoint(hostile, login="root").connect(purpose="a test")) as connection,
        connection.cursor() as cursor,
    ):
        facts = server_facts(connection)
        file, offset, gtids = binlog_end(connection, facts)
        assert file.startswith("binlog.")
        cursor.execute("UPDATE shop.numbers SET x = COALESCE(x, 0) + 1 WHERE n = 1")
        later = binlog_end(connection, facts)
        assert later[0] == file
        assert later[1] > offset
        assert later[2] != gtids


def test_the_gtid_set_has_no_newlines(hostile: Server) -> None:
    with (
        closing(endpoint(hostile, login="root").connect(purpose="a test")) as connection,
        connection.cursor() as cursor,
    ):
        if hostile.flavor == "mysql":
            for number in (1, 2):
                cursor.execute(f"SET gtid_next = '{number}1111111-1111-1111-1111-111111111111:1'")
                cursor.execute("UPDATE shop.numbers SET x = COALESCE(x, 0) + 1 WHERE n = 1")
            cursor.execute("SET gtid_next = AUTOMATIC")
        else:
            cursor.execute("SET SESSION gtid_domain_id = 7")
            cursor.execute("UPDATE shop.numbers SET x = COALESCE(x, 0) + 1 WHERE n = 1")
        gtids = binlog_end(connection, server_facts(connection))[2]
    assert gtids.count(",") >= 1
    assert gtids == "".join(gtids.split())


def test_the_end_of_the_log_needs_a_privilege(hostile: Server) -> None:
    with closing(endpoint(hostile).connect(purpose="a test")) as connection:
        facts = server_facts(connection)
        with pytest.raises(SourceAccessError, match="end of the binary log"):
            binlog_end(connection, facts)
