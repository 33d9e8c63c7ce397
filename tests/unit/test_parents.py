"""Changes of rows that others refer to: the reader keeps what replaying the cascades needs."""

from __future__ import annotations

import struct

import pytest

from cdc.position import Flavor
from cdc.source.cascades import Cascades, CascadingKey
from cdc.source.rows import DELETE, UPDATE
from tests.unit.checked_log import CheckedLog, joined, read

_NO_FOREIGN_KEY_CHECKS = 2
CASCADES = Cascades([CascadingKey("k", "u", ("id",), "t", ("id",), "CASCADE", "CASCADE")])


@pytest.mark.parametrize("flavor", ["mysql", "mariadb"])
@pytest.mark.parametrize(
    "others", [[], ["an image that lacks columns"]], ids=["alone", "among images that lack columns"]
)
def test_an_update_that_moves_a_parents_key_is_kept_for_its_children(
    flavor: Flavor, others: list[str]
) -> None:
    log = CheckedLog(flavor)
    log.begin()
    if others:
        log.table_map("t")
        image = b"\xfe" + struct.pack("<i", 1)
        log.rows_event(UPDATE, b"\xfe\xff" + image, flags=1 | _NO_FOREIGN_KEY_CHECKS)
    log.rows("t", UPDATE, [7])
    log.xid()
    [(*_, contents)] = read(flavor, [joined(log.events)], cascades=CASCADES).batches
    assert isinstance(contents, list)
    parents = [each for name, rows in contents if not name for each in rows]
    assert parents == [("t", (UPDATE, 6), (UPDATE, 7))]


def test_an_update_that_leaves_the_key_alone_has_nothing_to_replay() -> None:
    log = CheckedLog("mysql")
    log.begin()
    log.rows("t", UPDATE, [8])
    log.xid()
    [(*_, contents)] = read("mysql", [joined(log.events)], cascades=CASCADES).batches
    assert contents == [("t", [(UPDATE, 8)])]


@pytest.mark.parametrize("before", [False, True])
def test_an_event_without_rows_has_nothing_to_replay_either(before: bool) -> None:
    log = CheckedLog("mysql")
    log.begin()
    if before:
        log.rows("t", DELETE, [5])
    else:
        log.table_map("t")
    log.rows_event(DELETE, b"\xff")
    log.xid()
    outcome = read("mysql", [joined(log.events)], cascades=CASCADES)
    assert outcome.error == ""
    contents = outcome.batches[0][-1] if before else []
    assert isinstance(contents, list)
    assert [rows for name, rows in contents if not name] == ([[("t", (DELETE, 5), None)]] if before else [])
