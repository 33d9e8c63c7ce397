"""Replicas that are kept by watermarks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.sandbox.databases import Database
from tests.replica import Replica


@pytest.fixture
def polled(database: Database, replica_factory: Callable[..., Replica]) -> Callable[..., Replica]:
    """`polled(**settings)`: a started replica of `database` that follows no log; it syncs when it is asked."""

    def start(**settings: object) -> Replica:
        options = {"cdc_enabled": False, "auto_start_sync": False, **settings}
        return replica_factory(database.url, **options).start(live=False)

    return start
