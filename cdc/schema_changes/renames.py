"""What tables that change their names mean for the names: worked out without touching anything.

Readers of a name see its last good rows until a table that streams takes it. A table that waits for its copy
(a ghost table that was altered, one from another schema) has no rows to show: the rows that stand under the
name stay there until its copy has joined, and the table they came from is copied under the name that it got.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cdc.replica.state import TableRecord
from cdc.status import TableState

RenamedKey = str | None
"""The key of a table's name; None for a name in another schema, behind which we follow nothing."""

Outcome = Literal["stays", "moves", "keeps", "carries", "waits"]
"""What readers find under a name.

`stays`: the table is back under its own name. `moves`: it streams, and brings its rows. `keeps`: it does not
stream, the rows that stood there stay. `carries`: it does not stream, and its own last rows come along.
`waits`: there are no rows before its copy.
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """One name behind the statement: `origin` is the key under which its table was known before, if any."""

    key: str
    origin: RenamedKey
    outcome: Outcome

    @property
    def rows_from(self) -> RenamedKey:
        """The name whose rows stand under this one now; None where there are none."""
        if self.outcome == "waits":
            return None
        return self.key if self.outcome == "keeps" else self.origin


@dataclass(frozen=True, slots=True)
class Renaming:
    """The names of one statement: all that it touches in our schema, and those that are in the copy behind it."""

    touched: tuple[str, ...]
    placed: tuple[Placed, ...]


def plan_renames(
    pairs: Sequence[tuple[RenamedKey, RenamedKey]],
    *,
    chosen: Container[str],
    live: Container[str],
    readable: Container[str],
    left: Container[str],
) -> Renaming:
    """The effect of all `pairs` of old and new name together, for they are carried out at once.

    `chosen` are the names that the settings choose; `live` those whose table streams, and `readable` those
    under which rows stand, both before the statement. `left` are names that readers knew and whose table left
    them by an earlier statement: what did not stream then shows itself under none of them.
    """
    places = _places(pairs)
    names = {key: origin for key, (there, origin) in places.items() if there and key in chosen}
    streaming = {origin for origin in names.values() if origin is not None and origin in live}
    kept: set[str] = set()
    while True:
        # A table whose rows stay behind does not stream any more, which may keep others where they are.
        kept = {
            key
            for key, origin in names.items()
            if key in readable and origin not in streaming and origin != key
        }
        if not streaming & kept:
            break
        streaming -= kept

    def outcome(key: str, origin: RenamedKey) -> Outcome:
        if origin == key and key in readable:
            return "stays"
        if origin in streaming:
            return "moves"
        if key in kept:
            return "keeps"
        rows = origin is not None and origin in readable and origin not in kept
        return "carries" if rows and key not in left else "waits"

    placed = tuple(Placed(key, origin, outcome(key, origin)) for key, origin in names.items())
    return Renaming(tuple(places), placed)


def _places(pairs: Sequence[tuple[RenamedKey, RenamedKey]]) -> dict[str, tuple[bool, RenamedKey]]:
    """By name, in the order of the tables' first mention: whether a table bears it in the end, and which one."""
    places: dict[str, tuple[bool, RenamedKey]] = {}
    for old, new in pairs:
        origin: RenamedKey = None
        if old is not None:
            _, origin = places.get(old, (True, old))
            places.pop(old, None)
            places[old] = (False, None)
        if new is not None:
            places.pop(new, None)
            places[new] = (True, origin)
    return places


def placed_record(placed: Placed, name: str, before: Mapping[str, TableRecord]) -> TableRecord:
    """What the bookkeeping knows of a name behind a rename; `before` has what it knew of all that it touches."""
    if placed.outcome == "waits":
        return TableRecord(placed.key, TableState.PENDING, None, None, None)
    assert placed.rows_from is not None
    record = before[placed.rows_from]
    assert record.definition is not None
    definition = replace(record.definition, name=name)
    if placed.outcome == "keeps":
        told = "a table that does not stream was given this name: its rows are those of the table before"
        return replace(record, state=TableState.NEEDS_RESYNC, reason=told, hint=None)
    if placed.outcome == "carries":
        return replace(record, name=name, state=TableState.NEEDS_RESYNC, definition=definition)
    return record if placed.outcome == "stays" else replace(record, name=name, definition=definition)
