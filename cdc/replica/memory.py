"""How much memory DuckDB may use: a fixed size, or one that follows the need, as far as half of the machine."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from cdc.config import AUTO, byte_size

FIRST_BYTES = 72_000_000
"""What `auto` begins with. DuckDB fills what it is given with blocks of the file, so more would only be taken."""
QUERY_BYTES = 184_000_000
"""What `auto` adds while clients ask."""
REPLAY_BYTES = 184_000_000
"""What `auto` sets aside, until the first checkpoint, for what a replayed write-ahead log leaves in memory."""
BYTES_A_ROW = 16
"""What a row of a table keeps in memory until a checkpoint, once rows all over the table were deleted or replaced:
8 bytes of the key's index, where that is a rising integer, and 8 that say who deleted the row, which DuckDB 2.0 keeps
for all 2,048 rows of a vector from which one was deleted."""
BYTES_A_TABLE = 2_000_000
"""What each table of a transaction keeps in memory until its commit."""
MANY_ROWS = 1_000
"""Fewer rows that are deleted or replaced at once are worth no memory set aside for them."""


class MemoryLimit:
    """The limit of one open file, in bytes.

    What is written, and the indexes of keys, must fit in. With `auto` what is known to be needed until the next
    checkpoint is set aside, and the rest is doubled when that was not enough, as long as all such files of this
    process together stay within half of the machine. An index takes 8 bytes for each row where the key is a rising
    integer, and up to 50 for keys that are scattered.
    """

    _growing: ClassVar[weakref.WeakSet[MemoryLimit]] = weakref.WeakSet()

    def __init__(self, setting: str, *, machine_bytes: int | None = None) -> None:
        """`setting` is `auto` or a size as DuckDB writes it ("2GB")."""
        self.grows = setting == AUTO
        self.base = FIRST_BYTES if self.grows else byte_size(setting)
        """The limit without what is set aside."""
        self.bytes = self.base
        """The limit as it is now."""
        self._reserved: dict[str, int] = {}
        half = (machine_bytes if machine_bytes is not None else available_bytes()) // 2
        self.recovery_bytes = max(self.bytes, half)
        """What may be taken for a moment when the file is opened, so that a write-ahead log can be replayed."""
        if self.grows:
            self._growing.add(self)

    @property
    def _ceiling(self) -> int:
        if not self.grows:
            return self.base
        others = sum(each.bytes for each in list(self._growing) if each is not self)
        return max(self.base, self.recovery_bytes - others)

    def __str__(self) -> str:
        return f"{self.bytes / 1e6:.0f} MB"

    @property
    def can_grow(self) -> bool:
        """Whether the ceiling is not reached yet."""
        return self.bytes < self._ceiling

    @property
    def for_queries(self) -> int:
        """The limit while clients ask."""
        return self.bytes if not self.grows else min(self._ceiling, self.bytes + QUERY_BYTES)

    @property
    def reserved(self) -> int:
        """Bytes that are set aside until the next checkpoint."""
        return sum(self._reserved.values())

    def grow(self, least: int = 0) -> bool:
        """Doubles the base, or makes it `least` bytes, up to the ceiling. False where the limit can't grow."""
        before = self.bytes
        self.base = min(self._ceiling, max(self.base, least or self.base * 2))
        self._sum_up()
        return self.bytes > before

    def reserve(self, purpose: str, size: int) -> None:
        """Sets `size` bytes aside for `purpose` until `release`, where the limit is not a fixed one."""
        if self.grows and size > self._reserved.get(purpose, 0):
            self._reserved[purpose] = size
            self._sum_up()

    def release(self) -> None:
        """What was set aside was written by a checkpoint."""
        self._reserved.clear()
        self._sum_up()

    def _sum_up(self) -> None:
        self.bytes = min(self._ceiling, self.base + self.reserved)


def available_bytes(root: Path = Path("/")) -> int:
    """The machine's memory, or what the control groups of this process leave of it: a container's, a service's."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _limit_files(root):
        try:
            text = file.read_text().strip()
        except OSError:
            continue  # the root group has none, and in a container the groups above are not to be seen
        if text.isdigit():  # else it is "max"
            limits.append(int(text))
    return min(limits)


def _limit_files(root: Path) -> Iterator[Path]:
    """Where the limits of this process's memory stand, of its own group and of those above.

    https://docs.kernel.org/admin-guide/cgroup-v2.html; https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # not Linux
    mounted = root / "sys/fs/cgroup"
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.strip("/")
        yield from (folder / name for folder in (group, *group.parents) if folder.is_relative_to(top))
