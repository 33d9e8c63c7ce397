"""What a process has in memory."""

from __future__ import annotations

from pathlib import Path


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) << 10


def resident(pid: int) -> int:
    """Bytes that a process has in memory now (VmRSS, proc_pid_status(5))."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    """The most bytes that it had so far (VmHWM)."""
    return _status(pid, "VmHWM")
