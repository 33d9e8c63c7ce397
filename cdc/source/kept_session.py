"""A session with the source that is kept open from one use to the next: to make one takes 15 ms."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import pymysql

from cdc.errors import SourceError, SourceUnavailableError
from cdc.source.connection import SourceEndpoint, cut

T = TypeVar("T")
_KEPT_TIMEOUT = 5.0
"""Seconds until a session of last time is given up: a network may have forgotten an idle session without a word."""


class KeptSession:
    """One session, made anew where it was lost. For one thread at a time; `abort` is for any."""

    def __init__(self, endpoint: SourceEndpoint, *, purpose: str, read_timeout: float) -> None:
        self._endpoint = endpoint
        self._purpose = purpose
        self._read_timeout = read_timeout
        self._connection: Any = None

    def open(self) -> bool:
        """Connects, unless the session of last time still answers; whether it is a new one. Raises SourceError."""
        if self._connection is not None:
            try:
                self._connection._read_timeout = _KEPT_TIMEOUT  # the driver applies it at the next read
                self._connection.ping(reconnect=False)
            except (pymysql.MySQLError, OSError):
                self.close()
            else:
                self._connection._read_timeout = self._read_timeout
                return False
        self._connection = self._endpoint.connect(purpose=self._purpose, read_timeout=self._read_timeout)
        return True

    def ask(self, question: Callable[[Any, bool], T]) -> T:
        """The answer of `question(connection, new)`, which changes nothing; asked again on a new session where the
        one of last time turns out to be lost. Saves the ping of `open`. Raises SourceError.
        """
        kept = self._connection
        if kept is not None:
            kept._read_timeout = _KEPT_TIMEOUT
            try:
                return question(kept, False)
            except SourceError:  # one that is not the session's fault comes again
                self.close()
            except BaseException:
                self.close()  # whatever state it is in
                raise
        self.open()
        try:
            return question(self.connection, True)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the session."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(pymysql.MySQLError, OSError):  # it is over either way
                connection._force_close()

    def abort(self) -> None:
        """From another thread: whatever is waited for ends with SourceUnavailableError."""
        connection = self._connection
        if connection is not None:
            cut(connection)

    @property
    def connection(self) -> Any:
        """The open session. Raises SourceUnavailableError where there is none."""
        if self._connection is None:
            raise SourceUnavailableError("the session with the source is closed", hint="it is opened again")
        return self._connection
