"""What the source's server is and how it is set, and where its binary log ends."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

import pymysql

from cdc.errors import PreflightError
from cdc.source.translation import translate

Flavor = Literal["mysql", "mariadb"]
Version = tuple[int, int, int]

ACCESS_DENIED = 1227


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Global settings of the server at one moment. Words are in upper case, '' where the server lacks one.

    `server_uuid` identifies the server. MySQL keeps one in its data folder. MariaDB keeps none: it is then
    `server_id` with `server_uid` (a hash of network card and port; https://mariadb.com/docs/server, since
    10.5.26), or with a hash of host name, port and data folder before that. It survives a restart, not a
    move to another machine: good enough to refuse a file position, too strict to judge a GTID position.
    `gtid_mode` is always True on MariaDB. `expire_seconds` is 0 where logs are never purged by age.
    `replica` says whether the server applies another server's changes; without the privilege to see that,
    False. `cascades_logged` says whether rows that a foreign key changes reach the log (MySQL 9.6 on).
    """

    flavor: Flavor
    version: Version
    server_id: int
    server_uuid: str
    log_bin: bool
    binlog_format: str
    row_image: str
    row_metadata: str
    gtid_mode: bool
    expire_seconds: int
    lower_case_table_names: int
    replica: bool
    log_replica_updates: bool
    cascades_logged: bool
    partial_revokes: bool


def flavor_and_version(text: str) -> tuple[Flavor, Version]:
    """The kind and version in a server's greeting: "9.7.4-2", "5.5.5-10.11.19-MariaDB-log".

    Raises PreflightError for what is no version.
    """
    mariadb = "mariadb" in text.lower()
    # MariaDB 10 greets with a false 5.5.5 in front, for the sake of old replicas
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text.removeprefix("5.5.5-") if mariadb else text)
    if match is None:
        raise PreflightError("the server's version can't be read", hint="it must be MySQL or MariaDB")
    major, minor, patch = (int(part) for part in match.groups())
    return ("mariadb" if mariadb else "mysql"), (major, minor, patch)


def global_variables(connection: pymysql.Connection) -> dict[str, str]:
    """All global variables, names in lower case. Raises SourceError."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW GLOBAL VARIABLES")
            return {str(name).lower(): str(value) for name, value in cursor.fetchall()}
    except pymysql.err.Error as error:
        raise translate(error, doing="reading the server's variables") from error


def server_facts(connection: pymysql.Connection) -> ServerFacts:
    """The facts of the server behind `connection`; MySQL 5.7 to 9.7, MariaDB 10.5 on. Raises SourceError."""
    variables = global_variables(connection)
    flavor, version = flavor_and_version(variables["version"])
    mysql = flavor == "mysql"

    def word(name: str, absent: str = "") -> str:
        return variables.get(name, absent).upper()

    def on(*names: str) -> bool:
        return any(word(name) in {"ON", "1"} for name in names)

    return ServerFacts(
        flavor=flavor,
        version=version,
        server_id=int(variables["server_id"]),
        server_uuid=variables["server_uuid"].lower() if mysql else _mariadb_identity(variables),
        log_bin=on("log_bin"),
        # deprecated in MySQL 8.0.34; once it is gone, only rows are left
        binlog_format=word("binlog_format", "ROW"),
        row_image=word("binlog_row_image", "FULL"),
        row_metadata=word("binlog_row_metadata"),
        gtid_mode=on("gtid_mode") if mysql else True,
        expire_seconds=_expire_seconds(variables),
        lower_case_table_names=int(variables["lower_case_table_names"]),
        replica=_is_replica(connection, flavor, version),
        log_replica_updates=on("log_replica_updates", "log_slave_updates"),
        cascades_logged=mysql and version >= (9, 6, 0) and not on("innodb_native_foreign_keys"),
        partial_revokes=on("partial_revokes"),
    )


def _mariadb_identity(variables: dict[str, str]) -> str:
    uid = variables.get("server_uid", "")
    if not uid:
        marks = [variables.get(name, "") for name in ("hostname", "port", "datadir")]
        uid = hashlib.sha256("\0".join(marks).encode()).hexdigest()[:32]
    return f"mariadb-{variables['server_id']}-{uid}"


def _expire_seconds(variables: dict[str, str]) -> int:
    if variables.get("binlog_expire_logs_auto_purge", "ON").upper() == "OFF":
        return 0
    seconds = int(variables.get("binlog_expire_logs_seconds", "0"))
    return seconds or int(float(variables.get("expire_logs_days", "0")) * 86_400)


def _is_replica(connection: pymysql.Connection, flavor: Flavor, version: Version) -> bool:
    try:
        with connection.cursor() as cursor:
            if flavor == "mariadb":
                # needs no privilege, unlike SHOW ALL SLAVES STATUS
                cursor.execute("SHOW GLOBAL STATUS LIKE 'Slaves_running'")
                return any(int(value) > 0 for _, value in cursor.fetchall())
            cursor.execute("SHOW REPLICA STATUS" if version >= (8, 0, 22) else "SHOW SLAVE STATUS")
            return bool(cursor.fetchall())
    except pymysql.err.OperationalError as error:
        if error.args[0] == ACCESS_DENIED:
            return False
        raise translate(error, doing="asking whether the server is a replica") from error
    except pymysql.err.Error as error:
        raise translate(error, doing="asking whether the server is a replica") from error


def collation_names(connection: pymysql.Connection) -> dict[int, str]:
    """Collation id to character set name, as TABLE_MAP events need it. Raises SourceError.

    MariaDB's uca1400 collations have ids only together with a character set
    (information_schema.COLLATION_CHARACTER_SET_APPLICABILITY.ID, since 10.10).
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS")
            rows = list(cursor.fetchall())
            cursor.execute("SHOW COLUMNS FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY")
            if any(str(row[0]).upper() == "ID" for row in cursor.fetchall()):
                cursor.execute(
                    "SELECT ID, CHARACTER_SET_NAME"
                    " FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY"
                )
                rows.extend(cursor.fetchall())
    except pymysql.err.Error as error:
        raise translate(error, doing="reading the server's collations") from error
    return {int(number): character_set_name(name) for number, name in rows if number is not None and name}


def character_set_name(name: str) -> str:
    """The name of today: older servers call utf8mb3 "utf8"."""
    return "utf8mb3" if name == "utf8" else name


def binlog_end(connection: pymysql.Connection, facts: ServerFacts) -> tuple[str, int, str]:
    """Where the binary log ends now: file, offset of the next event, and the GTID set without newlines.

    The set is '' on MySQL without GTIDs. On MariaDB the set is read just before the file position, so the
    latter may be some transactions ahead. Raises SourceAccessError without REPLICATION CLIENT (MariaDB:
    BINLOG MONITOR), PreflightError where there is no log, SourceError.
    """
    modern = facts.flavor == "mysql" and facts.version >= (8, 2, 0)
    try:
        with connection.cursor() as cursor:
            gtids = ""
            if facts.flavor == "mariadb":
                cursor.execute("SELECT @@GLOBAL.gtid_binlog_pos")
                gtids = str(cursor.fetchall()[0][0] or "")
            cursor.execute("SHOW BINARY LOG STATUS" if modern else "SHOW MASTER STATUS")
            rows = cursor.fetchall()
    except pymysql.err.Error as error:
        raise translate(error, doing="reading the end of the binary log") from error
    if not rows:
        raise PreflightError("the server writes no binary log", hint="set log_bin and restart the server")
    if facts.flavor == "mysql":
        gtids = str(rows[0][4])
    return str(rows[0][0]), int(rows[0][1]), "".join(gtids.split())


def has_transactions(connection: pymysql.Connection, gtid: str) -> bool:
    """Whether a MySQL server has executed all of the GTID set `gtid`. Raises SourceError.

    A dump is refused only where the server lacks transactions of its own (error 1236); where it lacks another
    server's, it waits for them without a word.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)", (gtid,))
            return bool(cursor.fetchall()[0][0])
    except pymysql.err.Error as error:
        raise translate(error, doing="comparing GTIDs with the source's") from error
