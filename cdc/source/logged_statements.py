"""Statements that change rows and stand in the binary log themselves: which tables they may have changed.

Some session writes with binlog_format STATEMENT or MIXED. What such a statement did can't be told from its
text, but where it may have done it: those tables are copied again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pymysql

from cdc.schema import NameCase
from cdc.source.translation import refuse_partial_answer, translate

_DOING = "looking for what a logged statement may change"
_WORD = re.compile(r"`((?:[^`]|``)+)`|([\w$]+)")
_EXECUTE_LOAD_FIELDS = 13
"""Bytes that an EXECUTE_LOAD_QUERY event has more than a QUERY event, behind that one's 13 fixed ones."""


def words_of(statement: str, names: NameCase) -> frozenset[str]:
    """Everything in a statement that may be a name, by the key of the name."""
    return frozenset(
        names.key(quoted.replace("``", "`") if quoted else plain)
        for quoted, plain in _WORD.findall(statement)
    )


def load_query(body: bytes) -> bytes:
    """An EXECUTE_LOAD_QUERY event (LOAD DATA) behind its header, as a QUERY event with its statement."""
    return body[:13] + body[13 + _EXECUTE_LOAD_FIELDS :]


def reach(
    connection: pymysql.Connection, database: str, words: frozenset[str], names: NameCase
) -> Iterable[str] | None:
    """Keys of tables that a statement with these words may change; None where any may be.

    A view, a routine, a trigger or a cascade leads to tables that the text does not name. The catalogue is that
    of now: what was dropped since needs no repair. Raises SourceError.
    """

    def found(sql: str) -> set[str]:
        with connection.cursor() as cursor:
            cursor.execute(sql, (database,))
            keys = {names.key(str(row[0])) for row in cursor.fetchall()}
            refuse_partial_answer(cursor, doing=_DOING)
            return keys

    try:
        views = found("SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s")
        routines = found("SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s")
        triggers = found(
            "SELECT EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = %s"
        )
        parents = found(
            "SELECT REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS"
            " WHERE CONSTRAINT_SCHEMA = %s AND NOT (DELETE_RULE IN ('RESTRICT', 'NO ACTION')"
            " AND UPDATE_RULE IN ('RESTRICT', 'NO ACTION'))"
        )
    except pymysql.err.Error as error:
        raise translate(error, doing=_DOING) from error
    return None if words & (views | routines | triggers | parents) else words
