"""Transactions taken many at a time, beside the same ones taken event by event: the same outcome, whatever comes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.position import Flavor
from cdc.schema import Column, Table
from cdc.source import event_run
from cdc.source.binlog import Stretch
from cdc.source.cascades import Cascades, CascadingKey
from cdc.source.event_run import EventRun
from cdc.source.ordinary import OrdinaryTransactions
from cdc.source.rows import DELETE, INSERT, UPDATE
from tests.unit.checked_log import CheckedLog, joined, read


def ways(events: list[bytes], cuts: list[int]) -> tuple[list[Stretch], list[Stretch]]:
    """The events one by one, and in stretches that end at `cuts`."""
    bounds = [0, *sorted(cut % len(events) for cut in cuts), len(events)]
    many = [joined(events[start:stop]) for start, stop in pairwise(bounds) if start < stop]
    return [joined([event]) for event in events], many


Statement = tuple[str, int, list[int], int]
"""A table, what happens to its rows, their ids, and the number that its TABLE_MAP gives it."""
_IDS = st.lists(st.integers(1, 9), min_size=1, max_size=3)
_STATEMENT = st.tuples(
    st.sampled_from(["t", "u", "other"]), st.sampled_from([INSERT, UPDATE, DELETE]), _IDS, st.integers(70, 72)
)
_USUAL = st.tuples(st.just("rows"), st.lists(_STATEMENT, min_size=1, max_size=3))
_UNUSUAL = st.sampled_from(
    [
        "schema change", "savepoint", "rollback", "commit as a statement", "some columns", "another source", "a gap",
        "no GTID", "elsewhere", "a table that is created and filled", "a rows query", "an empty event",
    ]
)  # fmt: skip
_DAMAGE = st.sampled_from(
    ["none", "none", "checksum", "image", "no table map", "size", "kind", "names", "short", "no text"]
)


def write(log: CheckedLog, action: str, statements: list[Statement]) -> None:
    """One transaction."""
    mysql = log.flavor == "mysql"
    if action == "schema change":
        log.begin(statement="ALTER TABLE t ADD COLUMN more INT", alone=True)
        return
    if action == "a table that is created and filled":
        create = "CREATE TABLE copied (id INT)"
        log.begin(statement=f"{create} START TRANSACTION" if mysql else create, alone=True)
        if not mysql:
            log.begin()
    else:
        log.begin(
            source=2 if action == "another source" else 1,
            gap=3 if action == "a gap" else 0,
            anonymous=action == "no GTID",
        )
    if action == "savepoint":
        log.rows("t", INSERT, [1])
        log.query("SAVEPOINT s")
        log.rows("u", INSERT, [2])
        log.query("ROLLBACK TO s")
    for table, operation, ids, number in statements:
        if action == "a rows query":
            log.add(29 if mysql else 160, b"a comment")
        log.rows(
            table, operation, ids, schema="elsewhere" if action == "elsewhere" else "shop", number=number
        )
    if action == "some columns":
        log.table_map("t")
        log.rows_event(UPDATE, b"\xfe\xff" + b"\xfe" + struct.pack("<i", 7))
    elif action == "an empty event":
        log.rows_event(INSERT, b"\xff", number=0xFFFFFF)
    if action == "rollback":
        log.query("ROLLBACK")
    elif action == "commit as a statement":
        log.query("COMMIT")
    else:
        log.xid()


def damage(events: list[bytes], how: str, where: int) -> None:
    """Breaks one event, with a checksum that fits where it is not the checksum that is broken."""
    kinds = {
        "image": (23, 24, 25, 30, 31, 32),
        "no table map": (19,),
        "kind": (19,),
        "names": (19,),
        "no text": (19,),
    }.get(how)
    chosen = [i for i, event in enumerate(events) if kinds is None or event[4] in kinds]
    if how == "none" or not chosen:
        return
    at = chosen[where % len(chosen)]
    event = events[at]
    if how == "checksum":
        events[at] = event[:-1] + bytes([event[-1] ^ 1])
        return
    if how == "no table map":
        event = event[:19] + b"\x63" + event[20:]
    elif how == "image":
        event = event[:9] + struct.pack("<I", len(event) - 1) + event[13:-5] + bytes(4)
    elif how == "short":
        events[at] = event[:12]
        return
    elif how == "no text":  # a schema's name that is no UTF-8
        event = event[:28] + b"\xff" + event[29:]
    elif how == "size":
        event = event[:9] + struct.pack("<I", len(event) + 1) + event[13:]
    elif how == "kind":
        event = event[:4] + b"\xf0" + event[5:]
    else:  # a TABLE_MAP without the names of columns
        event = event[:9] + struct.pack("<I", len(event) - 5) + event[13:-9] + bytes(4)
    events[at] = event[:-4] + struct.pack("<I", crc32(event[:-4]))


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
@given(
    usual=st.lists(_USUAL, min_size=8, max_size=30),
    unusual=st.lists(st.tuples(st.integers(0, 40), _UNUSUAL, st.lists(_STATEMENT, max_size=2)), max_size=3),
    broken=_DAMAGE,
    where=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 200), max_size=2),
    max_rows=st.sampled_from([1, 7, 50, 1000]),
    cascading=st.booleans(),
    meetings=st.lists(st.integers(0, 6000), max_size=2),
    offset=st.sampled_from([4, (1 << 32) - 3000]),
)
@settings(deadline=None)
def test_many_at_a_time_are_read_as_one_by_one(
    flavor: Flavor,
    usual: list[tuple[str, list[Statement]]],
    unusual: list[tuple[int, str, list[Statement]]],
    broken: str,
    where: int,
    cuts: list[int],
    max_rows: int,
    cascading: bool,
    meetings: list[int],
    offset: int,
) -> None:
    actions = list(usual)
    for at, action, statements in unusual:
        # Full images behind such an event are buffered with it, unless a batch ends between them.
        if action != "some columns" or max_rows == 1000:
            actions.insert(at % (len(actions) + 1), (action, statements))
    log = CheckedLog(flavor, offset)
    for action, statements in actions:
        write(log, action, statements)
    damage(log.events, broken, where)
    keys = [CascadingKey("k", "u", ("id",), "t", ("id",), "CASCADE", "CASCADE")] if cascading else []
    one_by_one, many = ways(log.events, cuts)
    plain, fast = (
        read(flavor, way, offset=offset, max_rows=max_rows, cascades=Cascades(keys), meetings=tuple(meetings))
        for way in (one_by_one, many)
    )
    if max_rows < 1000:  # a full batch is handed on behind its transaction, not in the middle of it
        if "ROLLED_BACK_PART" in plain.error + fast.error:
            return
        assert plain.error or plain.rows() == fast.rows()
        plain.batches = fast.batches = []
    assert fast == plain


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
def test_ordinary_transactions_do_go_the_short_way(flavor: Flavor, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    plainly = OrdinaryTransactions.take

    def take(self: OrdinaryTransactions, run: EventRun) -> int:
        taken.append(plainly(self, run))
        return taken[-1]

    monkeypatch.setattr(OrdinaryTransactions, "take", take)
    log = CheckedLog(flavor)
    for i in range(100):
        write(log, "a rows query" if i % 2 else "rows", [("t", INSERT, [i], 70), ("u", UPDATE, [i, i], 71)])
        if i == 50:
            write(log, "schema change", [])
    outcome = read(flavor, [joined(log.events)])
    assert len(taken) == 2
    assert sum(taken) == len(log.events) - 2
    assert outcome.counts[:3] == (len(log.events), 101, 100)


def test_a_batch_has_no_more_tables_than_one_by_one() -> None:
    """Each keeps memory of DuckDB's until it is committed."""
    log = CheckedLog("mysql")
    names = [f"t{n}" for n in range(40)]
    for name in names * 3:
        log.begin()
        log.rows(name, INSERT, [1])
        log.xid()
    tables = {name: Table("shop", name, (Column("id", "int", "int"),), ("id",)) for name in names}
    one_by_one, many = (read("mysql", way, tables=tables) for way in ways(log.events, []))
    assert many == one_by_one
    assert [len(contents) for *_, contents in many.batches if isinstance(contents, list)] == [32, 32, 32, 24]


@pytest.mark.parametrize(("tables", "max_rows"), [(40, 1000), (1, 1), (1, 20)])
def test_however_often_a_batch_is_full_each_event_is_looked_at_a_few_times_only(
    tables: int, max_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = 0
    plainly = EventRun.rows

    def rows(self: EventRun) -> Iterator[tuple[int, int, int, int]]:
        nonlocal looked
        for each in plainly(self):
            looked += 1
            yield each

    checked: list[int] = []
    monkeypatch.setattr(EventRun, "rows", rows)

    def checksum(data: bytes) -> int:
        checked.append(1)
        return crc32(data)

    monkeypatch.setattr(event_run, "crc32", checksum)
    log = CheckedLog("mysql")
    names = [f"t{n}" for n in range(tables)]
    for name in (names * 400)[:400]:
        log.begin()
        log.rows(name, INSERT, [1])
        log.xid()
    known = {name: Table("shop", name, (Column("id", "int", "int"),), ("id",)) for name in names}
    outcome = read("mysql", [joined(log.events)], tables=known, max_rows=max_rows)
    assert outcome.counts[:3] == (2000, 400, 400)
    assert len(checked) <= 2000
    assert looked <= 3 * 800
