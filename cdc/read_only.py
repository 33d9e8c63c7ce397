"""Which SQL a client may run: one statement that only reads tables.

Three walls, each enough for most of it: DuckDB's parser names the kind of the statement; its syntax tree
shows every table function, of which only those listed here may be called; and the statement runs in a READ
ONLY transaction of a database without external access. The kind alone would not do: since DuckDB 2.0 a WITH
clause may hold an INSERT, and `checkpoint()` is a table function.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import duckdb
import orjson

from cdc.errors import QueryError

READ_ONLY = "READ_ONLY"
MAX_SQL = 100_000
"""Characters; parsing a statement of that length takes a tenth of a second."""
KEPT_TEXTS = 256
"""Texts that passed and are not looked at again."""
KEPT_LENGTH = 4096
"""Characters of the longest of them."""
_HINT = "send one SELECT, EXPLAIN, DESCRIBE, SHOW or SUMMARIZE that reads tables"

TABLE_FUNCTIONS = frozenset(
    {
        "duckdb_columns",
        "duckdb_constraints",
        "duckdb_functions",
        "duckdb_indexes",
        "duckdb_keywords",
        "duckdb_memory",
        "duckdb_schemas",
        "duckdb_tables",
        "duckdb_types",
        "duckdb_views",
        "generate_series",
        "generate_subscripts",
        "histogram",
        "histogram_values",
        "icu_calendar_names",
        "json_each",
        "json_tree",
        "pg_timezone_names",
        "pragma_show",
        "pragma_storage_info",
        "pragma_table_info",
        "pragma_version",
        "range",
        "repeat",
        "repeat_row",
        "summary",
        "test_all_types",
        "unnest",
    }
)
"""Table functions without effects, that reach nothing but the open file. What is not listed is refused:
files (`read_csv`, `glob`), SQL in text (`query`, `json_execute_serialized_sql`), effects (`checkpoint`)."""

_INFLATING = frozenset(
    {"repeat", "lpad", "rpad", "bitstring", "printf", "format", "replace", "regexp_replace"}
)
"""Functions that make one value of any length. Their results escape DuckDB's memory limit and its interrupt,
so a short statement could take all memory of the machine."""
MAX_INFLATION = 100_000
"""Times, all such calls of one statement multiplied, for they may be nested."""
_UNKNOWN = MAX_INFLATION + 1

_SCALARS_WITH_EFFECT = frozenset({"nextval", "setval", "write_log"})
_READING_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_NODE_KIND = re.compile(r'"type":"([A-Z_]*_NODE)"')
_FUNCTION_NAME = re.compile(r'"function_name":"((?:[^"\\]|\\.)*)"')
_TABLE_FUNCTION = '"type":"TABLE_FUNCTION"'
_EXPLAIN = re.compile(
    r"\s*EXPLAIN\s+(?:ANALYZE\s+|ANALYSE\s+)?(?:\([\w\s,'\"]*\)\s*)?", re.IGNORECASE | re.ASCII
)


def refused(message: str, hint: str = _HINT) -> QueryError:
    """The error for SQL that would do more than read."""
    return QueryError(message, hint=hint, code=READ_ONLY)


class _Passed:
    """What was found of the latest texts that passed. Safe to use from any thread.

    A dashboard asks the same again and again. A megabyte or two at most, eight where texts are full of emoji.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[str, bool]] = OrderedDict()

    def find(self, sql: str) -> tuple[str, bool] | None:
        with self._lock:
            found = self._known.get(sql)
            if found is not None:
                self._known.move_to_end(sql)
            return found

    def keep(self, sql: str, checked: tuple[str, bool]) -> None:
        if len(sql) > KEPT_LENGTH:
            return
        with self._lock:
            self._known[sql] = checked
            if len(self._known) > KEPT_TEXTS:
                self._known.popitem(last=False)


_passed = _Passed()


def check_read_only(cursor: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, bool]:
    """The one statement in `sql`, without what may follow it, and whether it is a SELECT (else EXPLAIN).

    That is a matter of the text alone, whatever tables there are. Raises QueryError: READ_ONLY for what does more
    than read, QUERY for what can't be parsed.
    """
    found = _passed.find(sql)
    if found is None:
        found = _check(cursor, sql)
        _passed.keep(sql, found)
    return found


def _check(cursor: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, bool]:
    if len(sql) > MAX_SQL:
        raise QueryError(
            f"the SQL is longer than {MAX_SQL} characters", hint="join with a table, or ask twice"
        )
    if "\x00" in sql:
        raise QueryError("the SQL holds a NUL character", hint="remove it")
    try:
        statements = cursor.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(first_line(error), hint="correct the SQL") from None
    if len(statements) != 1:
        found = "no statement" if not statements else f"{len(statements)} statements"
        raise refused(f"the SQL holds {found}, where one is expected")
    kind = statements[0].type
    text = _without_end(statements[0].query)
    if kind == duckdb.StatementType.SELECT:
        _check_tree(cursor, text)
        return text, True
    if kind == duckdb.StatementType.EXPLAIN:
        opening = _EXPLAIN.match(text)
        if opening is None:
            raise refused("this form of EXPLAIN is not read-only")
        _check_tree(cursor, text[opening.end() :])
        return text, False
    if kind == duckdb.StatementType.MULTI:
        raise refused(
            "this PIVOT is not one statement", hint="give PIVOT its values: PIVOT … ON column IN (value, …)"
        )
    raise refused(f"{kind.name} statements are refused")


def first_line(error: duckdb.Error) -> str:
    """DuckDB's message without the excerpt of the statement and without the C++ stack."""
    return str(error).partition("\n")[0].strip() or type(error).__name__


def _without_end(sql: str) -> str:
    """`sql` without semicolons and comments behind its last word."""
    text = sql.encode()  # the tokenizer counts bytes
    end = len(text)
    for position, token in reversed(duckdb.tokenize(sql)):
        if token == duckdb.token_type.comment or text[position:end].rstrip() == b";":
            end = position
        else:
            break
    return text[:end].decode().strip()


def _check_tree(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Looks through the syntax tree, as JSON, for what would do more than read.

    The words are found in the text itself: quotes inside of literals are escaped there, so that nothing can
    pass for a key, and no depth of nesting matters. Only table functions need the tree.
    """
    row = cursor.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchone()
    text: str = row[0] if row else ""
    kinds = set(_NODE_KIND.findall(text))
    if not text.startswith('{"error":false,') or not kinds:
        raise refused("only SELECT statements are run")
    if not kinds <= _READING_NODES:
        raise refused("a WITH clause that writes is refused")
    effects = _SCALARS_WITH_EFFECT & {name.lower() for name in _FUNCTION_NAME.findall(text)}
    if effects:
        raise refused(f"the function {min(effects)} is refused")
    if _TABLE_FUNCTION in text or any(f'"function_name":"{name}"' in text.lower() for name in _INFLATING):
        _check_functions(text)


def _check_functions(text: str) -> None:
    try:
        tree = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise QueryError("the SQL is nested too deeply", hint="take it apart") from None
    size = 1
    for node in _nodes(tree):
        if node.get("class") == "FUNCTION" and str(node.get("function_name")).lower() in _INFLATING:
            size *= _inflation(node)
            if size > MAX_INFLATION:
                raise QueryError(
                    f"a text made more than {MAX_INFLATION} times as long is refused",
                    hint="give repeat, lpad, rpad, bitstring, printf and format a small, literal length,"
                    " replace and regexp_replace a short, literal replacement",
                    code="RESULT_TOO_LARGE",
                )
        if node.get("type") == "TABLE_FUNCTION":
            name = str(node["function"]["function_name"]).lower()
            if name not in TABLE_FUNCTIONS:
                raise refused(f"the table function {name} is refused", hint="read tables of the database")


def _inflation(call: dict[str, Any]) -> int:
    """How many times as long a call can make its text; `_UNKNOWN` where no literal says so."""
    arguments = [each.get("expression", each) for each in call.get("arguments", call.get("children", ()))]
    name = str(call["function_name"]).lower()
    if name in {"printf", "format"}:
        pattern = _literal(arguments[0]) if arguments else None
        if pattern is None or "*" in pattern or "{:{" in pattern:
            return _UNKNOWN
        widths = [int(digits[:9]) for digits in re.findall(r"\d+", pattern)]
        return max(1, *widths) if widths else 1
    if name in {"replace", "regexp_replace"}:
        filled = _literal(arguments[2]) if len(arguments) > 2 else None
        return _UNKNOWN if filled is None else max(1, len(filled))
    length = _literal(arguments[1]) if len(arguments) > 1 else None
    if length is None or not length.isdecimal():
        return _UNKNOWN
    return max(1, int(length[:9]))


def _literal(node: dict[str, Any]) -> str | None:
    """The text of a literal, casts aside; None for anything else."""
    while node.get("class") == "CAST":
        node = node["child"]
    if node.get("class") != "CONSTANT":
        return None
    text = node.get("literal", {}).get("text")
    return str(text) if text is not None else None


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree; iterative, since it may be deep."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
