"""How much memory DuckDB may use: a fixed size, or one that grows as far as half of the machine."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from cdc.config import AUTO, byte_size

FIRST_BYTES = 256_000_000
"""What `auto` begins with: enough for most databases, and little beside what else a machine does."""


class MemoryLimit:
    """The limit of one open file, in bytes.

    What is written, and the indexes of keys, must fit in; with `auto` it is doubled when they don't, as long as all
    such files of this process together stay within half of the machine. An index takes 8 bytes for each row where
    the key is a rising integer, and up to 50 for keys that are scattered.
    """

    _growing: ClassVar[weakref.WeakSet[MemoryLimit]] = weakref.WeakSet()

    def __init__(self, setting: str, *, machine_bytes: int | None = None) -> None:
        """`setting` is `auto` or a size as DuckDB writes it ("2GB")."""
        grows = setting == AUTO
        self.bytes = FIRST_BYTES if grows else byte_size(setting)
        half = (machine_bytes if machine_bytes is not None else available_bytes()) // 2
        self.recovery_bytes = max(self.bytes, half)
        """What may be taken for a moment when the file is opened, so that a write-ahead log can be replayed."""
        if grows:
            self._growing.add(self)

    @property
    def _ceiling(self) -> int:
        if self not in self._growing:
            return self.bytes
        others = sum(each.bytes for each in list(self._growing) if each is not self)
        return max(self.bytes, self.recovery_bytes - others)

    def __str__(self) -> str:
        return f"{self.bytes / 1e6:.0f} MB"

    @property
    def can_grow(self) -> bool:
        """Whether the ceiling is not reached yet."""
        return self.bytes < self._ceiling

    def grow(self, least: int = 0) -> bool:
        """Doubles it, or makes it `least` bytes, up to the ceiling. False where it can't grow."""
        before = self.bytes
        self.bytes = min(self._ceiling, max(before, least or before * 2))
        return self.bytes > before


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
