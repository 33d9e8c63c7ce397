"""Sessions with the source: made alike, whatever the server's defaults are."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import weakref
from contextlib import suppress
from pathlib import Path

import pymysql

from cdc.config import Settings
from cdc.errors import ConfigError, SourceAccessError, SourceError, SourceUnavailableError, StoppedError
from cdc.source.server import (
    Flavor,
    ServerFacts,
    Version,
    binlog_end,
    collation_names,
    flavor_and_version,
    server_facts,
)
from cdc.source.translation import translate
from cdc.source.url import SourceUrl

__all__ = [
    "ServerFacts",
    "SourceEndpoint",
    "SourceUrl",
    "binlog_end",
    "collation_names",
    "server_facts",
    "translate",
]

READ_TIMEOUT = 300.0
"""Seconds of silence after which a session is given up, where the caller does not say."""
_PATIENCE = 86_400
"""Seconds that the server waits for us: a reader may be slow because DuckDB is."""


class SourceEndpoint:
    """The source of one database: opens sessions that are all set alike."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError where the address in `settings` is wrong."""
        self._settings = settings
        self.url = SourceUrl.parse(settings.mysql_connection_string.get_secret_value())
        self._lock = threading.Lock()
        self._sessions: weakref.WeakSet[pymysql.Connection] = weakref.WeakSet()
        self._closed = False

    @property
    def database(self) -> str:
        """The database that is replicated."""
        return self.url.database

    def __str__(self) -> str:
        return self.url.masked()

    def connect(self, *, read_timeout: float | None = READ_TIMEOUT, purpose: str) -> pymysql.Connection:
        """A new session in the database, autocommit on, times in UTC, text in utf8mb4, REPEATABLE READ.

        The password file is read again each time, so a password can be changed while we run. `purpose`
        says for what, in errors ("copying"). `read_timeout` is in seconds, None waits for ever; TCP
        keepalives find a dead peer within a minute all the same. Raises ConfigError for TLS files that
        can't be used, SourceUnavailableError, SourceAccessError.
        """
        url = self.url
        doing = f"connecting to {url.host}:{url.port} for {purpose}"
        limit = self._settings.connect_timeout
        context = _tls_context(url)
        try:
            connection = pymysql.connect(
                host=url.host,
                port=url.port,
                user=url.user,
                # bytes, because the driver would take Latin-1 and the server takes UTF-8
                password=self._password().encode(),
                database=url.database,
                charset="utf8mb4",
                autocommit=None,  # set below
                connect_timeout=limit,
                # the handshake too must end in time
                read_timeout=limit,
                write_timeout=limit,
                program_name="duckling",
                ssl=context,
                ssl_disabled=url.ssl_mode == "disabled",
                defer_connect=True,
            )
            connection._ssl_required = url.ssl_mode != "preferred"
            connection.connect()
        except (pymysql.err.Error, OSError, RuntimeError) as error:
            raise translate(error, doing=doing) from error
        except (struct.error, IndexError, ValueError) as error:
            # the driver could not parse the greeting
            raise SourceUnavailableError(
                f"{doing}: what answers there is no MySQL server", hint="check host and port"
            ) from error
        try:
            _keep_alive(connection)
            flavor, version = flavor_and_version(connection.get_server_info())
            with connection.cursor() as cursor:
                for statement in session_statements(flavor, version, self._settings.lock_wait_seconds):
                    cursor.execute(statement)
        except (pymysql.err.Error, OSError) as error:
            connection.close()
            raise translate(error, doing=doing) from error
        except SourceError:
            connection.close()
            raise
        connection._read_timeout = read_timeout  # the driver applies it at the next read
        with self._lock:
            self._sessions.add(connection)
            closed = self._closed
        if closed:
            connection.close()
            raise StoppedError("no session is opened any more", hint="the service is stopping")
        return connection

    def close(self) -> None:
        """Ends all sessions, whatever they wait for: their threads get SourceUnavailableError at once."""
        with self._lock:
            self._closed = True
            sessions = list(self._sessions)
        for session in sessions:
            cut(session)

    def _password(self) -> str:
        path = self._settings.mysql_password_file
        if path is None:
            return self.url.password
        try:
            return path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            # Tried again, as a wrong password is: the file may be under replacement.
            raise SourceAccessError(
                f"MYSQL_PASSWORD_FILE {path} can't be read: {reason}", hint="it must hold the password alone"
            ) from None


def cut(session: pymysql.Connection) -> None:
    """Ends a session from another thread: whoever waits for its answer gets an error at once."""
    sock = session._sock
    if sock is not None:
        with suppress(OSError):  # it has ended by itself
            sock.shutdown(socket.SHUT_RDWR)


def session_statements(flavor: Flavor, version: Version, lock_wait_seconds: int) -> tuple[str, ...]:
    """The statements that pin a session on a server of that kind; each works there without privileges."""
    pinned: dict[str, str | int] = {
        # the driver believes the greeting, which says ON although the server's default is OFF
        "autocommit": 1,
        "time_zone": "'+00:00'",
        # every mode off: ANSI_QUOTES, NO_BACKSLASH_ESCAPES, PAD_CHAR_TO_FULL_LENGTH and ORACLE change
        # what we read or how we are understood
        "sql_mode": "''",
        "net_write_timeout": _PATIENCE,
        "net_read_timeout": _PATIENCE,
        "wait_timeout": _PATIENCE,
        "lock_wait_timeout": lock_wait_seconds,
        # a server-wide limit on result rows would cut a copy short
        "sql_select_limit": 2**64 - 1,
        "sql_big_selects": 1,
        "sql_quote_show_create": 1,
    }
    if flavor == "mariadb":
        pinned |= {"max_statement_time": 0, "idle_transaction_timeout": 0}
        pinned |= {"idle_readonly_transaction_timeout": 0}
    else:
        pinned |= {"max_execution_time": 0}
        if version >= (8, 0, 0):
            # row estimates as they are now, not as cached up to a day ago
            pinned |= {"information_schema_stats_expiry": 0}
        if version >= (8, 0, 30):
            pinned |= {"show_gipk_in_create_table_and_information_schema": 1}
    return (
        "SET NAMES utf8mb4",
        "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in pinned.items()),
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    )


def _tls_context(url: SourceUrl) -> ssl.SSLContext | None:
    """How to encrypt and what to check; None where nothing is encrypted."""
    if url.ssl_mode == "disabled":
        return None
    try:
        if url.ssl_mode in {"preferred", "required"}:
            # Nothing is checked, so the system's certificates stay unread: that takes 40 ms.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
        else:
            context = ssl.create_default_context(cafile=url.ssl_ca)
        if url.ssl_cert:
            context.load_cert_chain(url.ssl_cert, url.ssl_key)
    except OSError as error:
        given = [path for path in (url.ssl_ca, url.ssl_cert, url.ssl_key) if path]
        missing = next((path for path in given if not Path(path).is_file()), None)
        what = f"{missing} does not exist" if missing else f"{' or '.join(given)} can't be used"
        hint = "ssl-ca, ssl-cert and ssl-key name PEM files that this process can read"
        raise ConfigError(f"TLS file {what}", hint=hint) from error
    # certificates that MySQL makes for itself lack what Python 3.13 asks for by default
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.check_hostname = url.ssl_mode == "verify_identity"
    context.verify_mode = ssl.CERT_NONE if url.ssl_mode in {"preferred", "required"} else ssl.CERT_REQUIRED
    return context


def _keep_alive(connection: pymysql.Connection) -> None:
    """Probes after 30 s of silence, thrice, 10 s apart. The driver itself turns keepalive on."""
    sock: socket.socket = connection._sock
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        option = getattr(socket, name, None)  # macOS calls the first one otherwise
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
