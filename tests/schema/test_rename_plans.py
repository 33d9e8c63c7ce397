"""What a statement's renames mean for the names, worked out without a server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc.schema_changes.renames import plan_renames


def test_a_table_that_is_gone_for_another_schema_and_one_that_comes_are_not_taken_for_the_same() -> None:
    plan = plan_renames([("a", None), (None, "a")], chosen={"a"}, live={"a"}, readable={"a"}, left=set())
    assert [(placed.key, placed.origin, placed.outcome) for placed in plan.placed] == [("a", None, "keeps")]


NAMES = ["a", "b", "c", "d"]


@st.composite
def renames(draw: st.DrawFn) -> tuple[list[tuple[str | None, str | None]], dict[str, str | None]]:
    """Pairs that a server would carry out, and by name which table bears it then; None is a foreign one."""
    there: dict[str, str | None] = {name: name for name in draw(st.sets(st.sampled_from(NAMES), min_size=1))}
    pairs: list[tuple[str | None, str | None]] = []
    for _ in range(draw(st.integers(1, 6))):
        old = draw(st.sampled_from([None, *sorted(there)]))
        free = [name for name in NAMES if name not in there]
        new = draw(st.sampled_from([None, *free]))
        if old is None and new is None:
            continue
        table = there.pop(old) if old is not None else None
        if new is not None:
            there[new] = table
        pairs.append((old, new))
    return pairs, there


@given(
    renames(),
    st.sets(st.sampled_from(NAMES)),
    st.sets(st.sampled_from(NAMES)),
    st.sets(st.sampled_from(NAMES)),
)
def test_no_rows_are_shown_twice_or_under_a_wrong_name_and_none_go_missing(
    done: tuple[list[tuple[str | None, str | None]], dict[str, str | None]],
    live: set[str],
    waiting: set[str],
    chosen: set[str],
) -> None:
    pairs, there = done
    readable = live | waiting
    plan = plan_renames(pairs, chosen=chosen, live=live, readable=readable, left=set())
    touched = {name for pair in pairs for name in pair if name is not None}
    assert set(plan.touched) == touched
    assert {placed.key: placed.origin for placed in plan.placed} == {
        name: table for name, table in there.items() if name in touched & chosen
    }
    shown = [placed.rows_from for placed in plan.placed if placed.rows_from is not None]
    assert len(shown) == len(set(shown))
    assert set(shown) <= readable
    for placed in plan.placed:
        assert placed.rows_from in (None, placed.key, placed.origin)
        if placed.key in readable:
            assert placed.rows_from is not None, "a name that readers know is without rows"
        if placed.outcome == "moves":
            assert placed.origin in live
        if placed.outcome == "keeps":
            assert placed.origin != placed.key
        if placed.origin in live and placed.outcome not in ("moves", "stays"):
            kept = {other.key for other in plan.placed if other.outcome == "keeps"}
            assert placed.origin in kept, "a table that streams left the stream for nothing"
