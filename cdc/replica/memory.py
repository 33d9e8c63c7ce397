"""How much memory DuckDB may use: a fixed size, or one that follows the need, as far as half of the machine."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from cdc.config import AUTO, byte_size

FIRST_BYTES = 64_000_000
"""What `auto` begins with. DuckDB fills what it is given with blocks of the file, so more would only be taken."""
QUERY_BYTES = 192_000_000
"""What `auto` adds while clients ask."""


class MemoryLimit:
    """The limit of one open file, in bytes.

    What is written, and the indexes of keys, must fit in. With `auto` what is known to be needed until the next
    checkpoint is set aside (`cdc.replica.memory_demand`), and the rest, the base, is doubled when that was not
    enough, as long as all such files of this process together stay within half of the machine. Safe to use from
    any thread.
    """

    _growing: ClassVar[weakref.WeakSet[MemoryLimit]] = weakref.WeakSet()
    _lock: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, setting: str, *, machine_bytes: int | None = None) -> None:
        """`setting` is `auto` or a size as DuckDB writes it ("2GB")."""
        self.grows = setting == AUTO
        self.base = FIRST_BYTES if self.grows else byte_size(setting)
        """The limit without what is set aside."""
        self.bytes = self.base
        """The limit as it should be now."""
        self.given = 0
        """What DuckDB was told."""
        self._set_aside = 0
        half = (machine_bytes if machine_bytes is not None else available_bytes()) // 2
        self.recovery_bytes = max(self.bytes, half)
        """What may be taken for a moment when the file is opened, so that a write-ahead log can be replayed."""
        if self.grows:
            with self._lock:
                self._growing.add(self)

    @property
    def _ceiling(self) -> int:
        if not self.grows:
            return self.base
        with self._lock:
            others = sum(max(each.bytes, each.given) for each in self._growing if each is not self)
        return max(self.base, self.recovery_bytes - others)

    def __str__(self) -> str:
        return f"{self.bytes / 1e6:.0f} MB"

    @property
    def can_grow(self) -> bool:
        """Whether the ceiling is not reached yet."""
        return self.bytes < self._ceiling

    def with_more(self, more: int) -> int:
        """The limit with `more` bytes for the moment, as far as that may be."""
        return max(self.bytes, min(self._ceiling, self.bytes + more))

    def grow(self, least: int = 0) -> bool:
        """Doubles the base, or makes it `least` bytes, up to the ceiling. False where the limit can't grow."""
        with self._lock:
            before = self.bytes
            if before >= self._ceiling:
                return False
            self.base = min(self._ceiling, max(self.base, least or self.base * 2))
            self._sum_up()
            return self.bytes > before

    def set_aside(self, size: int) -> None:
        """So many bytes come on top of the base, where the limit is not a fixed one."""
        with self._lock:
            self._set_aside = size if self.grows else 0
            self._sum_up()

    def _sum_up(self) -> None:
        self.bytes = min(self._ceiling, self.base + self._set_aside)


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
