"""Fixtures of all tests: a real MySQL and a real MariaDB for the run, a database for each test.

DUCKLING_TEST_MYSQL and DUCKLING_TEST_MARIADB give the URL of a server to be used instead of our own. Where
there is no server, tests fail: nothing is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings

from cdc.sandbox.databases import Database, GivenServer, Host, create_database
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import Server, running
from cdc.sandbox.service import Service
from tests.replica import Replica

# Hundreds of services are started: from bytecode, as installed programs are, which saves 0.3 s each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

EVERYTHING = os.environ.get("FAULTS") == "all"
"""Whether all that takes long runs in full; otherwise a sample of it does."""

# How long an example takes says something of the machine, nothing of the code. All examples with FAULTS=all.
settings.register_profile("duckling", deadline=None, max_examples=100 if EVERYTHING else 40)
settings.load_profile("duckling")


CROSSED = ("api", "faults")
"""Folders of tests for which one of both servers is as good as the other, more or less."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of tests that are `crossed`, or in such folders, every other pair of server and variant is left to FAULTS=all."""
    if EVERYTHING:
        return
    flavors: dict[str, set[Flavor]] = {}
    for item in items:
        if (flavor := _flavor(item)) is not None:
            flavors.setdefault(_function(item), set()).add(flavor)
    left = [
        item
        for item in items
        if _is_crossed(item) and len(flavors.get(_function(item), ())) == len(Flavor) and _place(item) % 2
    ]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


def _is_crossed(item: pytest.Item) -> bool:
    return item.get_closest_marker("crossed") is not None or item.path.parent.name in CROSSED


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _flavor(item: pytest.Item) -> Flavor | None:
    """The server that a test's parameters name; None where there is no choice."""
    found = (
        item.callspec.params.values()
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else ()
    )
    return next((value for value in found if isinstance(value, Flavor)), None)


def _place(item: pytest.Item) -> int:
    """The place of a test among its parameters, the servers being one of them; not every function begins with MySQL."""
    assert isinstance(item, pytest.Function)
    return sum(item.callspec.indices.values()) + crc32(item.originalname.encode())


GIVEN = {Flavor.MYSQL: "DUCKLING_TEST_MYSQL", Flavor.MARIADB: "DUCKLING_TEST_MARIADB"}


def _host(flavor: Flavor, stack: ExitStack) -> Host:
    url = os.environ.get(GIVEN[flavor])
    if not url:
        return stack.enter_context(running(flavor))
    given = GivenServer(url)
    if given.flavor is not flavor:
        raise pytest.UsageError(f"{GIVEN[flavor]} names a server of {given.flavor}")
    return given


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[Host]:
    """A MySQL server for the run."""
    with ExitStack() as stack:
        yield _host(Flavor.MYSQL, stack)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Host]:
    """A MariaDB server for the run."""
    with ExitStack() as stack:
        yield _host(Flavor.MARIADB, stack)


@pytest.fixture(scope="session", params=list(Flavor), ids=str)
def server(request: pytest.FixtureRequest) -> Host:
    """Both servers: a test that uses it runs once on each."""
    host: Host = request.getfixturevalue(f"{request.param}_server")
    return host


@pytest.fixture
def database(server: Host) -> Iterator[Database]:
    """A new database on each of both servers."""
    made = create_database(server)
    yield made
    made.drop()


@pytest.fixture
def server_factory() -> Iterator[Callable[..., Server]]:
    """`server_factory(flavor, *options)` starts a server that is the test's own: to restart, to kill."""
    with ExitStack() as stack:

        def start(flavor: Flavor | str, *options: str) -> Server:
            return stack.enter_context(running(flavor, *options))

        yield start


@pytest.fixture
def replica_factory(tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    """`replica_factory(url, **settings)`: a replica of that database, not started yet, stopped at the end.

    The file is always the same, so that a second one goes on where the first, once stopped, ended.
    """
    made: list[Replica] = []

    def make(url: str, **settings: Any) -> Replica:
        made.append(Replica(url, tmp_path / "replica.db", **settings))
        return made[-1]

    yield make
    for replica in made:
        replica.stop()


@pytest.fixture
def replica(database: Database, replica_factory: Callable[..., Replica]) -> Replica:
    """A replica of `database` with the usual settings, not started yet."""
    return replica_factory(database.url)


@pytest.fixture
def service_factory(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """`service_factory(url, **settings)`: `duckling serve` for that database, as a process; not started yet.

    Its log is `service.log` in its folder.
    """
    with ExitStack() as stack:

        def make(url: str, **settings: Any) -> Service:
            options = {"duckdb_threads": 2, "retry_max_seconds": 0.5, **settings}
            return stack.enter_context(Service(url, tmp_path, **options))

        yield make
