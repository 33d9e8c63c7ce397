"""Which findings of preflight stand between us and the binary log alone: tables can be read without it."""

from __future__ import annotations

from collections.abc import Iterable

from cdc.source.preflight import Finding

_LOG_CODES = frozenset(
    {
        "BINLOG_OFF",
        "BINLOG_FORMAT",
        "ROW_IMAGE",
        "ROW_METADATA",
        "REPLICA_UPDATES_OFF",
        "NOT_TRANSACTIONAL_NO_KEY",
    }
)
_LOG_PRIVILEGES = frozenset({"REPLICATION SLAVE", "REPLICATION CLIENT", "BINLOG MONITOR"})


def concerns_log(finding: Finding) -> bool:
    """Whether a finding does not matter where the log is not followed."""
    if finding.code == "PRIVILEGE":
        return finding.subject in _LOG_PRIVILEGES | {"LOCK TABLES"}
    return finding.code in _LOG_CODES


def log_obstacle(findings: Iterable[Finding]) -> Finding | None:
    """The first finding for which there is no log to follow: it is off, holds statements, or is closed to us.

    What a SET at the source mends is none: that is to be mended.
    """
    for finding in findings:
        if finding.severity == "error" and (
            finding.code in {"BINLOG_OFF", "BINLOG_FORMAT"}
            or (finding.code == "PRIVILEGE" and finding.subject in _LOG_PRIVILEGES)
        ):
            return finding
    return None
