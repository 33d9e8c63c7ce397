"""MySQL's partial updates of JSON documents, applied to the text that SELECT prints.

A diff is an operation, a path and, unless something is removed, a document in binary form (MySQL source
documentation, class Json_diff; sql-common/json_diff.h). The result is the very text that SELECT would
print: scalars keep their spelling, and keys stand in MySQL's order.
"""

from __future__ import annotations

import json
import re
from typing import Any

from cdc.errors import ValueDecodeError
from cdc.values.json_binary import json_text, quoted

_REPLACE, _INSERT, _REMOVE = range(3)
_LEG = re.compile(r"""\[(\d+)\]|\.("(?:[^"\\]|\\.)*")|\.([^.\[\]"]+)""")


class _Number(str):
    """A number as it is spelt: 1.0 and 1 differ, and so do 1e10 and 10000000000.0."""

    __slots__ = ()


_parse = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_Number).decode


def apply_diffs(document: str, diffs: bytes) -> str:
    """`document` after all `diffs`. Raises ValueDecodeError where they can't be read or don't fit it."""
    try:
        root = [_parse(document)]
        pos = 0
        while pos < len(diffs):
            operation = diffs[pos]
            path, pos = _sized(diffs, pos + 1)
            value = None
            if operation != _REMOVE:
                binary, pos = _sized(diffs, pos)
                value = _parse(json_text(binary))
            _apply(root, operation, [0, *_legs(path.decode())], value)
        return _text(root[0])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueDecodeError(
            "A partial update of a JSON document can't be applied.", hint="copy the table again"
        ) from error


def _sized(data: bytes, pos: int) -> tuple[bytes, int]:
    """The bytes behind a length-encoded length at `pos`, and where they end."""
    length = data[pos]
    pos += 1
    if length > 250:
        width = {252: 2, 253: 3, 254: 8}[length]
        length = int.from_bytes(data[pos : pos + width], "little")
        pos += width
    if pos + length > len(data):
        raise ValueError("length")
    return data[pos : pos + length], pos + length


def _legs(path: str) -> list[int | str]:
    """`$.a[3]."b c"` as "a", 3, "b c"."""
    legs: list[int | str] = []
    if path[:1] != "$":
        raise ValueError("path")
    pos = 1
    while pos < len(path):
        leg = _LEG.match(path, pos)
        if leg is None:
            raise ValueError("path")
        index, name, plain = leg.groups()
        legs.append(int(index) if index is not None else json.loads(name) if name is not None else plain)
        pos = leg.end()
    return legs


def _apply(root: list[Any], operation: int, legs: list[int | str], value: Any) -> None:
    """One diff. The document is the only element of `root`, so that all of it can be replaced."""
    place: Any = root
    for leg in legs[:-1]:
        place = _member(place, leg)
    last = legs[-1]
    if operation == _INSERT:
        if isinstance(place, list) and isinstance(last, int):
            place.insert(last, value)
        elif isinstance(place, dict) and isinstance(last, str) and last not in place:
            place[last] = value
        else:
            raise KeyError(last)
        return
    _member(place, last)
    if operation == _REPLACE:
        place[last] = value
    elif operation == _REMOVE and len(legs) > 1:
        del place[last]
    else:
        raise ValueError("operation")


def _member(place: Any, leg: int | str) -> Any:
    if isinstance(leg, int):
        if isinstance(place, list):
            return place[leg]
    elif isinstance(place, dict):
        return place[leg]
    raise KeyError(leg)


def _text(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        # MySQL keeps keys by their length in bytes, and those of one length by their bytes.
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return "{" + ", ".join(f"{quoted(key)}: {_text(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return {None: "null", True: "true", False: "false"}[value]
