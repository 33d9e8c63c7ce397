"""Each short cut of the stream beside the plain way that it stands for: the same outcome, whatever comes.

Others stand with their subjects: the generated walk over rows (test_rows), the ends of integer keys (test_apply),
cells cut a column at a time (test_result_rows), the stream beside the copy (test_copy_equals_stream).
"""

from __future__ import annotations

import struct

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.replica import row_views
from cdc.replica.apply import apply_rows
from cdc.schema import Column, NameCase, Table
from cdc.source.events import is_begin, read_query
from cdc.source.rows import DELETE, INSERT, UPDATE
from cdc.source.targets import Target, Targets
from tests.unit.test_apply import KEYED, batch, content, make
from tests.unit.wire import Log

_PACKET = 5
_HEADER = 19
_STATEMENTS = st.sampled_from([b"BEGIN", b"begin", b"BEGIN ", b"BEGI", b"XBEGIN", b"COMMIT", b"", b"NBEGIN"])


@given(
    _STATEMENTS | st.binary(max_size=8), st.binary(max_size=12), st.binary(max_size=300), st.integers(0, 9)
)
def test_a_begin_is_known_by_its_bytes_where_the_whole_event_says_so(
    statement: bytes, schema: bytes, variables: bytes, before: int
) -> None:
    body = (
        struct.pack("<IIBHH", 1, 0, len(schema), 0, len(variables)) + variables + schema + b"\0" + statement
    )
    buffer = bytes(before) + body + b"what follows"
    plain = body[13 + len(variables) + len(schema) + 1 :] == b"BEGIN"
    assert is_begin(buffer, before, before + len(body)) == plain
    assert read_query(
        struct.pack("<IIBHH", 1, 0, len(schema), 0, 0) + schema + b"\0" + statement
    ).statement == (statement)


def _targets(tables: dict[str, Table]) -> Targets:
    return Targets(lambda: tables, schema="shop", names=NameCase(), collations={})


def _meaning(target: Target | None) -> tuple[object, ...] | None:
    if target is None:
        return None
    return target.key, target.table, target.table_map, target.present


_T, _U = (Table("shop", name, (Column("id", "int", "int"),), ("id",)) for name in "tu")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["t", "u", "other"]),
            st.sampled_from(["shop", "elsewhere"]),
            st.integers(70, 72),
            st.booleans(),
        ),
        max_size=20,
    )
)
def test_a_table_known_by_the_bytes_of_its_table_map_is_the_one_that_parsing_finds(
    maps: list[tuple[str, str, int, bool]],
) -> None:
    tables = {"t": _T, "u": _U}
    remembering, parsed = _targets(tables), dict[bytes, Target | None]()
    log = Log()
    for name, schema, number, changed in maps:
        if changed:  # a schema change: the table comes or goes
            tables.pop("u", None) if "u" in tables else tables.setdefault("u", _U)
            remembering.clear()
            parsed.clear()
        event = log.table_map(name, schema, number)[_PACKET:]
        remembering.add(event, _HEADER, len(event))
        afresh = _targets(tables)
        afresh.add(event, _HEADER, len(event))
        parsed |= afresh.by_id
        assert {each: _meaning(target) for each, target in remembering.by_id.items()} == {
            each: _meaning(target) for each, target in parsed.items()
        }


_ROWS = st.dictionaries(st.integers(1, 40), st.integers(0, 99), max_size=20)


@pytest.mark.parametrize("small", [0, 4096], ids=["the rows' own view", "a view that stays"])
@given(start=_ROWS, changed=_ROWS, dropped=st.sets(st.integers(1, 40), max_size=20))
def test_keys_that_are_new_are_inserted_as_if_they_could_exist(
    small: int, start: dict[int, int], changed: dict[int, int], dropped: set[int]
) -> None:
    model, ops = dict(start), []
    for key, value in changed.items():
        ops.append((UPDATE if key in model else INSERT, (key, value)))
        model[key] = value
    ops += [(DELETE, (key, model.pop(key))) for key in dropped & model.keys()]
    outcomes = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(row_views, "_SMALL", small)
        for replace in (False, True):
            with duckdb.connect() as cursor:
                name = make(cursor, KEYED, *start.items())
                cursor.execute("BEGIN")
                done = apply_rows(cursor, KEYED, name, *batch(KEYED, *ops), overlap=False, replace=replace)
                cursor.execute("COMMIT")
                outcomes.append((done, content(cursor, name)))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][1] == sorted(model.items())
