"""The tables that a watermark sync goes over, looked up again when the source's catalogue has changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cdc.engine import Engine
from cdc.errors import PreflightError
from cdc.schema import Table
from cdc.watermark.choice import Followed, Traits, choose
from cdc.watermark.questions import Session


@dataclass(frozen=True, slots=True)
class Plan:
    """Every table by name, those that can't be replicated with the reason, and the catalogue's digest."""

    tables: dict[str, Followed]
    unfit: dict[str, PreflightError]
    digest: frozenset[tuple[Any, ...]]


def make_plan(engine: Engine, session: Session, known: Plan | None) -> Plan:
    """`known`, if the catalogue still is what it was made from; else a new one.

    Raises SourceError; PreflightError where no table of the server can be replicated.
    """
    digest = _digest(session, engine.endpoint.database)
    if known is not None and known.digest == digest:
        return known
    _, found, unfit = engine.fit_tables(logged=False)
    traits = load_traits(session, engine.endpoint.database)
    return Plan({table.name: choose(table, traits[table.name]) for table in found}, unfit, digest)


def load_traits(session: Session, database: str) -> dict[str, Traits]:
    """Traits of every table of `database` by its name; empty ones for a table that is not there."""
    schema = _text(database)
    growing = {
        str(table): str(column)
        for table, column in session.rows(
            "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS"
            f" WHERE TABLE_SCHEMA = {schema} AND EXTRA LIKE '%auto_increment%'"
        )
    }
    leading: dict[str, set[str]] = defaultdict(set)
    for table, column in session.rows(
        "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.STATISTICS"
        f" WHERE TABLE_SCHEMA = {schema} AND SEQ_IN_INDEX = 1 AND INDEX_TYPE = 'BTREE' AND COLUMN_NAME IS NOT NULL"
    ):
        leading[str(table)].add(str(column))
    traits: dict[str, Traits] = defaultdict(Traits)
    for table, created in session.rows(_made(schema)):
        name = str(table)
        traits[name] = Traits(growing.get(name), frozenset(leading[name]), str(created))
    return traits


def named(tables: Sequence[Table], traits: dict[str, Traits]) -> list[Followed]:
    """What each of `tables` is followed by."""
    return [choose(table, traits[table.name]) for table in tables]


def _digest(session: Session, database: str) -> frozenset[tuple[Any, ...]]:
    """A checksum of each table's columns and keys, computed by the source, and when the table was made."""
    schema = _text(database)
    columns = session.rows(
        "SELECT TABLE_NAME, SUM(CRC32(CONCAT_WS('|', ORDINAL_POSITION, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE,"
        " COLLATION_NAME, COLUMN_KEY, EXTRA))) FROM information_schema.COLUMNS"
        f" WHERE TABLE_SCHEMA = {schema} GROUP BY TABLE_NAME"
    )
    return frozenset((str(name), str(total)) for name, total in columns) | frozenset(
        (str(name), str(made)) for name, made in session.rows(_made(schema))
    )


def _made(schema: str) -> str:
    return f"SELECT TABLE_NAME, CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema}"


def _text(name: str) -> str:
    return f"_utf8mb4 x'{name.encode().hex()}'"
