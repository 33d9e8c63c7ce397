"""Databases on a throw-away or a given server: made under a name of their own, dropped afterwards."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

import pymysql
from pymysql.connections import Connection

from cdc.errors import ConfigError, SourceUnavailableError
from cdc.sandbox.installation import Flavor
from cdc.schema import quote_mysql


class Host(Protocol):
    """What tests and the demo need of a server: ours, or one given by its URL."""

    @property
    def flavor(self) -> Flavor:
        """Which of the two servers it is."""

    def url(self, database: str = "") -> str:
        """The connection string of `database` on it."""


class GivenServer:
    """A server that somebody else runs. Raises SourceUnavailableError where it does not answer."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        with session(self.url()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT VERSION()")
            version = str(cursor.fetchone()[0])
        self.flavor = Flavor.MARIADB if "mariadb" in version.lower() else Flavor.MYSQL
        self.version = version.split("-")[0]

    def url(self, database: str = "") -> str:
        """The connection string of `database` on it, with the account and the options that were given."""
        return urlunsplit(self._parts._replace(path=f"/{database}"))


class Database:
    """One database. `connect` as often as needed: `drop` closes what is still open."""

    def __init__(self, server: Host, name: str) -> None:
        self.server = server
        self.name = name
        self.flavor = server.flavor
        self._connections: list[Connection] = []

    @property
    def url(self) -> str:
        """Its connection string."""
        return self.server.url(self.name)

    def connect(self, **options: Any) -> Connection:
        """A session in it, in autocommit mode. `options` are PyMySQL's."""
        connection = connect(self.url, **options)
        self._connections.append(connection)
        return connection

    def execute(self, *statements: str) -> None:
        """Runs statements, each committed by itself, in a session of their own."""
        with session(self.url) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def drop(self) -> None:
        """Closes its sessions and drops it."""
        for connection in self._connections:
            if connection.open:
                connection.close()
        self._connections.clear()
        with session(self.server.url()) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {quote_mysql(self.name)}")


def create_database(server: Host, name: str | None = None) -> Database:
    """A new, empty database of the character set utf8mb4; its name is unique where none is given."""
    name = name or f"duckling_{os.getpid()}_{uuid.uuid4().hex[:10]}"
    with session(server.url()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {quote_mysql(name)} CHARACTER SET utf8mb4")
    return Database(server, name)


def connect(url: str, **options: Any) -> Connection:
    """A session to `mysql://user:password@host:port/database` in autocommit mode; the caller closes it.

    Raises ConfigError for another form of URL, SourceUnavailableError where there is no connection.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 3306
    except ValueError:
        raise ConfigError("the server's port is not a number", hint=_FORM) from None
    if parts.scheme != "mysql" or not parts.hostname:
        raise ConfigError("the server's URL is not a mysql:// URL", hint=_FORM)
    settings: dict[str, Any] = {
        "host": parts.hostname,
        "port": port,
        "user": unquote(parts.username or "root"),
        "password": unquote(parts.password or ""),
        "database": unquote(parts.path.strip("/")) or None,
        "charset": "utf8mb4",
        "autocommit": True,
        "connect_timeout": 10,
        "init_command": "SET time_zone = '+00:00'",
    }
    try:
        return pymysql.connect(**(settings | options))
    except pymysql.MySQLError as error:
        number = error.args[0] if error.args else 0
        raise SourceUnavailableError(
            f"no session with the server at {parts.hostname}:{port} (error {number})",
            hint="check that it runs, the account and the password",
        ) from error


@contextmanager
def session(url: str, **options: Any) -> Iterator[Connection]:
    """As `connect`, closed at the end."""
    connection = connect(url, **options)
    try:
        yield connection
    finally:
        connection.close()


_FORM = "its form is mysql://user:password@host:3306/"
