"""Pages of a table, in the order of its primary key: the cursor says after which key the next one begins."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import orjson

from cdc.errors import QueryError
from cdc.query import MAX_BYTES, ResultColumn, run_query
from cdc.schema import quote_duckdb

_MARK = hashlib.sha256
_MARK_BYTES = 16


class CursorError(QueryError):
    """A cursor that this service did not give, or not for this table as it is now."""

    code = "CURSOR"
    title = "Cursor not valid"


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in the order of the key. `truncated`: rows follow; `next_cursor` leads to them, if a key does."""

    columns: tuple[ResultColumn, ...]
    rows: list[dict[str, Any]]
    next_cursor: str | None
    truncated: bool


class Cursors:
    """Makes and checks cursors: a table's name, its key's columns and a key, signed with the service's keys."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """`secrets[0]` signs, each of them is accepted, so that cursors outlive a rotation of keys."""
        self._secrets = [_MARK(b"duckling cursor\x00" + secret).digest() for secret in secrets or (b"",)]

    def write(self, database: str, table: str, key: Sequence[str], values: Sequence[str]) -> str:
        """The cursor for the rows after the one whose key is `values`."""
        content = orjson.dumps([database, table, list(key), list(values)])
        return base64.urlsafe_b64encode(self._sign(self._secrets[0], content) + content).decode().rstrip("=")

    def read(self, cursor: str, database: str, table: str, key: Sequence[str]) -> list[str]:
        """The key's values in `cursor`, as text. Raises CursorError."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise self._refused() from None
        mark, content = raw[:_MARK_BYTES], raw[_MARK_BYTES:]
        known = False
        for secret in self._secrets:
            known |= hmac.compare_digest(mark, self._sign(secret, content))
        if not known:
            raise self._refused()
        found = orjson.loads(content)
        if found[:3] != [database, table, list(key)]:
            raise self._refused()
        values: list[str] = found[3]
        return values

    def _sign(self, secret: bytes, content: bytes) -> bytes:
        return hmac.digest(secret, content, "sha256")[:_MARK_BYTES]

    def _refused(self) -> CursorError:
        return CursorError(
            "the cursor is not one of this service for this table and its key",
            hint="begin again without a cursor",
        )


def read_page(
    reader: duckdb.DuckDBPyConnection,
    cursors: Cursors,
    database: str,
    table: str,
    key: Sequence[str],
    *,
    limit: int,
    cursor: str | None,
    timeout_ms: int,
    max_bytes: int = MAX_BYTES,
) -> Page:
    """At most `limit` rows of `table` after those before `cursor`, in the order of `key`, its primary key.

    Rows that come or go between two calls are met or missed by their key's place; none is met twice, and
    none that stays is left out. Without a key there is no order that lasts: one page, and no cursor.

    Raises CursorError, QueryError as `cdc.query.run_query` does.
    """
    source = f"main.{quote_duckdb(table)}"
    if not key:
        if cursor is not None:
            raise CursorError("a table without a primary key has one page only", hint="POST /query reads all")
        result = run_query(reader, f"SELECT * FROM {source}", None, limit, timeout_ms, max_bytes)
        return Page(result.columns, result.rows, None, result.truncated)
    names = [quote_duckdb(column) for column in key]
    described = reader.execute(f"DESCRIBE {source}").fetchall()
    types = {str(row[0]): str(row[1]) for row in described}
    where, given = "", []
    if cursor is not None:
        given = cursors.read(cursor, database, table, key)
        where = _after([types[column] for column in key], names)
    label = "_key"
    while label.lower() in {name.lower() for name in types}:
        label += "_"
    texts = ", ".join(f"CAST({name} AS VARCHAR)" for name in names)
    sql = (
        f"SELECT [{texts}] AS {quote_duckdb(label)}, * FROM {source} {where}"
        f" ORDER BY {', '.join(names)} LIMIT {limit + 1}"
    )
    result = run_query(reader, sql, given, limit, timeout_ms, max_bytes)
    keys = [row.pop(label) for row in result.rows]
    more = cursors.write(database, table, key, keys[-1]) if result.truncated else None
    return Page(result.columns[1:], result.rows, more, result.truncated)


def _after(types: Sequence[str], names: Sequence[str]) -> str:
    """The rows behind a key; its first column alone once more, since that is what skips parts of the table."""
    values = [f"CAST(${i + 1} AS {type_name})" for i, type_name in enumerate(types)]
    return f"WHERE {names[0]} >= {values[0]} AND ({', '.join(names)}) > ({', '.join(values)})"
