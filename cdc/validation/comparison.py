"""The contents of one table compared: checksums of spans, of buckets where those differ, then digests.

A row counts as different only after it was fetched from the source, converted as a copy converts it, and its
digest computed by DuckDB: what the source's server can't compute exactly costs time but raises no alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from cdc.schema import Table
from cdc.status import TableProgress
from cdc.validation.as_copied import AsCopied
from cdc.validation.canonical import Canonical
from cdc.validation.sides import CopySide, SourceSide, Total
from cdc.validation.spans import EVERYTHING, PART_ROWS, SPAN_ROWS

MOST_SUSPECTS = 50_000
"""Rows of one span that are looked at one by one; a span with more is told to differ in at least these."""
MOST_DIFFERENCES = 20_000
"""Differences of one table after which the search ends: it needs a copy, not a list."""
_BUCKET_ROWS = 1_000
_MOST_BUCKETS = 1 << 16
_LISTED = 20_000
"""Rows whose digests are listed by one statement."""
_FETCHED = 10_000
"""Digests by which one statement fetches rows: less than a megabyte of SQL."""

Key = tuple[Any, ...]
Split = Callable[[Canonical, int, int], list[Canonical]]
"""`split(span, rows, size)`: parts of about `size` rows."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row: `missing` in the copy, `extra` there, or `changed`; its key, () in a table without one."""

    kind: Literal["missing", "extra", "changed"]
    key: Key


@dataclass(slots=True)
class Contents:
    """What a comparison found; `complete` tells whether all differences are listed."""

    source_rows: int = 0
    copy_rows: int = 0
    differences: list[Difference] = field(default_factory=list)
    complete: bool = True

    @property
    def equal(self) -> bool:
        """Whether both sides hold the same rows, each as often."""
        return not self.differences and self.complete


@dataclass(slots=True)
class _Suspects:
    """Digests that one side has more often: by how much at the source, and the keys of those in the copy."""

    there: Counter[str] = field(default_factory=Counter)
    here: dict[str, list[Key]] = field(default_factory=dict)
    both: Counter[str] = field(default_factory=Counter)
    """Of the digests in `there`, how often the copy has them too."""

    @property
    def count(self) -> int:
        """How many rows of one side are listed, of the side with more of them."""
        return max(self.there.total(), len(self.here))

    def add(self, theirs: Counter[str], ours: list[tuple[str, Key]]) -> None:
        """Takes a group of buckets, less the rows that both sides have."""
        both: Counter[str] = Counter()
        for digest, key in ours:
            if both[digest] < theirs[digest]:
                both[digest] += 1
            else:
                self.here.setdefault(digest, []).append(key)
        for digest, rows in theirs.items():
            if rows > both[digest]:
                self.there[digest] = rows - both[digest]
                self.both[digest] = both[digest]

    def missing(self, digest: str) -> bool:
        """Takes a row that was fetched, by what its digest is in the copy; False where the copy has it."""
        if self.both[digest] > 0:
            self.both[digest] -= 1
            return False
        if self.here.get(digest):
            self.here[digest].pop()
            return False
        return True

    def extra(self) -> list[Key]:
        """The keys of the rows that only the copy has, once all suspects of the source were taken."""
        return [key for keys in self.here.values() for key in keys]


def compare_contents(
    table: Table,
    source: SourceSide,
    copy: CopySide,
    split: Split,
    progress: TableProgress,
    check: Callable[[], None],
) -> Contents:
    """Every row of both sides, span by span, and parts of the spans that differ.

    `split` takes a span apart (`cdc.validation.spans`); `check` is called between statements and may raise.
    Raises SourceError, ReplicaError.
    """
    found = Contents()
    with ThreadPoolExecutor(1, thread_name_prefix="validation-copy") as pool, AsCopied(table) as copied:

        def totals(span: Canonical) -> tuple[Total, Total]:
            check()
            ours = pool.submit(copy.total, span)
            theirs = source.total(span)
            return theirs, ours.result()

        for span in split(EVERYTHING, progress.estimated_rows, SPAN_ROWS):
            theirs, ours = totals(span)
            found.source_rows += theirs.rows
            found.copy_rows += ours.rows
            progress.rows = found.source_rows
            if theirs == ours:
                continue
            if len(found.differences) >= MOST_DIFFERENCES:
                found.complete = False
                continue
            parts = split(span, max(theirs.rows, ours.rows), PART_ROWS)
            for part in parts:
                if len(parts) > 1:
                    theirs, ours = totals(part)
                if theirs != ours:
                    _look_into(part, max(theirs.rows, ours.rows), source, copy, copied, found, check)
    return found


def _look_into(
    span: Canonical,
    rows: int,
    source: SourceSide,
    copy: CopySide,
    copied: AsCopied,
    found: Contents,
    check: Callable[[], None],
) -> None:
    """Adds the rows in which `span` differs to `found`."""
    buckets = min(max(1, rows // _BUCKET_ROWS), _MOST_BUCKETS)
    theirs, ours = source.buckets(span, buckets), copy.buckets(span, buckets)
    suspects = _Suspects()
    for group in _groups(theirs, ours):
        check()
        if suspects.count >= MOST_SUSPECTS:
            found.complete = False
            break
        suspects.add(source.digests(span, buckets, group), copy.digests(span, buckets, group))
    missing: list[Key] = []
    digests = sorted(suspects.there)
    for start in range(0, len(digests), _FETCHED):
        for rows_there in source.rows(span, digests[start : start + _FETCHED]):
            missing += [key for digest, key in copied.digests(rows_there) if suspects.missing(digest)]
        check()
    found.differences += _differences(missing, suspects.extra())


def _groups(theirs: dict[int, Total], ours: dict[int, Total]) -> Iterator[list[int]]:
    """The buckets that differ, together as many as one statement lists."""
    group: list[int] = []
    rows = 0
    for number in sorted(theirs.keys() | ours.keys()):
        there, here = theirs.get(number, Total()), ours.get(number, Total())
        if there == here:
            continue
        if group and rows + max(there.rows, here.rows) > _LISTED:
            yield group
            group, rows = [], 0
        group.append(number)
        rows += max(there.rows, here.rows)
    if group:
        yield group


def _differences(missing: list[Key], extra: list[Key]) -> list[Difference]:
    """A key that is missing with one content and extra with another has changed."""
    changed = {key for key in missing if key} & set(extra)
    found = [Difference("changed" if key in changed else "missing", key) for key in missing]
    found += [Difference("extra", key) for key in extra if key not in changed]
    return sorted(found, key=lambda each: each.key)
