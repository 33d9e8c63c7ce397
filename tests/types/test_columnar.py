"""Values are converted a column at a time: the work in Python does not grow with the number of rows."""

from __future__ import annotations

import gc
import random
import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pyarrow as pa

from cdc.sandbox.databases import Database
from cdc.sandbox.installation import Flavor
from cdc.types import arrow_type
from cdc.values.text import text_column
from tests.types.cases import create, groups, insert
from tests.types.cells import gather, place_in_log

FEW, MANY = 200, 500
VALUE_BY_VALUE = {
    Flavor.MYSQL: r"JSON|(?!ENUM).* CHARACTER SET (utf16|sjis)$",
    Flavor.MARIADB: r"(?!ENUM).* CHARACTER SET (utf16|sjis)$|.* COMPRESSED$",
}
"""Types whose values may be converted one by one: JSON, rare character sets, and what zlib has to inflate."""


def steps(work: Callable[..., object], *arguments: object) -> int:
    """The bytecode instructions that `work` runs in Python."""
    counted = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal counted
        frame.f_trace_opcodes = True
        counted += event == "opcode"
        return trace

    before = sys.gettrace()
    gc.disable()  # the callbacks of a collection are Python too
    sys.settrace(trace)
    try:
        work(*arguments)
    finally:
        sys.settrace(before)
        gc.enable()
    return counted


def test_only_json_and_rare_character_sets_go_value_by_value(database: Database) -> None:
    cases = [case for group in groups(database.flavor).values() for case in group]
    r = random.Random(99)
    since = place_in_log(database)
    writer = database.connect(sql_mode="")
    for i, case in enumerate(cases):
        database.execute(create(f"t{i}", [case], keyed=True))
        values = [case.value(r) for _ in range(MANY)]
        insert(writer, f"t{i}", [case], {number: [value] for number, value in enumerate(values)})
    seen = 0
    for found in gather(database, since):
        case = cases[int(found.table.name[1:])]
        column, cells = found.table.columns[1], found.copied[1]
        assert len(cells) == len(found.streamed) == MANY
        # the first time, also for what is cached: valid arrays of the very type, equal by both ways
        one, other = text_column(column, cells), found.streamed.to_arrow(found.table).column(1).chunk(0)
        one.validate(full=True)
        other.validate(full=True)
        assert one.type == other.type == arrow_type(column), case.kind
        assert one.equals(other), case.kind
        copied = steps(text_column, column, cells) - steps(
            text_column, column, pa.concat_arrays([cells[:FEW]])
        )
        streamed = steps(found.streamed.to_arrow, found.table)
        found.streamed.truncate(FEW)
        streamed -= steps(found.streamed.to_arrow, found.table)
        assert copied < MANY - FEW, (case.kind, "by copy", copied)
        by_value = re.match(VALUE_BY_VALUE[database.flavor], case.kind) is not None
        assert (streamed >= MANY - FEW) == by_value, (case.kind, "by stream", streamed)
        seen += 1
    assert seen == len(cases)
