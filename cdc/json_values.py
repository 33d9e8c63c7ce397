"""DuckDB's values as JSON can hold them, exactly."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_EXACT_IN_JSON = 2**53
"""Beyond it a reader that keeps numbers as doubles loses digits (RFC 8259, section 6)."""
ZONED = "TIMESTAMP WITH TIME ZONE"
_PLAIN_TIMESTAMPS = frozenset({"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"})


def as_json_rows(columns: Sequence[tuple[str, str]], rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Rows as objects that JSON can hold; `columns` are names, each one once, and DuckDB's types."""
    names = [name for name, _ in columns]
    converters = [_converter(type_name) for _, type_name in columns]
    return [
        {
            name: None if value is None else convert(value)
            for name, convert, value in zip(names, converters, row, strict=True)
        }
        for row in rows
    ]


def _converter(type_name: str) -> Callable[[Any], Any]:
    if type_name == ZONED:
        return lambda text: _iso(text, "Z")
    if type_name in _PLAIN_TIMESTAMPS:
        return _iso
    if type_name == "INTERVAL":
        return iso_duration
    return json_value


def json_value(value: Any) -> Any:
    """`value` as JSON can hold it exactly: big integers, decimals and non-finite numbers as text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -_EXACT_IN_JSON <= value <= _EXACT_IN_JSON else str(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(json_value(key)): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return str(value)


def _iso(text: str, suffix: str = "") -> str:
    """DuckDB's `2020-01-02 03:04:05` as ISO 8601; `infinity` stays."""
    return text.replace(" ", "T", 1) + suffix if text[-1:].isdigit() else text


_INTERVAL_PART = re.compile(r"(-?\d+) (year|month|day)s?|(-?)(\d+):(\d\d):(\d\d(?:\.\d+)?)")


def iso_duration(text: str) -> str:
    """DuckDB's text of an interval (`1 month -3 days 25:00:00.5`) as ISO 8601 (`P1M-3DT25H0.5S`)."""
    date, clock = "", ""
    for part in _INTERVAL_PART.finditer(text):
        count, unit, sign, hours, minutes, seconds = part.groups()
        if unit:
            date += f"{count}{unit[0].upper()}"
            continue
        seconds = seconds.lstrip("0") if seconds.strip("0.") else ""
        if seconds.startswith("."):
            seconds = f"0{seconds}"
        if int(hours):
            clock += f"{sign}{int(hours)}H"
        if int(minutes):
            clock += f"{sign}{int(minutes)}M"
        if seconds:
            clock += f"{sign}{seconds}S"
    if clock:
        return f"P{date}T{clock}"
    return f"P{date}" if date else "PT0S"
