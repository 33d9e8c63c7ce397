"""The service on a real socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.server import Server, bind
from cdc.config import Settings
from cdc.databases import DatabaseDefinition, DatabasesFile
from cdc.metrics import Metrics
from cdc.pipeline import Pipeline
from cdc.registry import DEFAULT, Registry
from cdc.sandbox.databases import Database, Host, create_database

KEY = "a-key-of-the-tests-0001"
OTHER_KEY = "a-key-of-the-tests-0002"
WAIT = 20
"""Seconds after which a test gives up on something that takes milliseconds."""


def make_settings(tmp_path: Path, **options: Any) -> Settings:
    return Settings(
        **{
            "mysql_connection_string": "mysql://nobody@127.0.0.1:1/nothing",
            "duckdb_path": tmp_path / "copy.db",
            "duckling_api_key": f"{KEY},{OTHER_KEY}",
            **options,
        }
    )


@contextmanager
def served(
    registry: Registry, settings: Settings, *extra: Any, metrics: Metrics | None = None
) -> Iterator[httpx.Client]:
    """A client, with the key, of a service that runs in a thread; `extra` are further routes."""
    with bind("127.0.0.1", 0) as listener:
        app = create_app(registry, settings, metrics or Metrics())
        app.router.routes.extend(extra)
        server = Server(app)
        thread = threading.Thread(target=server.run_on, args=(listener,), name="service")
        thread.start()
        try:
            assert server.ready.wait(WAIT)
            port = listener.getsockname()[1]
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=WAIT,
                trust_env=False,
            ) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(WAIT)
            assert not thread.is_alive()


@contextmanager
def replicated(url: str, folder: Path, **options: Any) -> Iterator[tuple[httpx.Client, Pipeline]]:
    """A client and the pipeline of a service for the source at `url` that copies when it is asked to."""
    settings = make_settings(folder, mysql_connection_string=url, **{"auto_start_sync": False, **options})
    metrics = Metrics()
    pipeline = Pipeline(DEFAULT, settings, metrics.for_database(DEFAULT))

    def build(definition: DatabaseDefinition) -> Pipeline:
        return Pipeline(definition.id, definition.settings(settings), metrics.for_database(definition.id))

    file = DatabasesFile(settings.databases_path)
    registry = Registry([pipeline], build=build, file=file, folder=folder, removed=metrics.forget)
    registry.load()
    try:
        pipeline.check_start()
        with served(registry, settings, metrics=metrics) as client:
            yield client, pipeline
    finally:
        registry.stop()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., httpx.Client]]:
    """`serve(*routes, **settings)`: a client of a service without databases."""
    with ExitStack() as stack:

        def start(*routes: Any, **options: Any) -> httpx.Client:
            return stack.enter_context(served(Registry(), make_settings(tmp_path, **options), *routes))

        yield start


@pytest.fixture
def mysql_database(mysql_server: Host) -> Iterator[Database]:
    """A new database on MySQL alone, for rules that are the same for every source."""
    made = create_database(mysql_server)
    yield made
    made.drop()
