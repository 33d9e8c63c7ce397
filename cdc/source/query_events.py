"""What the statements in the log do to a reader: transactions end, rows are undone, the schema changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from cdc.errors import SchemaMismatchError
from cdc.schema import NameCase
from cdc.source import events
from cdc.source.boundaries import Boundaries
from cdc.source.ddl import read_statement
from cdc.source.logged_statements import words_of
from cdc.source.targets import Targets
from cdc.source.transaction import OpenTransaction
from cdc.source.xa_events import XaEvents
from cdc.values.charsets import decoder


class QueryEvents:
    """Takes the statements of the log for what they mean to the captured tables of `schema`.

    `reach` gives the keys of captured tables that a statement with certain words may have changed, None for any.
    `collations` are the source's.
    """

    def __init__(
        self,
        transaction: OpenTransaction,
        boundaries: Boundaries,
        xa: XaEvents,
        targets: Targets,
        *,
        schema: str,
        names: NameCase,
        collations: Mapping[int, str],
        reach: Callable[[frozenset[str]], Iterable[str] | None],
    ) -> None:
        self.alters = True
        """Whether an ALTER that follows is carried out: MariaDB may announce one, and take it back."""
        self._transaction = transaction
        self._boundaries = boundaries
        self._xa = xa
        self._targets = targets
        self._schema = schema
        self._names = names
        self._collations = collations
        self._reach = reach

    def take(self, body: bytes, timestamp: int) -> bool:
        """Takes in a QUERY event behind its header. True ends the stream.

        Raises BinlogError where what it undoes was applied, SchemaMismatchError where it changed rows itself.
        """
        query = events.read_query(body)
        transaction = self._transaction
        if query.statement == b"BEGIN":
            transaction.is_open = True
            return False
        statement = self._text(query)
        word = statement[:9].upper().rstrip(" ;")
        if word == "COMMIT":
            return self._boundaries.conclude(timestamp)
        if word == "ROLLBACK":
            if statement.rstrip(" ;").upper() == "ROLLBACK":
                transaction.roll_back()
                return self._boundaries.conclude(timestamp)
            transaction.roll_back_to(statement)
            return False
        if word == "SAVEPOINT":
            transaction.set_savepoint(statement)
            return False
        if word[:3] == "XA ":
            return self._xa.statement(statement, timestamp)
        self._change(query, statement)
        return not transaction.is_open and self._boundaries.conclude(timestamp)

    def _text(self, query: events.Query) -> str:
        """The statement as text; it stands in the log in the character set of the session that sent it."""
        character_set = self._collations.get(query.collation) if query.collation is not None else None
        if character_set is None or character_set == "binary":
            return query.statement.decode("utf-8", "replace")
        return decoder(character_set)(query.statement)

    def _change(self, query: events.Query, statement: str) -> None:
        """A statement of which only the text tells what it changed: the schema, rows, nothing of ours."""
        change = None
        if self.alters:
            change = read_statement(statement, query.schema, self._schema, self._names, query.sql_mode)
        if (change is not None and change.is_data) or statement[:6].upper() == "SELECT":
            self._lose_rows(statement)
        elif change is not None:
            beside_rows = self._transaction.is_open or change.opens_transaction
            self._boundaries.expect(replace(change, beside_rows=beside_rows))
            if change.opens_transaction:
                self._transaction.is_open = True

    def _lose_rows(self, statement: str) -> None:
        """Rows were changed that stand in no event: a table that may have them leaves the stream for a new copy."""
        reached = self._reach(words_of(statement, self._names))
        for key, table in self._targets.tables.items():
            if reached is None or key in reached:
                raise SchemaMismatchError(
                    f"a statement in the binary log changed rows that table {table.name} may have had:"
                    " some session writes with binlog_format STATEMENT or MIXED",
                    hint="the table is copied again; set binlog_format = ROW for every session",
                    table=table.name,
                    code="STATEMENT_LOGGED",
                )
