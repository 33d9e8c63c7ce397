"""Partial updates of JSON documents, on the text that SELECT prints."""

from __future__ import annotations

import pytest

from cdc.errors import ValueDecodeError
from cdc.values.json_diff import apply_diffs


def test_all_diffs_of_a_value_are_applied_in_their_order() -> None:
    """Bytes of MySQL 9.7: JSON_SET(j, '$.a', 7, '$.b[1]', 9)."""
    diffs = bytes.fromhex("0003242e61030507000006242e625b315d03050900")
    assert apply_diffs('{"a": 1, "b": [1, 2, 3], "c": "x"}', diffs) == '{"a": 7, "b": [1, 9, 3], "c": "x"}'


def test_a_removed_element_leaves_no_gap() -> None:
    """Bytes of MySQL 9.7: JSON_REMOVE(j, '$.b[0]')."""
    assert apply_diffs('{"b": [1, 9, 3]}', bytes.fromhex("0206242e625b305d")) == '{"b": [9, 3]}'


def test_a_new_key_stands_where_mysql_would_put_it() -> None:
    """Shorter keys first, then by their bytes."""
    insert_b = b"\1\3$.b\3\5\1\0"
    assert apply_diffs('{"a": 0, "c": 2, "aa": 3}', insert_b) == '{"a": 0, "b": 1, "c": 2, "aa": 3}'


def test_what_is_not_touched_keeps_its_spelling() -> None:
    document = '{"d": 1.50, "e": 1e300, "s": "\\u0001\\"é", "z": -0.0, "long": 12345678901234567890.5}'
    assert apply_diffs(document + "", b"\0\3$.s\3\5\1\0") == document.replace('"\\u0001\\"é"', "1")


@pytest.mark.parametrize(
    "diffs",
    [b"\0\3$.x\3\5\1\0", b"\2\4$[0]", b"\1\3$.a\3\5\1\0", b"\7\3$.a\3\5\1\0", b"\0\3$.a\x09\5", b"\2\1$"],
)
def test_a_diff_that_does_not_fit_the_document_is_an_error(diffs: bytes) -> None:
    with pytest.raises(ValueDecodeError):
        apply_diffs('{"a": 1}', diffs)
