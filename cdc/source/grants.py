"""What the account of a session may do, as SHOW GRANTS tells."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pymysql

from cdc.source.server import ServerFacts
from cdc.source.translation import translate

# The same privilege under another name: MariaDB renamed one in 10.5.2 and reads both.
_SYNONYMS = {"REPLICATION CLIENT": "BINLOG MONITOR", "REPLICATION REPLICA": "REPLICATION SLAVE"}
_GRANT = re.compile(
    r"(?P<verb>GRANT|REVOKE) (?P<privileges>.+?) ON (?:TABLE )?"
    r"(?P<schema>\*|`(?:[^`]|``)*`)\.(?P<table>\*|`(?:[^`]|``)*`) (?:TO|FROM) (?P<grantee>\S+)",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Grants:
    """Privileges in upper case, by what they are granted on; roles that are active in the session count.

    `schemas` holds for each grantee (the account, a role, PUBLIC) patterns with % and _, as GRANT takes
    them. Column privileges are left out: a copy needs every column.
    """

    everywhere: set[str] = field(default_factory=set)
    schemas: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    tables: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    revoked: dict[str, set[str]] = field(default_factory=dict)
    literal: bool = False
    """% and _ in schema names stand for themselves (MySQL with partial_revokes)."""
    fold: bool = False
    """Names are compared without regard to case (lower_case_table_names is not 0)."""

    def globally(self, privilege: str) -> bool:
        """Whether `privilege` is granted on *.*."""
        return _has(self.everywhere, privilege)

    def on_schema(self, privilege: str, schema: str) -> bool:
        """Whether `privilege` is granted on all of `schema`."""
        if self.globally(privilege) and not _has(self.revoked.get(schema, set()), privilege):
            return True
        return any(
            _has(granted[pattern], privilege)
            for granted in self.schemas.values()
            if (pattern := self._in_force(granted, schema)) is not None
        )

    def pattern(self, schema: str) -> str | None:
        """The pattern on which a further privilege for `schema` must be granted, None for a new one.

        The server applies only the most specific pattern that matches a schema: a grant on a new one would
        take away what the old one gives.
        """
        found = (self._in_force(granted, schema) for granted in self.schemas.values())
        return next((pattern for pattern in found if pattern is not None), None)

    def _in_force(self, granted: dict[str, set[str]], schema: str) -> str | None:
        matching = (pattern for pattern in granted if self._matches(pattern, schema))
        return max(matching, key=_specific, default=None)

    def on_table(self, privilege: str, schema: str, table: str) -> bool:
        """Whether `privilege` is granted on the whole of `table`."""
        if self.on_schema(privilege, schema):
            return True
        return any(
            _has(privileges, privilege) and self._same(name, schema) and self._same(of, table)
            for (name, of), privileges in self.tables.items()
        )

    def _same(self, one: str, other: str) -> bool:
        return one.casefold() == other.casefold() if self.fold else one == other

    def _matches(self, pattern: str, schema: str) -> bool:
        if self.literal:
            return self._same(re.sub(r"\\([_%])", r"\1", pattern), schema)
        # alternation order matters: an escaped character stands for itself
        parts = re.findall(r"\\[_%\\]|.", pattern, re.DOTALL)
        wild = {"%": ".*", "_": "."}
        expression = "".join(wild.get(part) or re.escape(part[-1]) for part in parts)
        flags = re.DOTALL | (re.IGNORECASE if self.fold else 0)
        return re.fullmatch(expression, schema, flags) is not None


def _specific(pattern: str) -> tuple[bool, int, int]:
    """Sorts as the server does: without a wildcard first, then by the length before the first one."""
    wildcard = re.search(r"(?<!\\)[_%]", pattern)
    return wildcard is None, wildcard.start() if wildcard else 0, len(pattern)


def _has(privileges: set[str], privilege: str) -> bool:
    return bool({"ALL PRIVILEGES", "ALL", privilege} & privileges)


def parse_grants(statements: list[str], *, literal: bool = False, fold: bool = False) -> Grants:
    """The grants in the lines of SHOW GRANTS; lines that grant a role, a proxy or a routine are left out."""
    grants = Grants(literal=literal, fold=fold)
    for statement in statements:
        match = _GRANT.match(statement)
        if match is None:
            continue
        # column lists go with their privilege: they don't give the whole table
        plain = re.sub(r"[A-Z ]+\([^)]*\)", "", match["privileges"].upper())
        words = {word.strip() for word in plain.split(",") if word.strip()}
        privileges = {_SYNONYMS.get(word, word) for word in words}
        schema, table = _name(match["schema"]), _name(match["table"])
        if match["verb"].upper() == "REVOKE":
            grants.revoked.setdefault(schema or "", set()).update(privileges)
        elif schema is None:
            grants.everywhere.update(privileges)
        elif table is None:
            granted = grants.schemas.setdefault(match["grantee"], {})
            granted.setdefault(schema, set()).update(privileges)
        else:
            grants.tables.setdefault((schema, table), set()).update(privileges)
    return grants


def _name(text: str) -> str | None:
    return None if text == "*" else text[1:-1].replace("``", "`")


def read_grants(connection: pymysql.Connection, facts: ServerFacts) -> Grants:
    """The grants of the session's account with its active roles. Raises SourceError.

    Both servers' SHOW GRANTS includes the roles that are active; MariaDB's also what PUBLIC has.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW GRANTS")
            statements = [str(row[0]) for row in cursor.fetchall()]
    except pymysql.err.Error as error:
        raise translate(error, doing="reading the account's privileges") from error
    return parse_grants(statements, literal=facts.partial_revokes, fold=facts.lower_case_table_names != 0)


def account(connection: pymysql.Connection) -> str:
    """The session's account as GRANT takes it: 'user'@'host'. Raises SourceError."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT CURRENT_USER()")
            user, _, host = str(cursor.fetchall()[0][0]).rpartition("@")
    except pymysql.err.Error as error:
        raise translate(error, doing="reading the account's name") from error
    return "@".join("'" + part.replace("'", "''") + "'" for part in (user, host))
