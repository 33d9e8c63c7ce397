"""What the driver and the server say, translated into our error tree: once, here."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from pymysql import err
from pymysql.constants import CR

from cdc.errors import (
    BinlogError,
    DucklingError,
    PositionLostError,
    SourceAccessError,
    SourceError,
    SourceMismatchError,
    SourceUnavailableError,
)

# Server error numbers: https://dev.mysql.com/doc/mysql-errors/9.7/en/server-error-reference.html
_ACCOUNT = {
    1045: "check user and password in MYSQL_CONNECTION_STRING or MYSQL_PASSWORD_FILE",
    1698: "this account logs in without a password, by the operating system: use another account",
    1251: "the server asks for a login method that is not supported: use caching_sha2_password",
    1524: "the server lacks the account's login plugin: use caching_sha2_password",
    1820: "the account's password has expired: ALTER USER … IDENTIFIED BY …",
    1862: "the account's password has expired: ALTER USER … IDENTIFIED BY …",
    3118: "the account is locked: ALTER USER … ACCOUNT UNLOCK",
    3159: "the server takes encrypted connections only: add ?ssl-mode=required",
    3955: "too many failed logins: wait, or ALTER USER … ACCOUNT UNLOCK",
    4151: "the account is locked: ALTER USER … ACCOUNT UNLOCK",
    1130: "the server does not accept this account from this host: CREATE USER …@'host'",
}
_PRIVILEGE = {1044, 1142, 1143, 1227, 1345, 1370, 1410}
_BUSY = {
    1040: "too many connections: raise max_connections, or end some",
    1203: "the account has too many connections: raise its MAX_USER_CONNECTIONS, or end some",
    1226: "the account has used up a resource limit: ALTER USER … WITH …",
    1129: "the server blocks this host after failed connections: TRUNCATE performance_schema.host_cache",
    1053: "the server is shutting down",
    1077: "the server is shutting down",
    1079: "the server is shutting down",
    1152: "the connection was ended by the server",
    1927: "the connection was killed",
    1317: "the statement was interrupted",
    1205: "a lock was not granted in time: try again when the long transaction has ended",
    1213: "a deadlock: try again",
    1836: "the server is read-only for now",
    3032: "the server is in offline mode",
    3169: "the session was killed",
    4031: "the server ended an idle session",
}
_LAST_OF_FILES = 999
"""Up to here a number tells of the operating system, most of them of files: "Global Error Message Reference"."""
_GONE = {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, CR.CR_SERVER_LOST_EXTENDED, CR.CR_SERVER_HANDSHAKE_ERR}
_REACH = {CR.CR_CONNECTION_ERROR, CR.CR_CONN_HOST_ERROR, CR.CR_UNKNOWN_HOST, *_GONE}
_NETWORK = "check that the server runs and that the network lets this host reach it"

# Error 1236 covers every failure to send the log; only its text tells which (both servers, all versions).
_LOG_LOST = ("purged required", "could not find first log file", "could not find gtid state", "too old")
_LOG_AHEAD = ("more gtids than", "not in the master's binlog", "not in the primary's binlog")
_LOG_TWIN = ("same server_uuid", "same server_id", "same server-id")


_GONE_OR_CHANGED = frozenset({1054, 1146, 1412})


def is_table_change(error: DucklingError) -> bool:
    """Whether the server said that a table is not what the catalogue said a moment ago."""
    cause: Any = error.__cause__
    return bool(cause is not None and cause.args and cause.args[0] in _GONE_OR_CHANGED)


def translate(error: BaseException, *, doing: str) -> SourceError:
    """`error`, met while `doing` something ("connecting to db:3306"), in terms of cdc.errors.

    Takes what PyMySQL raises and what its socket does: pymysql.err.Error, OSError, ssl.SSLError, and the
    RuntimeError of its authentication. An error of our own tree comes back unchanged.
    """
    if isinstance(error, SourceError):
        return error
    cause = getattr(error, "original_exception", error)
    if isinstance(cause, OSError):
        return _unreachable(cause, doing)
    code, text = _code_and_text(error)
    if code in _ACCOUNT:
        return SourceAccessError(f"{doing}: {text}", hint=_ACCOUNT[code])
    if code in _PRIVILEGE:
        return SourceAccessError(f"{doing}: {text}", hint="`duckling check` prints the GRANT that is missing")
    if code == 1049:
        hint = "check the database's name in MYSQL_CONNECTION_STRING"
        return SourceAccessError(f"{doing}: {text}", hint=hint)
    if code in _BUSY:
        return SourceUnavailableError(f"{doing}: {text}", hint=_BUSY[code])
    if 0 < code <= _LAST_OF_FILES:
        hint = "the server's machine lacks room, memory or a file: see the server's log; it is tried again"
        return SourceUnavailableError(f"{doing}: the server answered error {code}: {text}", hint=hint)
    if code == CR.CR_SSL_CONNECTION_ERROR:
        hint = "turn TLS on at the server, or use ?ssl-mode=preferred"
        return SourceAccessError(f"{doing}: the server offers no TLS", hint=hint)
    if code in {CR.CR_AUTH_PLUGIN_CANNOT_LOAD, CR.CR_AUTH_PLUGIN_ERR, CR.CR_SECURE_AUTH}:
        return SourceAccessError(f"{doing}: {text}", hint=_ACCOUNT[1251])
    if code == 1236:
        return _dump_refused(text, doing)
    if code in _REACH:
        slow = "timed out" in text
        return SourceUnavailableError(
            f"{doing}: {'no answer in time' if slow else 'the connection was lost'}", hint=_NETWORK
        )
    if isinstance(error, err.InterfaceError):
        return SourceUnavailableError(f"{doing}: the connection is closed", hint=_NETWORK)
    if isinstance(error, err.Error) and code:
        return SourceError(f"{doing}: the server answered error {code}: {text}", hint="see the server's log")
    return SourceError(f"{doing}: {type(error).__name__}: {text}", hint="see the server's log")


def refuse_partial_answer(cursor: Any, *, doing: str) -> None:
    """Raises SourceUnavailableError where the server left tables out of an answer, behind its rows.

    MariaDB leaves a table out of information_schema, with a mere warning, whose lock is not granted in time.
    """
    if cursor.warning_count:
        cursor.execute("SHOW WARNINGS")
        for _, code, text in cursor.fetchall():
            if code in _BUSY:
                raise translate(err.OperationalError(code, text), doing=doing)


def _code_and_text(error: BaseException) -> tuple[int, str]:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[-1]) if error.args else ""
    return code, " ".join(text.split())[:300]


def _unreachable(cause: OSError, doing: str) -> SourceError:
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = cause.verify_message or "not trusted"
        hint = "give the authority that signed it with ssl-ca, and the name it was made for as the host"
        return SourceAccessError(f"{doing}: the server's certificate is refused: {reason}", hint=hint)
    if isinstance(cause, ssl.SSLError):
        reason = (cause.reason or type(cause).__name__).replace("_", " ").lower()
        hint = "the server must speak TLS 1.2 or later; check ssl-ca, ssl-cert and ssl-key"
        return SourceAccessError(f"{doing}: TLS failed: {reason}", hint=hint)
    if isinstance(cause, socket.gaierror):
        hint = "check the host in MYSQL_CONNECTION_STRING, and the name service"
        return SourceUnavailableError(f"{doing}: the host's name is not known", hint=hint)
    if isinstance(cause, TimeoutError):
        return SourceUnavailableError(f"{doing}: no answer in time", hint=_NETWORK)
    if isinstance(cause, ConnectionRefusedError):
        return SourceUnavailableError(f"{doing}: connection refused", hint=_NETWORK)
    return SourceUnavailableError(f"{doing}: {cause.strerror or type(cause).__name__}", hint=_NETWORK)


def _dump_refused(text: str, doing: str) -> SourceError:
    lower = text.lower()
    if any(words in lower for words in _LOG_LOST):
        hint = "copy again: POST /sync/full; keep the logs longer with binlog_expire_logs_seconds"
        return PositionLostError(f"{doing}: the binary log at our position is gone", hint=hint)
    if any(words in lower for words in _LOG_AHEAD):
        hint = "point at the server that the copy came from, wait until this one has caught up, or copy again"
        return SourceMismatchError(f"{doing}: the server lacks transactions that the copy has", hint=hint)
    if any(words in lower for words in _LOG_TWIN):
        hint = "another reader uses our server id: set SERVER_ID to one of its own"
        return SourceUnavailableError(f"{doing}: another replica has taken our place", hint=hint)
    return BinlogError(f"{doing}: {text}", hint="copy again where the position is wrong: POST /sync/full")
