"""Which rows a pass reads again: all that may have turned up late, whatever the moments of commits and syncs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.replica.watermarks import Cursor, Progress
from cdc.schema import Column, Table
from cdc.watermark.choice import Followed, Traits, choose
from cdc.watermark.moments import before, grain, moment
from cdc.watermark.poll import may_have_news
from cdc.watermark.progress import advanced, halfway, started
from cdc.watermark.questions import Answer
from cdc.watermark.reading import FIRST_KEYS, newer

_NOON = datetime(2026, 3, 29, 12)
_OVERLAP = 60.0


def _at(seconds: float) -> str:
    return (_NOON + timedelta(seconds=seconds)).isoformat(" ", "microseconds")


def _table(data_type: str, fraction: int = 0) -> Followed:
    columns = (
        Column("id", "int", "int", nullable=False),
        Column("updated_at", data_type, data_type, fraction=fraction),
    )
    return choose(Table("shop", "t", columns, ("id",)), Traits())


def _keyed() -> Followed:
    return choose(Table("shop", "t", (Column("id", "bigint", "bigint"),), ("id",)), Traits(growing="id"))


@dataclass(frozen=True, slots=True)
class Write:
    """A row is written: `stamped` by a clock, seen by others `delay` seconds later."""

    row: int
    stamped: float
    delay: float

    @property
    def visible(self) -> float:
        return self.stamped + self.delay


_writes = st.lists(
    st.builds(
        Write,
        row=st.integers(0, 3),
        stamped=st.floats(0, 1000),
        delay=st.floats(0, _OVERLAP - 1),
    ),
    min_size=1,
    max_size=12,
)
_polls = st.lists(st.floats(0, 1200), min_size=1, max_size=12, unique=True).map(sorted)


def _grained(followed: Followed, seconds: float) -> str:
    """The timestamp that the column keeps."""
    assert followed.column is not None
    if followed.column.data_type == "date":
        return moment((_NOON + timedelta(seconds=seconds)).date().isoformat()) or ""
    return _at(seconds)[:19] + ".000000" if followed.column.fraction == 0 else _at(seconds)


def _meets(followed: Followed, progress: Progress, stamp: str) -> bool:
    """What `newer` says in SQL."""
    assert followed.column is not None
    if progress.value is None:
        return True
    if progress.settled:
        return stamp > progress.value
    return stamp >= before(progress.value, _OVERLAP + grain(followed.column))


@given(
    writes=_writes,
    polls=_polls,
    behind=st.sampled_from([0, 5 * 3600, 12 * 3600, -5.5 * 3600]),
    kind=st.sampled_from([("timestamp", 6), ("timestamp", 0), ("datetime", 3), ("date", 0)]),
)
def test_no_write_is_missed_that_is_seen_within_the_overlap(
    writes: list[Write], polls: list[float], behind: float, kind: tuple[str, int]
) -> None:
    followed = _table(*kind)
    zone = 0 if kind[0] == "timestamp" else behind  # the zone of the clock that fills a DATETIME
    read: dict[int, Write] = {}
    progress: Progress | None = None
    for clock in polls:
        there = {}
        for write in sorted(writes, key=lambda each: each.visible):
            if write.visible < clock:
                there[write.row] = write
        stamps = {row: _grained(followed, write.stamped - zone) for row, write in there.items()}
        greatest = max(stamps.values(), default=None)
        if progress is None:
            read = dict(there)
            progress = started(followed, greatest, _at(clock), _OVERLAP, Progress())
            continue
        if may_have_news(followed, progress, Answer(greatest)):
            new = {row for row, stamp in stamps.items() if _meets(followed, progress, stamp)}
            read.update((row, there[row]) for row in new)
            latest = max((stamps[row] for row in new), default=None)
            progress = advanced(followed, progress, latest, _at(clock), _OVERLAP)
        assert {row: read.get(row) for row in there} == there


@given(
    writes=st.lists(
        st.builds(Write, row=st.just(0), stamped=st.floats(0, 1000), delay=st.floats(0, 59)), max_size=20
    ),
    polls=_polls,
)
def test_no_key_is_missed_that_is_seen_within_the_overlap(writes: list[Write], polls: list[float]) -> None:
    followed, progress, read = _keyed(), None, set[int]()
    numbered = list(enumerate(sorted(writes, key=lambda each: each.stamped), start=1))
    for clock in polls:
        there = {number for number, write in numbered if write.visible < clock}
        greatest = str(max(there)) if there else None
        if progress is None:
            read, progress = set(there), started(followed, greatest, _at(clock), _OVERLAP, Progress())
            continue
        if may_have_news(followed, progress, Answer(greatest)):
            low = 0 if progress.value is None else int(progress.value) - FIRST_KEYS
            new = {
                number
                for number in there
                if number > (low if progress.floor is None else int(progress.floor))
            }
            read |= new
            latest = str(max(new)) if new else None
            progress = advanced(followed, progress, latest, _at(clock), _OVERLAP)
        assert read == there


def test_a_timestamp_in_the_future_does_not_hide_what_is_stamped_until_then() -> None:
    followed = _table("timestamp")
    progress = started(followed, "2037-01-01 00:00:00.000000", _at(0), _OVERLAP, Progress())
    assert (progress.value, progress.settled) == (_at(0), False)
    later = advanced(followed, progress, "2037-01-01 00:00:00.000000", _at(900), _OVERLAP)
    assert (later.value, later.settled) == (_at(900), False)


def test_a_date_in_the_future_does_not_hide_what_a_clock_behind_utc_stamps_until_then() -> None:
    followed = _table("datetime")
    progress = started(followed, "9999-12-31 00:00:00.000000", _at(0), _OVERLAP, Progress())
    assert (progress.value, progress.settled) == (_at(-14 * 3600), False)


def test_a_pass_over_days_reads_the_day_before_again_while_that_may_come_late() -> None:
    followed = _table("date")
    today = "2026-03-29 00:00:00.000000"
    progress = started(followed, today, "2026-03-29 00:00:10.000000", _OVERLAP, Progress())
    assert newer(followed, progress, _OVERLAP) == "`updated_at` >= '2026-03-27 23:59:00.000000'"


@pytest.mark.parametrize(("data_type", "settled"), [("timestamp", True), ("datetime", False)])
def test_what_is_long_past_by_the_sources_clock_is_settled_where_the_column_is_in_utc(
    data_type: str, settled: bool
) -> None:
    followed = _table(data_type)
    assert started(followed, _at(-3600), _at(0), _OVERLAP, Progress()).settled is settled
    assert started(followed, _at(-86_400), _at(0), _OVERLAP, Progress()).settled is True


def test_a_value_is_settled_once_the_overlap_was_read_again_an_overlap_later() -> None:
    followed = _table("datetime")
    progress = started(followed, _at(-3), _at(0), _OVERLAP, Progress())
    early = advanced(followed, progress, _at(-3), _at(30), _OVERLAP)
    assert (early.settled, early.seen) == (False, _at(0))
    assert newer(followed, early, _OVERLAP) == f"`updated_at` >= '{_at(-64)}'"
    late = advanced(followed, early, _at(-3), _at(61), _OVERLAP)
    assert late.settled
    assert newer(followed, late, _OVERLAP) == f"`updated_at` > '{_at(-3)}'"


def test_a_pass_that_was_cut_short_goes_on_behind_its_last_page() -> None:
    followed = _table("timestamp", 3)
    cursor = Cursor("2026-03-29 11:59:58.250", (b"7".hex(),), _at(0))
    progress = halfway(Progress(value=_at(-9), seen=_at(-9), settled=True), _at(-1.75), cursor)
    assert (progress.value, progress.settled) == (_at(-1.75), False)
    at = "'2026-03-29 11:59:58.250'"
    assert newer(followed, progress, _OVERLAP) == (
        f"`updated_at` >= {at} AND (`updated_at` > {at} OR (`id` > 7))"
    )


@pytest.mark.parametrize(
    ("kinds", "values", "condition"),
    [
        (
            ("int", "varchar"),
            (b"3", "é'".encode()),
            "(`k0` > 3 OR (`k0` = 3 AND (`k1` > _utf8mb4 x'c3a927')))",
        ),
        (
            ("binary", "date"),
            (b"\x00'", b"2024-02-29"),
            "(`k0` > x'0027' OR (`k0` = x'0027' AND (`k1` > '2024-02-29')))",
        ),
        (("varchar",), (b"",), "(`k0` > '')"),
    ],
)
def test_a_place_is_told_by_every_column_of_the_key(
    kinds: tuple[str, ...], values: tuple[bytes, ...], condition: str
) -> None:
    keys = tuple(Column(f"k{i}", kind, kind) for i, kind in enumerate(kinds))
    table = Table(
        "shop", "t", (*keys, Column("updated_at", "datetime", "datetime")), tuple(k.name for k in keys)
    )
    cursor = Cursor("2024-01-01 00:00:00", tuple(value.hex() for value in values), _at(0))
    progress = replace(Progress(), cursor=cursor)
    at = "'2024-01-01 00:00:00'"
    assert newer(choose(table, Traits()), progress, _OVERLAP) == (
        f"`updated_at` >= {at} AND (`updated_at` > {at} OR {condition})"
    )


def test_a_key_that_does_not_compare_by_value_is_no_place_to_go_on_from() -> None:
    columns = (Column("id", "enum", "enum('a','b')"), Column("updated_at", "datetime", "datetime"))
    followed = choose(Table("shop", "t", columns, ("id",)), Traits())
    assert not followed.comparable_key
    progress = Progress(cursor=Cursor("2024-01-01 00:00:00", (), _at(0)))
    assert newer(followed, progress, _OVERLAP) == "`updated_at` >= '2024-01-01 00:00:00'"
