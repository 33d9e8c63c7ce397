from __future__ import annotations

import io

import pytest
from rich.console import Console

from cdc.errors import ConfigError
from cdc.sandbox import shop
from cdc.sandbox.databases import Database, GivenServer, Host, create_database, session
from cdc.sandbox.demo import DATABASE, run_demo


def databases(server: Host) -> set[str]:
    with session(server.url()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        return {str(name) for (name,) in cursor.fetchall()}


@pytest.fixture
def left_over(mysql_server: Host) -> Database:
    """A database as a demo leaves it that was killed."""
    database = create_database(mysql_server, DATABASE)
    shop.create_tables(database.connect())
    return database


def test_the_demo_ends_with_equal_contents_and_figures_and_leaves_a_given_server_as_it_was(
    mysql_server: Host, left_over: Database
) -> None:
    before = databases(mysql_server) - {left_over.name}
    output = io.StringIO()
    status = run_demo(seconds=2, mysql_url=mysql_server.url(), console=Console(file=output, width=100))
    told = output.getvalue()
    assert status == 0, told
    for word in ("equal: ", "rows/s", "transactions", "lag ", "p50", "p95", "max"):
        assert word in told
    assert databases(mysql_server) == before
    left_over.drop()


def test_the_demo_refuses_a_database_of_its_name_that_no_demo_made(mysql_server: Host) -> None:
    database = create_database(mysql_server, DATABASE)
    try:
        database.execute("CREATE TABLE customers (id INT PRIMARY KEY)")
        given = GivenServer(mysql_server.url())
        with pytest.raises(ConfigError, match="no demo made"):
            run_demo(seconds=1, mysql_url=given.url(), console=Console(file=io.StringIO()))
        assert DATABASE in databases(mysql_server)
    finally:
        database.drop()
