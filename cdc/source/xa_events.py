"""What the events of XA transactions do to a reader: they are kept, and count from their commit on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cdc.errors import BinlogError, SchemaMismatchError
from cdc.schema import Table
from cdc.source import events
from cdc.source.batcher import Batcher, FlushReason
from cdc.source.binlog import Stretch
from cdc.source.boundaries import Boundaries
from cdc.source.targets import Targets
from cdc.source.transaction import OpenTransaction
from cdc.source.xa import XaTransactions, xid_of_statement


class XaEvents:
    """Has `transactions` keep them; `replay` reads what was kept as if it stood here: True ends the stream."""

    def __init__(
        self,
        transactions: XaTransactions,
        transaction: OpenTransaction,
        batcher: Batcher,
        boundaries: Boundaries,
        targets: Targets,
        replay: Callable[[Iterable[Stretch]], bool],
    ) -> None:
        self._transactions = transactions
        self._transaction = transaction
        self._batcher = batcher
        self._boundaries = boundaries
        self._targets = targets
        self._replay = replay

    def keeps(self, kind: int, body: bytes, timestamp: int, server_id: int) -> bool:
        """Whether an event belongs to the XA transaction that is being read, and is kept for its commit."""
        if kind not in events.ROWS and kind not in (events.TABLE_MAP, events.QUERY, events.QUERY_COMPRESSED):
            return False
        if kind == events.QUERY and events.read_query(body).statement[:7].upper() == b"XA END ":
            return True
        if self._transactions.record(kind, body, timestamp, server_id):
            # The position stays before it: should it end here, what was kept is replaced by the next attempt.
            reason = self._batcher.full()
            if reason is not None:
                self._boundaries.flush_before(reason)
        return True

    def prepared(self, body: bytes, timestamp: int) -> bool:
        """An XA_PREPARE event: the transaction's end, or (first byte) its commit in one phase."""
        xid = self._transactions.recording
        if xid is None:
            raise _unreadable("an XA transaction ends that did not begin")
        self._transactions.end()
        return self._commit(xid, timestamp) if body[0] else self._boundaries.conclude(timestamp)

    def statement(self, statement: str, timestamp: int) -> bool:
        """XA START, COMMIT or ROLLBACK, as the log has them."""
        word = statement[3:12].upper()
        try:
            xid = xid_of_statement(statement)
        except ValueError:
            raise _unreadable("an XA statement names no transaction") from None
        if word.startswith("START"):
            self._transaction.is_open = True
            self._transactions.begin(xid)
            return False
        if word.startswith("COMMIT"):
            return self._commit(xid, timestamp)
        if not word.startswith("ROLLBACK"):
            raise _unreadable("an XA statement is not known")
        self._transactions.decide(xid)
        return self._boundaries.conclude(timestamp)

    def _commit(self, xid: str, timestamp: int) -> bool:
        """The rows that were prepared count from here on."""
        found = self._transactions.events(xid, lambda: self._boundaries.flush_before(FlushReason.BARRIER))
        if found is None:
            for table in self._targets.tables.values():
                raise _unknown(table)
        else:
            self._transaction.is_open = True
            if self._replay(found):
                return True
        self._transactions.decide(xid)
        return self._boundaries.conclude(timestamp)


def _unknown(table: Table) -> SchemaMismatchError:
    return SchemaMismatchError(
        "an XA transaction was committed that was prepared before the copy began;"
        f" table {table.name} may have rows of it",
        hint=f"the table is copied again; by hand: POST /sync/table/{table.name}",
        table=table.name,
        code="XA_UNKNOWN",
    )


def _unreadable(what: str) -> BinlogError:
    return BinlogError(what, hint="the source's binary log may be damaged")
