"""Peak memory of a process."""

from __future__ import annotations

from pathlib import Path


def peak_megabytes(pid: int | str = "self") -> float:
    """The most resident memory that a process has had, in MB (proc(5), VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ProcessLookupError(f"process {pid} has no VmHWM: it has ended")
