"""Changes that are easily applied almost right: what the source made of its rows, the copy must have too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cdc.sandbox.databases import Host
from cdc.sandbox.installation import Flavor
from tests.replica import Replica
from tests.schema.traps import MARIADB_TRAPS, TRAPS
from tests.schema.trial import START, STOP, Trial

pytestmark = pytest.mark.timeout(120)


@pytest.mark.crossed
@pytest.mark.parametrize("backlog", [False, True], ids=["live", "backlog"])
def test_rows_that_a_statement_rewrites_are_as_the_source_has_them(
    server: Host, tmp_path: Path, backlog: bool
) -> None:
    traps = TRAPS | (MARIADB_TRAPS if server.flavor is Flavor.MARIADB else {})
    tables = {name: f"t{number}" for number, name in enumerate(traps)}
    with Trial(server, tmp_path) as trial:
        for name, (before, _) in traps.items():
            trial.play(*(statement.format(t=tables[name]) for statement in before))
        trial.start()
        trial.compare()
        if backlog:
            trial.play(STOP)
        for name, (_, change) in traps.items():
            print(tables[name], name)
            for statement in change:
                text = statement.format(t=tables[name]).removeprefix("?")
                assert trial.execute(text) or statement.startswith("?"), trial.script[-1]
            trial.play("SET SESSION sql_mode = DEFAULT", "SET time_zone = '+00:00'")
        if backlog:
            trial.play(START)
        trial.compare()


def test_a_pipeline_that_is_stopped_while_its_first_copy_ends_leaves_no_stream_behind(
    server: Host, tmp_path: Path, replica_factory: Callable[..., Replica]
) -> None:
    with Trial(server, tmp_path) as trial:
        trial.play("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        for _ in range(3):
            replica_factory(trial.database.url).start(live=False).stop()
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("stream-")]
