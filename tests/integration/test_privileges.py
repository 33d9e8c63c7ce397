"""The GRANT statements of the manual are enough, and each of them is needed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from pydantic import SecretStr

from cdc.config import Settings
from cdc.errors import SourceAccessError
from cdc.sandbox.databases import Database, Host, create_database, session
from cdc.sandbox.packages import library_path, loader, unpacked
from cdc.source.catalog import load_tables
from cdc.source.connection import SourceEndpoint, server_facts
from cdc.source.preflight import run_preflight
from tests.replica import Replica
from tests.waiting import wait_until

MANUAL = Path(__file__).parents[2] / "docs" / "operations.md"
TABLES = (
    "CREATE TABLE keyed (id INT PRIMARY KEY, a INT)",
    "CREATE TABLE loose (a INT)",
    "CREATE VIEW seen AS SELECT id FROM keyed",
    "INSERT INTO keyed VALUES (1, 1), (2, 2)",
    "INSERT INTO loose VALUES (7), (7), (8)",
)


def manual(flavor: str) -> list[str]:
    """The statements of the manual for that server."""
    block = re.search(rf"<!-- grants: {flavor} -->\s*```sql\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    assert block is not None
    return [statement.strip() for statement in block[1].split(";") if statement.strip()]


@pytest.fixture
def account(database: Database) -> Iterator[Callable[..., str]]:
    """`account(without=…)` carries the manual's statements out, for this database; the account's URL."""
    name = f"u{database.name[-12:]}"

    def make(*, without: str | None = None) -> str:
        for statement in manual(database.flavor):
            if without is not None:
                statement = without_privilege(statement, without)
            if statement:
                here = statement.replace("'duckling'", f"'{name}'").replace("`shop`", f"`{database.name}`")
                database.execute(here.replace(" REQUIRE SSL", ""))  # not every test server has a certificate
        return database.url.replace("//root@", f"//{name}:a-long-password@")

    yield make
    database.execute(f"DROP USER IF EXISTS '{name}'@'%'")


def without_privilege(statement: str, privilege: str) -> str:
    """`statement` without that privilege; '' where nothing is left of it."""
    found = re.fullmatch(r"GRANT (.+) (ON .+)", statement)
    if found is None:
        return statement
    left = [each for each in found[1].split(", ") if each != privilege]
    return f"GRANT {', '.join(left)} {found[2]}" if left else ""


def test_an_account_with_the_manuals_grants_copies_follows_compares_and_measures(
    database: Database, account: Callable[..., str], replica_factory: Callable[..., Replica]
) -> None:
    database.execute(*TABLES)
    replica = replica_factory(account()).start()
    database.execute(
        "INSERT INTO keyed VALUES (3, 3)",
        "DELETE FROM loose WHERE a = 7 LIMIT 1",
        "ALTER TABLE keyed ADD COLUMN b INT DEFAULT 5",
        "CREATE TABLE later (id INT PRIMARY KEY)",
        "INSERT INTO later VALUES (1)",
    )
    replica.settle()
    assert sorted(replica.rows("SELECT a FROM loose")) == [(7,), (8,)]
    assert replica.rows("SELECT * FROM keyed ORDER BY id") == [(1, 1, 5), (2, 2, 5), (3, 3, 5)]
    assert replica.rows("SELECT * FROM later") == [(1,)]
    report = replica.pipeline.validate("checksum")
    assert {each.table: each.matches for each in report.results} == {
        "keyed": True,
        "later": True,
        "loose": True,
    }
    wait_until(lambda: replica.pipeline.status().lag_seconds == 0, "the lag is known")
    assert replica.pipeline.status().source.filename is not None
    result = replica.pipeline.start_full_sync().wait(60)
    assert sorted(each.table for each in result.tables) == ["keyed", "later", "loose"]


def privileges() -> list[tuple[str, str]]:
    """Every privilege of the manual, by server."""
    return [
        (flavor, privilege)
        for flavor in ("mysql", "mariadb")
        for statement in manual(flavor)
        if (found := re.fullmatch(r"GRANT (.+) ON .+", statement))
        for privilege in found[1].split(", ")
    ]


def test_each_of_the_manuals_grants_is_missed_and_named_where_it_is_left_out(
    database: Database, account: Callable[..., str]
) -> None:
    database.execute(*TABLES)
    wanted = [privilege for flavor, privilege in privileges() if flavor == database.flavor]
    assert len(wanted) == {"mysql": 4, "mariadb": 3}[database.flavor]
    for privilege in wanted:
        url = account(without=privilege)
        endpoint = SourceEndpoint(Settings(mysql_connection_string=SecretStr(url)))
        if (database.flavor, privilege) == ("mariadb", "SELECT"):
            # Its only privilege on the database: without it the login ends there.
            with pytest.raises(SourceAccessError, match="to database"):
                endpoint.connect(purpose="preflight")
            database.execute(f"DROP USER '{endpoint.url.user}'@'%'")
            continue
        with closing(endpoint.connect(purpose="preflight")) as connection:
            tables = load_tables(connection, database.name)
            findings = run_preflight(connection, server_facts(connection), tables, database.name)
        missed = [finding for finding in findings if finding.code == "PRIVILEGE"]
        assert [finding.subject for finding in missed] == [privilege]
        assert missed[0].fix.startswith(f"GRANT {privilege} ON ")
        database.execute(f"DROP USER '{endpoint.url.user}'@'%'")


def test_the_account_of_the_compose_file_is_made_with_any_password_and_no_more_than_it_needs(
    mysql_server: Host, tmp_path: Path
) -> None:
    database = create_database(mysql_server, f"duckling_a_b_{os.getpid()}")
    root = urlsplit(mysql_server.url())
    client = unpacked("sid", "mysql-server-core", "mysql-client-core")
    command = [str(loader(client)), "--library-path", library_path(client), str(client / "usr/bin/mysql")]
    shim = tmp_path / "mysql"
    shim.write_text(f'#!/bin/sh\nexec {shlex.join(command)} -h {root.hostname} -P {root.port} "$@"\n')
    shim.chmod(0o700)
    password = "a'b\\c\"d$e`f"
    (tmp_path / "password").write_text(password + "\n")
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "MYSQL_ROOT_PASSWORD": root.password or "",
        "MYSQL_DATABASE": database.name,
        "DUCKLING_PASSWORD_FILE": str(tmp_path / "password"),
    }
    try:
        done = subprocess.run(
            ["bash", str(MANUAL.parents[1] / "docker/mysql/account.sh")],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        login = f"duckling:{quote(password, safe='')}@{root.hostname}:{root.port}"
        url = f"mysql://{login}/{database.name}"
        with session(url, ssl={"check_hostname": False}) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW GRANTS")
            granted = sorted(str(row[0]) for row in cursor.fetchall())
    finally:
        database.execute("DROP USER IF EXISTS 'duckling'@'%'")
        database.drop()
    pattern = database.name.replace("_", "\\_")
    assert granted == [
        "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `duckling`@`%`",
        f"GRANT SELECT, LOCK TABLES ON `{pattern}`.* TO `duckling`@`%`",
    ]
