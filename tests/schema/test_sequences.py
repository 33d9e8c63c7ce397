"""Random sequences of schema changes and rows, stops, restarts and kills: equal at the end of each.

DUCKLING_EXAMPLES is how many are tried on each server, from a random start; without it a few, always the same.
A failing sequence is printed as a script that `Trial.play` takes: keep it in test_counter_examples.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from cdc.sandbox.databases import Host
from tests.schema.columns import TYPES
from tests.schema.shapes import FIRST
from tests.schema.steps import (
    CLAUSES,
    Alter,
    Backlog,
    Crash,
    Create,
    Do,
    Empty,
    Exchange,
    Nothing,
    Rename,
    Rows,
    Step,
)
from tests.schema.trial import Trial

EXAMPLES = int(os.environ.get("DUCKLING_EXAMPLES") or 0)
STEPS = 30

small = st.integers(0, 11)
clause = st.tuples(st.sampled_from(CLAUSES), small, small, st.sampled_from(TYPES))
modes = st.sampled_from(["", "", "", "sql_mode = ''", "time_zone = '+05:30'"])
rows = st.builds(Rows, small, small, small, st.sampled_from([True, True, True, False]))
change: st.SearchStrategy[Step] = st.one_of(
    st.builds(Nothing),
    rows,
    rows,
    rows,
    st.builds(Alter, small, st.tuples(clause), modes),
    st.builds(Alter, small, st.tuples(clause), modes),
    st.builds(Alter, small, st.tuples(clause), modes),
    st.builds(Alter, small, st.tuples(clause, clause), modes),
    st.builds(Alter, small, st.tuples(clause, clause, clause), modes),
    st.builds(Rename, small, small, st.sampled_from(["free", "swap", "shift"])),
    st.builds(Empty, small, small, st.sampled_from(["truncate", "delete", "recreate", "drop"])),
    st.builds(Create, small, small, st.sampled_from(["shape", "like", "select", "select_key", "copy"])),
    st.builds(Exchange, small, small),
)


@st.composite
def several(draw: st.DrawFn) -> tuple[Step, ...]:
    """A few steps that belong together."""
    return tuple(draw(change) for _ in range(draw(st.integers(1, 5))))


step: st.SearchStrategy[Step] = st.one_of(
    change,
    change,
    change,
    change,
    change,
    change,
    change,
    st.builds(Do, st.sampled_from(["stop", "start", "compare"])),
    st.builds(Backlog, several()),
    st.builds(Crash, several()),
)


@st.composite
def sequence(draw: st.DrawFn) -> list[Step]:
    """Steps in order; a composite, since the strategy's own text would fill pages."""
    return [draw(step) for _ in range(STEPS)]


@pytest.mark.timeout(0 if EXAMPLES else 180)
def test_after_any_sequence_of_changes_stops_and_kills_the_copy_equals_the_source(
    server: Host, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @settings(
        max_examples=EXAMPLES or 2,
        derandomize=not EXAMPLES,
        database=None,
        # To find the simplest failing sequence takes minutes, for which a long run has the time.
        phases=list(Phase) if EXAMPLES else [Phase.generate],
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(sequence())
    def equal(steps: list[Step]) -> None:
        run(server, tmp_path_factory.mktemp("trial"), steps)

    equal()


def run(server: Host, folder: Path, steps: list[Step]) -> None:
    """Takes the steps and compares."""
    with Trial(server, folder) as trial:
        try:
            for name, statement in FIRST:
                trial.execute(statement.format(t=name))
            Rows(0, 1, 3, True)(trial)
            Rows(2, 1, 4, True)(trial)
            trial.start()
            for each in steps:
                each(trial)
            trial.compare()
        finally:
            note("\n".join(trial.script))
