"""Tables and columns of the source, read from its information_schema."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import pymysql

from cdc.errors import ConfigError
from cdc.schema import Column, Table, quote_mysql
from cdc.source.server import character_set_name, flavor_and_version
from cdc.source.translation import refuse_partial_answer, translate

Rows = Sequence[Sequence[Any]]
_DOING = "reading the source's catalogue"

_TABLE_TYPES = ("BASE TABLE", "SYSTEM VERSIONED")
_CASCADING = {"CASCADE", "SET NULL", "SET DEFAULT"}

_SPATIAL = {
    "geometry",
    "point",
    "linestring",
    "polygon",
    "multipoint",
    "multilinestring",
    "multipolygon",
    "geometrycollection",
}


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key by which a change of `referenced` changes rows of `table`. Rules in upper case."""

    table: str
    name: str
    referenced: str
    update_rule: str
    delete_rule: str


def load_tables(
    connection: pymysql.Connection,
    database: str,
    *,
    included: Sequence[str] = (),
    excluded: Sequence[str] = (),
) -> list[Table]:
    """The base tables of `database` by name, with all their columns, invisible and generated ones too.

    `included` and `excluded` hold exact names or shell patterns (`log_*`, `?`, `[ab]`); without `included`
    all tables are meant. Views, sequences and temporary tables are left out; MariaDB's system-versioned
    tables are listed. A fixed number of queries, whatever the number of tables. Members of ENUM and SET
    come as the server prints them, in utf8mb3: a character beyond U+FFFF in a member is '?' here (the
    TABLE_MAP event has it right). Raises ConfigError for an included name that matches no table, SourceError.
    """
    types = _query(
        connection,
        "SELECT TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_ROWS, TABLE_COLLATION FROM information_schema.TABLES"
        " WHERE TABLE_SCHEMA = %s",
        database,
    )
    found = {str(row[0]): row for row in types if row[1] in _TABLE_TYPES}
    names = _chosen(sorted(found), included, excluded, {str(row[0]): str(row[1]) for row in types})
    if not names:
        return []
    columns = _columns(connection, database)
    keys = _primary_keys(connection, database)
    return [
        Table(
            schema=database,
            name=name,
            columns=tuple(columns[name]),
            primary_key=tuple(keys[name]),
            engine=str(found[name][2] or ""),
            row_estimate=int(found[name][3] or 0),
            collation=str(found[name][4]) if found[name][4] else None,
        )
        for name in names
        # a table that was dropped between the queries has no columns
        if name in columns
    ]


def foreign_keys_with_cascade(connection: pymysql.Connection, database: str) -> list[ForeignKey]:
    """Foreign keys of `database` whose rules change other rows. Raises SourceError.

    To an account that may only SELECT, MariaDB and older MySQL hide REFERENTIAL_CONSTRAINTS, but not
    SHOW CREATE TABLE, which is read for the tables that have a foreign key.
    """
    rules = {
        (str(row[0]), str(row[1])): (str(row[2]), str(row[3]))
        for row in _query(
            connection,
            "SELECT TABLE_NAME, CONSTRAINT_NAME, UPDATE_RULE, DELETE_RULE"
            " FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = %s",
            database,
        )
    }
    keys = {
        (str(row[0]), str(row[1])): str(row[2])
        for row in _query(
            connection,
            "SELECT TABLE_NAME, CONSTRAINT_NAME, REFERENCED_TABLE_NAME"
            " FROM information_schema.KEY_COLUMN_USAGE"
            " WHERE TABLE_SCHEMA = %s AND REFERENCED_TABLE_NAME IS NOT NULL",
            database,
        )
    }
    for table in sorted({table for table, name in keys if (table, name) not in rules}):
        statement = _query(connection, f"SHOW CREATE TABLE {quote_mysql(database)}.{quote_mysql(table)}")
        for name, rule in _rules_in(str(statement[0][1])).items():
            rules.setdefault((table, name), rule)
    return [
        ForeignKey(table, name, referenced, *rules[table, name])
        for (table, name), referenced in sorted(keys.items())
        if _CASCADING.intersection(rules.get((table, name), ()))
    ]


def system_versioned_tables(connection: pymysql.Connection, database: str) -> set[str]:
    """Names of MariaDB's system-versioned tables in `database`; empty on MySQL. Raises SourceError."""
    rows = _query(
        connection,
        "SELECT TABLE_NAME FROM information_schema.TABLES"
        " WHERE TABLE_SCHEMA = %s AND TABLE_TYPE = 'SYSTEM VERSIONED'",
        database,
    )
    return {str(row[0]) for row in rows}


def parse_members(column_type: str) -> tuple[str, ...]:
    """The members of `enum('a','b')` or `set(…)` as COLUMN_TYPE prints them.

    Both servers double a quote and write backslash, NUL, newline and carriage return with a backslash,
    whatever the SQL mode. () for other types.
    """
    if not re.match(r"(?:enum|set)\(", column_type, re.IGNORECASE):
        return ()
    quoted = re.findall(r"'((?:[^'\\]|''|\\.)*)'", column_type, re.DOTALL)
    return tuple(re.sub(r"''|\\.", _unescaped, member, flags=re.DOTALL) for member in quoted)


def _unescaped(match: re.Match[str]) -> str:
    return {"0": "\0", "n": "\n", "r": "\r"}.get(match[0][1], match[0][1])


def _query(connection: pymysql.Connection, statement: str, *values: object) -> Rows:
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            rows: Rows = cursor.fetchall()
            refuse_partial_answer(cursor, doing=_DOING)
            return rows
    except pymysql.err.Error as error:
        raise translate(error, doing=_DOING) from error


def _chosen(
    names: Sequence[str], included: Sequence[str], excluded: Sequence[str], types: dict[str, str]
) -> list[str]:
    def matches(name: str, pattern: str) -> bool:
        # an exact name wins, so that a name with [ in it can be given
        return name == pattern or (pattern not in names and fnmatchcase(name, pattern))

    for pattern in included:
        if not any(matches(name, pattern) for name in names):
            raise _not_a_table(pattern, names, types)
    return [
        name
        for name in names
        if (not included or any(matches(name, pattern) for pattern in included))
        and not any(matches(name, pattern) for pattern in excluded)
    ]


def _not_a_table(pattern: str, names: Sequence[str], types: dict[str, str]) -> ConfigError:
    if pattern in types:
        what = f"is a {types[pattern].lower()}, not a table"
        return ConfigError(f"included_tables: {pattern!r} {what}", hint="name base tables only")
    alike = next((name for name in names if name.casefold() == pattern.casefold()), None)
    hint = f"the server spells it {alike!r}" if alike else "check its name, and that the account may read it"
    return ConfigError(f"included_tables: the source has no table {pattern!r}", hint=hint)


def _columns(connection: pymysql.Connection, database: str) -> dict[str, list[Column]]:
    flavor, version = flavor_and_version(connection.get_server_info())
    srs = "SRS_ID" if flavor == "mysql" and version >= (8, 0, 3) else "NULL"
    rows = _query(
        connection,
        "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME,"
        " COLLATION_NAME, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION,"
        f" EXTRA, {srs} FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s"
        " ORDER BY TABLE_NAME, ORDINAL_POSITION",
        database,
    )
    srids: dict[tuple[str, str], int] = {}
    # Asked only where need be: MariaDB 10.11 opens every table for this, and was seen to crash over it.
    if flavor == "mariadb" and any(str(row[2]).lower() in _SPATIAL for row in rows):
        reference = _query(
            connection,
            "SELECT G_TABLE_NAME, G_GEOMETRY_COLUMN, SRID FROM information_schema.GEOMETRY_COLUMNS"
            " WHERE G_TABLE_SCHEMA = %s",
            database,
        )
        srids = {(str(row[0]), str(row[1])): int(row[2]) for row in reference if row[2] is not None}
    columns: dict[str, list[Column]] = defaultdict(list)
    for row in rows:
        columns[str(row[0])].append(_column(row, srids.get((str(row[0]), str(row[1])))))
    return columns


def _column(row: Sequence[Any], srid: int | None) -> Column:
    (
        _,
        name,
        data_type,
        column_type,
        nullable,
        charset,
        collation,
        length,
        precision,
        scale,
        fraction,
        *rest,
    ) = row
    extra = str(rest[0] or "").upper()
    return Column(
        name=str(name),
        data_type=str(data_type).lower(),
        column_type=str(column_type),
        nullable=nullable == "YES",
        character_set=character_set_name(str(charset)) if charset and charset != "binary" else None,
        collation=str(collation) if collation and collation != "binary" else None,
        length=None if length is None else int(length),
        precision=None if precision is None else int(precision),
        scale=None if scale is None else int(scale),
        fraction=int(fraction or 0),
        members=parse_members(str(column_type)),
        # not DEFAULT_GENERATED, which is MySQL's word for an expression as default
        generated=bool(re.search(r"\b(VIRTUAL|STORED|PERSISTENT)\b", extra)),
        invisible=bool(re.search(r"\bINVISIBLE\b", extra)),
        srid=srid if rest[1] is None else int(rest[1]),
    )


def _primary_keys(connection: pymysql.Connection, database: str) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = defaultdict(list)
    for table, column in _query(
        connection,
        "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.STATISTICS"
        " WHERE TABLE_SCHEMA = %s AND INDEX_NAME = 'PRIMARY' ORDER BY TABLE_NAME, SEQ_IN_INDEX",
        database,
    ):
        keys[str(table)].append(str(column))
    return keys


def _rules_in(statement: str) -> dict[str, tuple[str, str]]:
    """Update and delete rule of each foreign key in a SHOW CREATE TABLE."""
    found: dict[str, tuple[str, str]] = {}
    key = r"^\s*CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY .*$"
    for match in re.finditer(key, statement, re.MULTILINE):
        clause = re.sub(r"`(?:[^`]|``)*`", "", match[0])
        update, delete = (
            re.search(rf" ON {event} (CASCADE|SET NULL|SET DEFAULT)", clause)
            for event in ("UPDATE", "DELETE")
        )
        found[match[1].replace("``", "`")] = (
            update[1] if update else "RESTRICT",
            delete[1] if delete else "RESTRICT",
        )
    return found
