"""Who is connected to a server, and what for."""

from __future__ import annotations

from dataclasses import dataclass

from cdc.sandbox.databases import Database, session


@dataclass(frozen=True, slots=True)
class Session:
    """One line of SHOW PROCESSLIST."""

    number: int
    database: str
    command: str
    state: str


def sessions(url: str) -> list[Session]:
    """All sessions of a server but the one that asks.

    Not of information_schema, which MySQL refuses while a session's statement holds a character beyond the basic
    plane; and in bytes, for statements are cut wherever their hundredth byte falls.
    """
    with session(url, use_unicode=False) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW PROCESSLIST")
        lines = [
            Session(int(number), _text(database), _text(command), _text(state))
            for number, _, _, database, command, _, state, *_ in cursor.fetchall()
        ]
        return [line for line in lines if line.number != connection.thread_id()]


def dump_threads(url: str) -> list[int]:
    """The sessions that send a binary log to somebody."""
    return [each.number for each in sessions(url) if each.command.startswith("Binlog Dump")]


def waiting_for_a_lock(database: Database) -> list[int]:
    """The sessions in a database that wait for a table's lock, or for one of its metadata."""
    return [
        each.number
        for each in sessions(database.url)
        if each.database == database.name
        and each.state.startswith("Waiting for")
        and each.state.endswith("lock")
    ]


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
