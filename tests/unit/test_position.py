"""GTID sets against sets of numbers, MariaDB's positions, and the order of places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import BinlogError
from cdc.position import GtidPosition, GtidSet, Position, file_number

A = "aaaaaaaa-1111-1111-1111-111111111111"
B = "bbbbbbbb-2222-2222-2222-222222222222"

spans = st.lists(
    st.tuples(st.sampled_from([(A, ""), (B, ""), (A, "tag")]), st.integers(1, 30), st.integers(0, 5)),
    max_size=25,
)
Model = set[tuple[str, str, int]]


def build(parts: list[tuple[tuple[str, str], int, int]]) -> tuple[GtidSet, Model]:
    made, model = GtidSet(), set()
    for (sid, tag), first, more in parts:
        made.add(sid, first, first + more, tag=tag)
        model |= {(sid, tag, n) for n in range(first, first + more + 1)}
    return made, model


def members(of: GtidSet) -> Model:
    return {
        (sid, tag, n)
        for sid, tag in [(A, ""), (B, ""), (A, "tag")]
        for n in range(60)
        if of.contains(sid, n, tag)
    }


@given(spans)
def test_a_gtid_set_holds_what_was_added_and_survives_its_text(
    parts: list[tuple[tuple[str, str], int, int]],
) -> None:
    made, model = build(parts)
    assert members(made) == model
    again = GtidSet.parse(str(made))
    assert members(again) == model
    assert again == made


@given(spans, spans)
def test_a_gtid_set_covers_another_where_it_has_all_of_it(
    one: list[tuple[tuple[str, str], int, int]], two: list[tuple[tuple[str, str], int, int]]
) -> None:
    (a, model_a), (b, model_b) = build(one), build(two)
    assert a.covers(b) == (model_b <= model_a)


@given(spans)
def test_a_copy_of_a_gtid_set_is_independent(parts: list[tuple[tuple[str, str], int, int]]) -> None:
    made, model = build(parts)
    other = made.copy()
    other.add(A, 50)
    assert members(made) == model


def test_a_gtid_sets_text_may_hold_white_space_and_any_case() -> None:
    assert str(GtidSet.parse(f" {A.upper()}:1-3:5,\n{B}:7 ")) == f"{A}:1-3:5,{B}:7"


@pytest.mark.parametrize("text", ["x", f"{A}:1-2-3", "1-1-1", f"{A}:-1"])
def test_what_is_no_gtid_set_is_refused(text: str) -> None:
    with pytest.raises(BinlogError):
        GtidSet.parse(text)


def test_a_set_with_tags_is_asked_for_in_the_form_that_names_them() -> None:
    """The bytes are those of a PREVIOUS_GTIDS event of MySQL 9.7."""
    first = "11111111-2222-3333-4444-555555555555"
    second = "733d1c85-e69c-11f1-8a8e-02fc00000001"
    tagged = GtidSet.parse(f"{second}:1-3:mytag:1-2,{first}:other:7-8")
    assert tagged.encode().hex() == (
        "0103000000000001"
        "111111112222333344445555555555550a6f74686572010000000000000007000000000000000900000000000000"
        "733d1c85e69c11f18a8e02fc0000000100010000000000000001000000000000000400000000000000"
        "733d1c85e69c11f18a8e02fc000000010a6d79746167010000000000000001000000000000000300000000000000"
    )


def test_transactions_of_different_tags_are_different() -> None:
    tagged = GtidSet.parse(f"{A}:1-5:tag:1-3")
    assert tagged.covers(GtidSet.parse(f"{A}:tag:2"))
    assert not tagged.covers(GtidSet.parse(f"{A}:tag:4"))
    assert not tagged.covers(GtidSet.parse(f"{A}:other:1"))
    assert str(GtidSet.parse(str(tagged))) == str(tagged)


def test_a_mariadb_position_keeps_the_last_of_each_domain() -> None:
    position = GtidPosition.parse("0-1-100, 7-2-5")
    position.advance(0, 3, 101)
    assert str(position) == "0-3-101,7-2-5"
    with pytest.raises(BinlogError):
        GtidPosition.parse("0-1")


def test_files_are_ordered_by_number() -> None:
    assert file_number("binlog.1000000") > file_number("binlog.999999")
    later = Position("mysql", "s", "binlog.1000000", 4)
    assert later.reached(Position("mysql", "s", "binlog.999999", 1 << 33))
    with pytest.raises(BinlogError):
        file_number("binlog")


def test_places_of_two_servers_are_not_compared() -> None:
    with pytest.raises(BinlogError):
        Position("mysql", "s", "b.1", 4).reached(Position("mysql", "r", "b.1", 4))
