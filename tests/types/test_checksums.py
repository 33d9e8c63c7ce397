"""Checksums over every type of both servers: the source's server and DuckDB compute the same ones."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from pydantic import SecretStr

from cdc.config import Settings
from cdc.sandbox.databases import Database
from cdc.schema import Column, Table, quote_mysql
from cdc.source.catalog import load_tables
from cdc.source.connection import SourceEndpoint
from cdc.types import TypeChoices
from cdc.validation.canonical import bucket, canonical_value, checksum, row_digest
from tests.replica import Replica
from tests.types.cases import GENERATED, Case, create, groups, insert
from tests.types.test_matrix import MODES

Shown = dict[int, str | None]


def _fill(database: Database, cases: dict[str, list[Case]]) -> None:
    r = random.Random(7)
    for name, kinds in cases.items():
        count = GENERATED + max(len(case.edges) for case in kinds) + 1
        rows = [list(row) for row in zip(*(case.values(r, count) for case in kinds), strict=True)]
        with database.connect(sql_mode="").cursor() as cursor:
            cursor.execute(create(name, kinds, keyed=True))
        for at, mode in enumerate(MODES):
            connection = database.connect(sql_mode=mode, init_command="SET time_zone = '+00:00'")
            insert(connection, name, kinds, {i: row for i, row in enumerate(rows) if i % len(MODES) == at})


def _tables(database: Database, choices: TypeChoices) -> dict[str, Table]:
    endpoint = SourceEndpoint(Settings(mysql_connection_string=SecretStr(database.url)))
    with closing(endpoint.connect(purpose="a test")) as session:
        return {table.name: choices.applied_to(table) for table in load_tables(session, database.name)}


def _there(database: Database, table: Table, expression: str) -> Shown:
    """What the server computes, in a session like the service's own."""
    endpoint = SourceEndpoint(Settings(mysql_connection_string=SecretStr(database.url)))
    with closing(endpoint.connect(purpose="a test")) as session, session.cursor() as cursor:
        cursor.execute(f"SELECT id, CAST({expression} AS BINARY) FROM {table.source_name}")
        return {row[0]: row[1].decode() if row[1] is not None else None for row in cursor.fetchall()}


def _here(replica: Replica, table: Table, expression: str) -> Shown:
    return dict(replica.rows(f'SELECT id, ({expression})::VARCHAR FROM "{table.name}"'))


CHOICES: tuple[dict[str, Any], ...] = ({}, {"tinyint1": "boolean", "enum": "enum"})


@pytest.mark.parametrize("choices", CHOICES, ids=["default", "boolean and enum"])
def test_both_databases_write_every_value_of_every_type_alike(
    choices: dict[str, Any], database: Database, replica_factory: Callable[..., Replica]
) -> None:
    cases = groups(database.flavor)
    _fill(database, cases)
    replica = replica_factory(database.url, **choices).start()
    for table in _tables(database, TypeChoices(**choices)).values():
        for column in table.columns:
            text = canonical_value(column)
            there, here = _there(database, table, text.server), _here(replica, table, text.copy)
            wrong = {
                number: (there[number], here[number]) for number in there if there[number] != here[number]
            }
            assert there.keys() == here.keys()
            assert not wrong, (column.column_type, dict(list(wrong.items())[:3]))
        digest = row_digest(table.columns)
        assert _there(database, table, digest.server) == _here(replica, table, digest.copy)
        assert _there(database, table, bucket(digest, 97).server) == _here(
            replica, table, bucket(digest, 97).copy
        )
        [total] = set(
            _there(database, table, f"(SELECT {checksum(digest).server} FROM {table.name})").values()
        )
        assert total == str(replica.value(f'SELECT {checksum(digest).copy} FROM "{table.name}"'))


def test_values_that_the_copy_tells_apart_have_texts_that_differ(
    database: Database, replica: Replica
) -> None:
    cases = groups(database.flavor)
    _fill(database, cases)
    replica.start()
    for table in _tables(database, TypeChoices()).values():
        for column in table.columns:
            text, name = canonical_value(column).copy, f'"{column.name}"'
            # As text all of them differ but GEOMETRY, of which the bytes do; a FLOAT prints all its digits.
            shown = f"hex(ST_AsWKB({name}))" if _is_shape(column) else f"{name}::VARCHAR"
            rows = replica.rows(f'SELECT DISTINCT {shown}, {text} FROM "{table.name}"')
            assert len({row[0] for row in rows}) == len({row[1] for row in rows}) == len(rows), (
                column.column_type
            )


def _is_shape(column: Column) -> bool:
    return column.data_type in {
        "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
        "geomcollection", "geometrycollection",
    }  # fmt: skip


def test_the_digest_of_a_row_changes_with_every_single_value(database: Database, replica: Replica) -> None:
    """Each row takes over one value after the other from the row after it."""
    cases = groups(database.flavor)
    _fill(database, cases)
    replica.start()
    for table in _tables(database, TypeChoices()).values():
        digest = row_digest(table.columns).server
        before = _there(database, table, digest)
        texts = {c.name: _there(database, table, canonical_value(c).server) for c in table.columns[1:]}
        for column in table.columns[1:]:
            name = quote_mysql(column.name)
            mutated = f"(SELECT id - 1 AS other, {name} AS theirs FROM {table.source_name}) o"
            sql = _with_value_of(table, column, digest, mutated)
            endpoint = SourceEndpoint(Settings(mysql_connection_string=SecretStr(database.url)))
            with closing(endpoint.connect(purpose="a test")) as session, session.cursor() as cursor:
                cursor.execute(sql)
                after = dict(cursor.fetchall())
            values = texts[column.name]
            for number, found in after.items():
                same = values[number] == values[number + 1]
                assert (found == before[number]) == same, (column.column_type, number)


def _with_value_of(table: Table, column: Column, digest: str, mutated: str) -> str:
    """The digests of rows with one value exchanged."""
    others = ", ".join(f"t.{quote_mysql(c.name)}" for c in table.columns if c is not column)
    name = quote_mysql(column.name)
    return (
        f"SELECT id, {digest} FROM (SELECT {others}, o.theirs AS {name} FROM {table.source_name} t"
        f" JOIN {mutated} ON o.other = t.id) AS exchanged"
    )
