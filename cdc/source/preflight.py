"""Whether the source can be replicated as it is set: every obstacle, with the statement that removes it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pymysql

from cdc.errors import PreflightError, SourceAccessError
from cdc.schema import Table, quote_mysql
from cdc.source.catalog import foreign_keys_with_cascade, system_versioned_tables
from cdc.source.grants import Grants, account, read_grants
from cdc.source.server import ServerFacts, binlog_end
from cdc.types import unsupported

Severity = Literal["error", "warning", "info"]

DAY = 86_400
"""Seconds for which the logs must be kept, so that a night's outage costs no copy."""
_SHOWN = 10
"""Names in one message at most."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One obstacle. `code` is stable; `subject` is a variable, a privilege or a table.

    An error stops everything, unless `table` is set: then it stops that table alone. `fix` is the statement
    that mends it (or the line for the server's option file), '' where there is none.
    """

    code: str
    severity: Severity
    subject: str
    message: str
    fix: str = ""
    table: str | None = None


def run_preflight(
    connection: pymysql.Connection, facts: ServerFacts, tables: Sequence[Table], database: str
) -> list[Finding]:
    """All findings, errors first. `tables` are those to replicate. Changes nothing. Raises SourceError."""
    findings = [
        *_log_findings(facts),
        *_privilege_findings(connection, facts, tables, database),
        *_table_findings(tables, database, system_versioned_tables(connection, database)),
        *_name_findings(tables),
    ]
    if not facts.cascades_logged:
        findings.extend(_cascade_findings(connection, facts, tables, database))
    order = ("error", "warning", "info")
    return sorted(findings, key=lambda finding: (order.index(finding.severity), finding.table is not None))


def require(findings: Iterable[Finding]) -> None:
    """Raises PreflightError for the first error that stops everything; errors of single tables don't."""
    for finding in findings:
        if finding.severity == "error" and finding.table is None:
            raise PreflightError(finding.message, hint=finding.fix, code=finding.code)


def table_errors(findings: Iterable[Finding]) -> dict[str, Finding]:
    """Table name to its first error, for the tables that can't be replicated."""
    errors: dict[str, Finding] = {}
    for finding in findings:
        if finding.severity == "error" and finding.table is not None:
            errors.setdefault(finding.table, finding)
    return errors


def _set_global(facts: ServerFacts, name: str, value: str) -> str:
    """MySQL 8 can keep a setting over a restart; elsewhere the option file must have it as well."""
    scope = "PERSIST" if facts.flavor == "mysql" and facts.version >= (8, 0, 0) else "GLOBAL"
    return f"SET {scope} {name} = {value}"


def _log_findings(facts: ServerFacts) -> Iterator[Finding]:
    if not facts.log_bin:
        yield Finding(
            "BINLOG_OFF",
            "error",
            "log_bin",
            "the server writes no binary log",
            "[mysqld] log_bin = binlog",
        )
    if facts.binlog_format != "ROW":
        yield Finding(
            "BINLOG_FORMAT",
            "error",
            "binlog_format",
            f"binlog_format is {facts.binlog_format}: the log holds statements instead of rows",
            _set_global(facts, "binlog_format", "'ROW'"),
        )
    if facts.row_image != "FULL":
        yield Finding(
            "ROW_IMAGE",
            "warning",
            "binlog_row_image",
            f"binlog_row_image is {facts.row_image}: rows in the log lack columns; they are completed from the"
            " copy, and a table for which that is impossible is copied again",
            _set_global(facts, "binlog_row_image", "'FULL'"),
        )
    yield from _metadata_findings(facts)
    if facts.replica and not facts.log_replica_updates:
        yield Finding(
            "REPLICA_UPDATES_OFF",
            "error",
            "log_replica_updates" if facts.flavor == "mysql" else "log_slave_updates",
            "the server is a replica and does not log what it receives",
            "[mysqld] log_replica_updates = ON"
            if facts.flavor == "mysql"
            else "[mysqld] log_slave_updates = ON",
        )
    if not facts.gtid_mode:
        yield Finding(
            "GTID_OFF",
            "warning",
            "gtid_mode",
            "gtid_mode is off: after a failover to another server everything must be copied again",
            "SET GLOBAL enforce_gtid_consistency = ON; SET GLOBAL gtid_mode = OFF_PERMISSIVE; "
            "SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = ON",
        )
    if 0 < facts.expire_seconds < DAY:
        old = facts.flavor == "mysql" and facts.version < (8, 0, 0)
        old = old or (facts.flavor == "mariadb" and facts.version < (10, 6, 1))
        name, value = ("expire_logs_days", "7") if old else ("binlog_expire_logs_seconds", str(7 * DAY))
        yield Finding(
            "BINLOG_EXPIRY",
            "warning",
            name,
            f"binary logs are purged after {facts.expire_seconds} s:"
            " an outage longer than that needs a full copy",
            _set_global(facts, name, value),
        )


def _metadata_findings(facts: ServerFacts) -> Iterator[Finding]:
    if facts.row_metadata == "FULL":
        return
    if facts.row_metadata:
        message = f"binlog_row_metadata is {facts.row_metadata}: the log holds no column names"
        fix = _set_global(facts, "binlog_row_metadata", "'FULL'")
    else:
        message = "the server has no binlog_row_metadata: it needs MySQL 8.0.1 or MariaDB 10.5"
        fix = ""
    yield Finding("ROW_METADATA", "error", "binlog_row_metadata", message, fix)


def _privilege_findings(
    connection: pymysql.Connection, facts: ServerFacts, tables: Sequence[Table], database: str
) -> Iterator[Finding]:
    grants = read_grants(connection, facts)
    who = account(connection)

    def missing(privilege: str, scope: str, message: str, table: str | None = None) -> Finding:
        fix = f"GRANT {privilege} ON {scope} TO {who}"
        return Finding("PRIVILEGE", "error", privilege, message, fix, table)

    if not grants.globally("REPLICATION SLAVE"):
        yield missing("REPLICATION SLAVE", "*.*", "the account may not read the binary log")
    if facts.log_bin:
        try:
            binlog_end(connection, facts)
        except SourceAccessError:
            name = "REPLICATION CLIENT" if facts.flavor == "mysql" else "BINLOG MONITOR"
            yield missing(name, "*.*", "the account may not ask where the binary log ends")
    schema = f"{_grant_pattern(grants, database)}.*"
    yield from _select_findings(connection, grants, tables, database, missing_scope=schema, who=who)
    if facts.flavor == "mysql" and not grants.on_schema("LOCK TABLES", database):
        yield _lock_finding(facts, tables, f"GRANT LOCK TABLES ON {schema} TO {who}")


def _lock_finding(facts: ServerFacts, tables: Sequence[Table], fix: str) -> Finding:
    """MySQL tells a snapshot's exact place under a lock only; a MariaDB snapshot knows its own."""
    keyless = next((table for table in tables if not table.primary_key), None)
    if keyless is None and facts.gtid_mode:
        message = "validations, and copies of tables that cascades change, need a short read lock"
        return Finding("PRIVILEGE", "warning", "LOCK TABLES", message, fix)
    why = f"table {keyless.name} has no primary key" if keyless else "the server has no GTIDs"
    message = f"a copy needs a short read lock, because {why}"
    return Finding("PRIVILEGE", "error", "LOCK TABLES", message, fix)


def _select_findings(
    connection: pymysql.Connection,
    grants: Grants,
    tables: Sequence[Table],
    database: str,
    *,
    missing_scope: str,
    who: str,
) -> Iterator[Finding]:
    if grants.on_schema("SELECT", database):
        return
    closed = [
        table
        for table in tables
        if not grants.on_table("SELECT", database, table.name) and not _readable(connection, table)
    ]
    if len(closed) == len(tables):
        fix = f"GRANT SELECT ON {missing_scope} TO {who}"
        yield Finding("PRIVILEGE", "error", "SELECT", f"the account may read no table of {database}", fix)
        return
    for table in closed:
        fix = f"GRANT SELECT ON {table.source_name} TO {who}"
        yield Finding(
            "PRIVILEGE", "error", "SELECT", f"the account may not read table {table.name}", fix, table.name
        )
    yield Finding(
        "SELECT_BY_TABLE",
        "info",
        "SELECT",
        f"the account may read single tables of {database}: new ones stay unseen until they are granted",
        f"GRANT SELECT ON {missing_scope} TO {who}",
    )


def _readable(connection: pymysql.Connection, table: Table) -> bool:
    """Really tried, for what SHOW GRANTS may not tell."""
    columns = ", ".join(quote_mysql(column.name) for column in table.columns)
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {columns} FROM {table.source_name} LIMIT 0")
    except pymysql.err.Error:
        return False
    return True


def _grant_pattern(grants: Grants, database: str) -> str:
    """The database for GRANT, where _ and % are wildcards unless escaped."""
    pattern = grants.pattern(database)
    if pattern is None:
        pattern = database if grants.literal else re.sub(r"([\\_%])", r"\\\1", database)
    return quote_mysql(pattern)


def _table_findings(tables: Sequence[Table], database: str, versioned: set[str]) -> Iterator[Finding]:
    if not tables:
        yield Finding("NO_TABLES", "warning", database, f"database {database} has no tables to replicate")
    for table in tables:
        subject = table.name
        new_key = "BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY"
        add_key = f"ALTER TABLE {table.source_name} ADD COLUMN id {new_key}"
        to_innodb = f"ALTER TABLE {table.source_name} ENGINE = InnoDB"
        if table.name in versioned:
            yield Finding(
                "SYSTEM_VERSIONED",
                "error",
                subject,
                f"table {subject} is system-versioned: its history rows would be taken for rows",
                f"ALTER TABLE {table.source_name} DROP SYSTEM VERSIONING",
                subject,
            )
        for column in table.columns:
            reason = unsupported(column)
            if reason:
                message = f"column {column.name} of table {subject}: {reason}"
                yield Finding("UNSUPPORTED_COLUMN", "error", subject, message, "", subject)
        if not table.transactional and not table.primary_key:
            yield Finding(
                "NOT_TRANSACTIONAL_NO_KEY",
                "error",
                subject,
                f"table {subject} has no primary key and engine {table.engine} takes no part in transactions",
                to_innodb,
                subject,
            )
        elif not table.transactional:
            message = (
                f"table {subject}: engine {table.engine} takes no part in transactions,"
                " so a copy of it may mix moments until the stream has caught up"
            )
            yield Finding("NOT_TRANSACTIONAL", "warning", subject, message, to_innodb, subject)
        elif not table.primary_key:
            message = f"table {subject} has no primary key: changes match whole rows, which is slower"
            yield Finding("NO_PRIMARY_KEY", "info", subject, message, add_key, subject)


def _name_findings(tables: Sequence[Table]) -> Iterator[Finding]:
    for names in _clashes(table.name for table in tables):
        for name in names:
            others = ", ".join(other for other in names if other != name)
            message = f"tables {name} and {others} differ by case only, which DuckDB ignores"
            yield Finding("NAME_CLASH", "error", name, message, "", name)
    for table in tables:
        for names in _clashes(column.name for column in table.columns):
            message = f"columns {' and '.join(names)} of table {table.name} differ by case only"
            yield Finding("NAME_CLASH", "error", table.name, message, "", table.name)


def _clashes(names: Iterable[str]) -> list[list[str]]:
    """Names that are one to DuckDB, which folds the letters A to Z alone."""
    groups: dict[bytes, list[str]] = defaultdict(list)
    for name in names:
        groups[name.encode().lower()].append(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _cascade_findings(
    connection: pymysql.Connection, facts: ServerFacts, tables: Sequence[Table], database: str
) -> Iterator[Finding]:
    ours = {table.name for table in tables}
    hit = sorted({key.table for key in foreign_keys_with_cascade(connection, database)} & ours)
    if not hit:
        return
    shown = ", ".join(hit[:_SHOWN]) + (f" and {len(hit) - _SHOWN} more" if len(hit) > _SHOWN else "")
    native = facts.flavor == "mysql" and facts.version >= (9, 6, 0)
    yield Finding(
        "CASCADE_NOT_LOGGED",
        "info",
        "innodb_native_foreign_keys" if native else hit[0],
        "rows that a cascading foreign key deletes or changes do not reach the binary log; "
        f"it is replayed in the copy of these tables: {shown}",
        "[mysqld] innodb_native_foreign_keys = OFF" if native else "",
    )
