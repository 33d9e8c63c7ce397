from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pymysql
import pytest
from pydantic import SecretStr

from cdc.config import Settings
from cdc.errors import PreflightError
from cdc.sandbox.databases import Database, create_database
from cdc.sandbox.servers import Server, running
from cdc.schema import Column, Table
from cdc.source.catalog import load_tables
from cdc.source.connection import SourceEndpoint, server_facts
from cdc.source.grants import parse_grants
from cdc.source.preflight import Finding, require, run_preflight, table_errors

TABLE = "CREATE TABLE t (id INT PRIMARY KEY, a INT)"


def findings_of(url: str, name: str) -> list[Finding]:
    source = SourceEndpoint(Settings(mysql_connection_string=SecretStr(url)))
    with closing(source.connect(purpose="preflight")) as connection:
        return run_preflight(connection, server_facts(connection), load_tables(connection, name), name)


def check(database: Database, login: str = "root") -> list[Finding]:
    return findings_of(database.url.replace("//root@", f"//{login}@"), database.name)


def codes(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in findings]


def one(findings: list[Finding], code: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.code == code]
    return finding


def run_fix(server: Server, finding: Finding) -> None:
    """Runs the very statements of the finding, as an operator would."""
    with (
        closing(pymysql.connect(host="127.0.0.1", port=server.port, user="root", autocommit=True)) as root,
        root.cursor() as cursor,
    ):
        for statement in finding.fix.split("; "):
            cursor.execute(statement)


@pytest.fixture
def account(database: Database) -> Iterator[Callable[..., str]]:
    """`account(grant, …)` makes an account that has just these grants ("SELECT ON {db}.*"); its name."""
    name = f"a{database.name[-12:]}"

    def make(*grants: str) -> str:
        database.execute(f"CREATE USER {name}")
        for grant in grants:
            database.execute(f"GRANT {grant.format(db=database.name)} TO {name}")
        return name

    yield make
    database.execute(f"DROP USER IF EXISTS {name}")


def test_a_server_that_is_set_right_has_no_findings(database: Database) -> None:
    database.execute(TABLE)
    assert check(database) == []


def test_an_account_with_just_what_is_needed_has_no_findings(
    database: Database, account: Callable[..., str]
) -> None:
    database.execute(TABLE)
    login = account("REPLICATION SLAVE, REPLICATION CLIENT ON *.*", "SELECT, LOCK TABLES ON {db}.*")
    assert check(database, login) == []


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def wrong_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server on which every setting of the log is wrong."""
    options = ["--binlog-format=MIXED", "--binlog-row-image=MINIMAL", "--binlog-expire-logs-seconds=3600"]
    if request.param == "mysql":
        options += ["--binlog-row-metadata=MINIMAL", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]
        options += ["--binlog-row-value-options=PARTIAL_JSON", "--binlog-transaction-compression=ON"]
        options += ["--innodb-native-foreign-keys=ON", "--partial-revokes=ON"]
    else:
        options += ["--binlog-row-metadata=NO_LOG", "--log-bin-compress=ON"]
    with running(request.param, *options) as server:
        yield server


def test_every_wrong_setting_of_the_log_is_found_and_its_fix_mends_it(wrong_server: Server) -> None:
    database = create_database(wrong_server)
    database.execute(TABLE)
    findings = check(database)
    expected = {("error", "BINLOG_FORMAT"), ("warning", "ROW_IMAGE"), ("error", "ROW_METADATA")}
    if wrong_server.flavor == "mysql":
        expected |= {("warning", "GTID_OFF")}
    assert set(codes(findings)) == expected | {("warning", "BINLOG_EXPIRY")}
    with pytest.raises(PreflightError) as caught:
        require(findings)
    assert caught.value.message == findings[0].message
    assert caught.value.hint == findings[0].fix
    assert caught.value.code == findings[0].code
    for number, finding in enumerate(findings):
        run_fix(wrong_server, finding)
        assert codes(check(database)) == codes(findings[number + 1 :])
    require(check(database))


def test_cascades_that_stay_inside_the_engine_are_worth_knowing(wrong_server: Server) -> None:
    database = create_database(wrong_server)
    database.execute(
        "CREATE TABLE p (id INT PRIMARY KEY)",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)",
        "CREATE TABLE r (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id))",
    )
    finding = one(check(database), "CASCADE_NOT_LOGGED")
    assert finding.severity == "info"
    assert finding.message.endswith(": c")
    assert ("innodb_native_foreign_keys" in finding.fix) == (wrong_server.flavor == "mysql")


def test_cascades_that_reach_the_log_are_no_finding(mysql_server: Server) -> None:
    database = create_database(mysql_server)
    database.execute(
        "CREATE TABLE p (id INT PRIMARY KEY)",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)",
    )
    assert check(database) == []
    database.drop()


def test_a_server_without_partial_revokes_is_known_as_one(mariadb_server: Server) -> None:
    with closing(pymysql.connect(host="127.0.0.1", port=mariadb_server.port, user="root")) as root:
        assert not server_facts(root).partial_revokes


def test_a_partial_revoke_takes_the_privilege_away(server_factory: Callable[..., Server]) -> None:
    server = server_factory("mysql", "--partial-revokes=ON")
    database = create_database(server)
    database.execute(
        TABLE,
        "CREATE USER partly",
        "GRANT SELECT, INSERT, LOCK TABLES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO partly",
        f"REVOKE SELECT ON `{database.name}`.* FROM partly",
    )
    finding = one(check(database, "partly"), "PRIVILEGE")
    assert (finding.subject, finding.table) == ("SELECT", None)
    assert f"`{database.name}`.*" in finding.fix
    run_fix(server, finding)
    assert "PRIVILEGE" not in {f.code for f in check(database, "partly")}


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_a_server_without_a_log_is_an_error(flavor: str, server_factory: Callable[..., Server]) -> None:
    server = server_factory(flavor, "--skip-log-bin")
    database = create_database(server)
    database.execute(TABLE)
    finding = one(check(database), "BINLOG_OFF")
    assert (finding.severity, finding.subject) == ("error", "log_bin")
    assert finding.fix == "[mysqld] log_bin = binlog"
    assert "PRIVILEGE" not in {f.code for f in check(database)}


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_a_replica_that_does_not_log_what_it_receives_is_an_error(
    flavor: str, server_factory: Callable[..., Server]
) -> None:
    server = server_factory(flavor, "--log-slave-updates=OFF")
    database = create_database(server)
    database.execute(TABLE)
    assert check(database) == []
    if flavor == "mysql":
        database.execute("CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = 1")
    else:
        database.execute(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = 1, MASTER_USER = 'x'",
            "START SLAVE SQL_THREAD",
        )
    finding = one(check(database), "REPLICA_UPDATES_OFF")
    assert finding.severity == "error"
    assert finding.fix.startswith("[mysqld] log_")


def test_missing_global_privileges_are_errors_and_their_fix_mends_them(
    database: Database, account: Callable[..., str]
) -> None:
    database.execute(TABLE)
    login = account("SELECT, LOCK TABLES ON {db}.*")
    client = "REPLICATION CLIENT" if database.flavor == "mysql" else "BINLOG MONITOR"
    findings = check(database, login)
    assert [(f.severity, f.code, f.subject) for f in findings] == [
        ("error", "PRIVILEGE", "REPLICATION SLAVE"),
        ("error", "PRIVILEGE", client),
    ]
    for finding in findings:
        database.execute(finding.fix)
    assert check(database, login) == []


def test_tables_that_the_account_may_not_read_are_errors_of_their_own(
    database: Database, account: Callable[..., str]
) -> None:
    database.execute(TABLE, "CREATE TABLE u (id INT PRIMARY KEY, secret INT)")
    login = account(
        "REPLICATION SLAVE, REPLICATION CLIENT ON *.*",
        "LOCK TABLES ON {db}.*",
        "SELECT ON {db}.t",
        "SELECT (id), INSERT ON {db}.u",
    )
    findings = check(database, login)
    finding = one(findings, "PRIVILEGE")
    assert (finding.severity, finding.subject, finding.table) == ("error", "SELECT", "u")
    require(findings)
    database.execute(finding.fix)
    findings = check(database, login)
    assert codes(findings) == [("info", "SELECT_BY_TABLE")]
    database.execute(findings[0].fix)
    assert check(database, login) == []


def test_a_database_of_which_nothing_may_be_read_is_an_error(
    database: Database, account: Callable[..., str]
) -> None:
    database.execute(TABLE)
    login = account("REPLICATION SLAVE, REPLICATION CLIENT ON *.*", "INSERT, LOCK TABLES ON {db}.*")
    finding = one(check(database, login), "PRIVILEGE")
    assert (finding.severity, finding.subject, finding.table) == ("error", "SELECT", None)
    database.execute(finding.fix)
    assert check(database, login) == []


def test_lock_tables_is_needed_on_mysql_most_of_all_where_a_table_has_no_key(
    database: Database, account: Callable[..., str]
) -> None:
    """A snapshot of MariaDB's knows its place in the log; one of MySQL's is tied to it under a lock."""
    database.execute(TABLE)
    login = account("REPLICATION SLAVE, REPLICATION CLIENT ON *.*", "SELECT ON {db}.*")
    keyed = [f for f in check(database, login) if f.code == "PRIVILEGE"]
    database.execute("CREATE TABLE loose (a INT)")
    missing = [f for f in check(database, login) if f.code == "PRIVILEGE"]
    of_mysql = database.flavor == "mysql"
    assert [(f.severity, f.subject) for f in keyed] == [("warning", "LOCK TABLES")] * of_mysql
    assert [(f.severity, f.subject) for f in missing] == [("error", "LOCK TABLES")] * of_mysql
    assert all("loose" in f.message for f in missing)
    for finding in missing:
        database.execute(finding.fix)
    assert codes(check(database, login)) == [("info", "NO_PRIMARY_KEY")]


def test_privileges_that_come_by_a_role_count(database: Database, account: Callable[..., str]) -> None:
    database.execute(TABLE)
    login = account()
    role = f"r{database.name[-12:]}"
    database.execute(
        f"CREATE ROLE {role}",
        f"GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {role}",
        f"GRANT SELECT, LOCK TABLES ON {database.name}.* TO {role}",
        f"GRANT {role} TO {login}",
        f"SET DEFAULT ROLE {role} {'TO' if database.flavor == 'mysql' else 'FOR'} {login}",
    )
    assert check(database, login) == []
    database.execute(f"DROP ROLE {role}")


def test_an_empty_database_is_a_warning(database: Database) -> None:
    assert codes(check(database)) == [("warning", "NO_TABLES")]


def test_a_table_without_a_key_is_worth_knowing(database: Database) -> None:
    database.execute("CREATE TABLE t (a INT)")
    finding = one(check(database), "NO_PRIMARY_KEY")
    assert (finding.severity, finding.table) == ("info", "t")
    database.execute(finding.fix)
    assert check(database) == []


def test_tables_outside_transactions_are_warnings_and_errors_without_a_key(database: Database) -> None:
    database.execute(
        "CREATE TABLE keyed (a INT PRIMARY KEY) ENGINE = MyISAM", "CREATE TABLE loose (a INT) ENGINE = MyISAM"
    )
    findings = check(database)
    assert [(f.severity, f.code, f.table) for f in findings] == [
        ("error", "NOT_TRANSACTIONAL_NO_KEY", "loose"),
        ("warning", "NOT_TRANSACTIONAL", "keyed"),
    ]
    assert table_errors(findings) == {"loose": findings[0]}
    require(findings)
    for finding in findings:
        database.execute(finding.fix)
    assert codes(check(database)) == [("info", "NO_PRIMARY_KEY")]


def test_system_versioned_tables_are_errors_of_their_own(database: Database) -> None:
    if database.flavor == "mysql":  # has none
        database.execute(TABLE)
        assert check(database) == []
        return
    database.execute(TABLE, "CREATE TABLE old (a INT PRIMARY KEY) WITH SYSTEM VERSIONING")
    finding = one(check(database), "SYSTEM_VERSIONED")
    assert (finding.severity, finding.table) == ("error", "old")
    database.execute(finding.fix)
    assert check(database) == []


def test_names_that_differ_by_case_only_are_errors_of_these_tables(database: Database) -> None:
    database.execute(TABLE, "CREATE TABLE T (id INT PRIMARY KEY)", "CREATE TABLE other (id INT PRIMARY KEY)")
    # not one name to DuckDB, which folds A to Z alone
    database.execute("CREATE TABLE `É` (id INT PRIMARY KEY)", "CREATE TABLE `é` (id INT PRIMARY KEY)")
    findings = check(database)
    assert {(f.severity, f.code, f.table) for f in findings} == {
        ("error", "NAME_CLASH", "t"),
        ("error", "NAME_CLASH", "T"),
    }


def test_columns_that_differ_by_case_only_are_an_error_of_the_table(database: Database) -> None:
    # no server allows them today; a catalogue that has them must not get through
    table = Table("s", "t", (Column("a", "int", "int"), Column("A", "int", "int")), ("a",))
    source = SourceEndpoint(Settings(mysql_connection_string=SecretStr(database.url)))
    with closing(source.connect(purpose="preflight")) as connection:
        findings = run_preflight(connection, server_facts(connection), [table], database.name)
    assert codes(findings) == [("error", "NAME_CLASH")]


def test_a_column_that_can_not_be_copied_exactly_is_an_error_of_the_table(database: Database) -> None:
    table = Table("s", "t", (Column("id", "int", "int"), Column("x", "hologram", "hologram")), ("id",))
    source = SourceEndpoint(Settings(mysql_connection_string=SecretStr(database.url)))
    with closing(source.connect(purpose="preflight")) as connection:
        findings = run_preflight(connection, server_facts(connection), [table], database.name)
    finding = one(findings, "UNSUPPORTED_COLUMN")
    assert (finding.severity, finding.table) == ("error", "t")
    assert "column x of table t" in finding.message
    assert "hologram" in finding.message


def test_errors_come_first_and_those_that_stop_everything_before_those_of_tables(
    database: Database, account: Callable[..., str]
) -> None:
    database.execute("CREATE TABLE loose (a INT) ENGINE = MyISAM", "CREATE TABLE free (a INT)")
    findings = check(database, account("SELECT ON {db}.*"))
    ranks = [(("error", "warning", "info").index(f.severity), f.table is not None) for f in findings]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 3


def test_grants_are_read_as_the_servers_print_them() -> None:
    grants = parse_grants(
        [
            "GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*AB'",
            "GRANT REPLICATION CLIENT, REPLICATION SLAVE ON *.* TO 'u'@'%' WITH GRANT OPTION",
            "GRANT BINLOG_ADMIN,BACKUP_ADMIN ON *.* TO `u`@`%`",
            "GRANT SELECT, INSERT ON `my\\_shop`.* TO `u`@`%`",
            "GRANT SELECT ON `test\\_%`.* TO PUBLIC",
            "GRANT ALL PRIVILEGES ON `a``b`.* TO `u`@`%`",
            "GRANT SELECT (`a`, `b`), UPDATE (`a`), DELETE ON `other`.`t` TO `u`@`%`",
            "GRANT SELECT ON `other`.`w` TO `u`@`%`",
            "GRANT EXECUTE ON PROCEDURE `other`.`p` TO `u`@`%`",
            "GRANT PROXY ON ``@`%` TO `root`@`localhost` WITH GRANT OPTION",
            "GRANT `role`@`%` TO `u`@`%`",
            "SET DEFAULT ROLE `role` FOR `u`@`%`",
        ]
    )
    assert grants.globally("REPLICATION SLAVE")
    assert grants.globally("BINLOG MONITOR")
    assert not grants.globally("SELECT")
    assert grants.on_schema("SELECT", "my_shop")
    assert not grants.on_schema("SELECT", "myxshop")
    assert grants.on_schema("SELECT", "test_1")
    assert not grants.on_schema("SELECT", "test")
    assert grants.on_schema("LOCK TABLES", "a`b")
    assert not grants.on_table("SELECT", "other", "t")
    assert grants.on_table("DELETE", "other", "t")
    assert grants.on_table("SELECT", "other", "w")
    assert not grants.on_table("SELECT", "OTHER", "w")
    assert parse_grants(["GRANT SELECT ON `s`.`t` TO `u`@`%`"], fold=True).on_table("SELECT", "S", "T")
    # the most specific pattern alone is in force, for each grantee
    shadowed = parse_grants(
        [
            "GRANT SELECT ON `a%`.* TO `u`@`%`",
            "GRANT INSERT ON `a_b`.* TO `u`@`%`",
            "GRANT UPDATE ON `a\\_b`.* TO `u`@`%`",
            "GRANT DELETE ON `a%`.* TO `role`",
        ]
    )
    assert shadowed.on_schema("UPDATE", "a_b")
    assert not shadowed.on_schema("INSERT", "a_b")
    assert shadowed.on_schema("INSERT", "axb")
    assert not shadowed.on_schema("SELECT", "axb")
    assert shadowed.on_schema("SELECT", "abc")
    assert shadowed.on_schema("DELETE", "a_b")
    assert shadowed.pattern("axb") == "a_b"
    assert shadowed.pattern("b") is None
    literal = parse_grants(["GRANT SELECT ON `a_b`.* TO `u`@`%`"], literal=True)
    assert literal.on_schema("SELECT", "a_b")
    assert not literal.on_schema("SELECT", "axb")
    revoked = parse_grants(["GRANT SELECT ON *.* TO `u`@`%`", "REVOKE SELECT ON `s`.* FROM `u`@`%`"])
    assert revoked.on_schema("SELECT", "t")
    assert not revoked.on_schema("SELECT", "s")
