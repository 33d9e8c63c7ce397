"""What a scrape of the metrics reads of one database: how things stand, and the sizes of its files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from cdc.status import PipelineStatus, PositionStatus


@dataclass(frozen=True, slots=True)
class Observed:
    """One database at one scrape. None, of any value, is that it is not known."""

    status: PipelineStatus
    replica_file: Path

    @property
    def last_event(self) -> float | None:
        """When the source was heard last, in seconds since 1970."""
        return self.status.last_event_at.timestamp() if self.status.last_event_at else None

    @property
    def source_file_number(self) -> float | None:
        """The number of the binary log file that the source writes."""
        return _file_number(self.status.source)

    @property
    def replica_file_number(self) -> float | None:
        """The number of the binary log file that the copy has reached."""
        return _file_number(self.status.current)

    @property
    def replica_bytes(self) -> float:
        """Size of the DuckDB file; 0 where there is none."""
        return _size(self.replica_file)

    @property
    def wal_bytes(self) -> float:
        """Size of its write-ahead log; 0 where there is none."""
        return _size(self.replica_file.with_name(self.replica_file.name + ".wal"))

    @property
    def free_bytes(self) -> float | None:
        """What the file system that holds the DuckDB file has left."""
        try:
            return float(shutil.disk_usage(self.replica_file.parent).free)
        except OSError:
            return None


def _file_number(position: PositionStatus) -> float | None:
    """The number in `binlog.000042`; it grows at every rotation."""
    number = (position.filename or "").rpartition(".")[2]
    return float(number) if number.isdecimal() else None


def _size(path: Path) -> float:
    try:
        return float(path.stat().st_size)
    except FileNotFoundError:
        return 0.0
