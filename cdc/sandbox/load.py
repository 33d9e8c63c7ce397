"""A live load on the sample shop: transactions of every kind, at a given rate, from one thread."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pymysql
from pymysql.cursors import Cursor

from cdc.errors import SourceUnavailableError
from cdc.sandbox import shop
from cdc.sandbox.databases import connect

_EXPECTED_ERRORS = {1062, 1205, 1213}
"""ER_DUP_ENTRY: a new number is taken; ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK: several loads meet in a row.
The transaction is rolled back."""


@dataclass(slots=True)
class LoadFigures:
    """What a load has done: committed transactions and the rows that they changed; transactions undone."""

    transactions: int = 0
    rows: int = 0
    rollbacks: int = 0
    seconds: float = 0.0


class Load:
    """`start`, then `stop`. `rate` is transactions a second (0: as many as the server takes).

    With `survive`, a lost connection is made anew, for tests that restart the source; otherwise `stop` raises
    what ended the thread. Two loads at a time need different seeds.
    """

    def __init__(self, url: str, *, rate: float = 300.0, seed: int = 1, survive: bool = False) -> None:
        self.url = url
        self.rate = rate
        self.survive = survive
        self.figures = LoadFigures()
        self._random = random.Random(seed)
        self._marker = f"load{seed}-{time.time_ns():x}"
        self._serial = 0
        self._stopping = threading.Event()
        self._progress = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"shop-load-{seed}", daemon=True)
        self._most: dict[str, int] = {}

    def start(self) -> Load:
        """Begins; returns at once."""
        self._thread.start()
        return self

    def end(self) -> None:
        """Ends after the transaction in hand; its error, if there is one, is left to `stop`."""
        self._stopping.set()
        self._thread.join()

    def stop(self) -> LoadFigures:
        """As `end`. Raises the error that ended the load before, if one did."""
        self.end()
        self.check()
        return self.figures

    def check(self) -> None:
        """Raises the error that ended the load, if one did."""
        if self._error is not None:
            raise self._error

    def wait_for(self, transactions: int, timeout: float = 60.0) -> None:
        """Returns when so many transactions are committed. Raises TimeoutError, or the load's error."""
        with self._progress:
            done = self._progress.wait_for(
                lambda: self.figures.transactions >= transactions or self._error is not None, timeout
            )
        if self._error is not None:
            raise self._error
        if not done:
            raise TimeoutError(
                f"the load committed {self.figures.transactions} of {transactions} transactions"
            )

    def __enter__(self) -> Load:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            while not self._stopping.is_set():
                try:
                    self._work(began)
                except (pymysql.MySQLError, SourceUnavailableError):
                    if not self.survive:
                        raise
                    self._stopping.wait(0.1)
        except BaseException as error:  # noqa: BLE001 - raised by stop, in the caller's thread
            self._error = error
        with self._progress:
            self._progress.notify_all()

    def _work(self, began: float) -> None:
        connection = connect(self.url, autocommit=False)
        try:
            with connection.cursor() as cursor:
                self._most = {table: _highest(cursor, table) for table in ("customers", "orders")}
                self._most["products"] = _count(cursor, "products")
                connection.commit()
                while not self._stopping.is_set():
                    try:
                        rows = self._transaction(cursor)
                    except (pymysql.OperationalError, pymysql.IntegrityError) as error:
                        if error.args[0] not in _EXPECTED_ERRORS:
                            raise
                        rows = None
                    if rows is None:
                        connection.rollback()
                    else:
                        connection.commit()
                    self._count(rows, began)
                    self._pace(began)
        finally:
            connection.close()

    def _count(self, rows: int | None, began: float) -> None:
        with self._progress:
            self.figures.seconds = time.monotonic() - began
            if rows is None:
                self.figures.rollbacks += 1
            else:
                self.figures.transactions += 1
                self.figures.rows += rows
            self._progress.notify_all()

    def _pace(self, began: float) -> None:
        if self.rate:
            due = began + (self.figures.transactions + self.figures.rollbacks) / self.rate
            pause = due - time.monotonic()
            if pause > 0:
                self._stopping.wait(pause)

    def _transaction(self, cursor: Cursor) -> int | None:
        """Runs one; the number of changed rows, or None where it is to be rolled back."""
        kinds: list[tuple[int, Callable[[Cursor], int | None]]] = [
            (30, self._order),
            (20, self._advance),
            (8, self._prefer),
            (8, self._reprice),
            (7, self._cancel),
            (6, self._move_line),
            (2, self._renumber),
            (6, self._forget_event),
            (4, self._amend_event),
            (3, self._replace_customer),
            (5, self._abandon),
            (1, self._sale),
        ]
        [(_, run)] = self._random.choices(kinds, weights=[weight for weight, _ in kinds])
        return run(cursor)

    def _any(self, table: str) -> int:
        first = shop.FIRST_ORDER if table == "orders" else 1
        return self._random.randrange(first, max(first, self._most[table]) + 1)

    def _sku(self) -> str:
        return shop.sku(self._random.randrange(self._most["products"]))

    def _order(self, cursor: Cursor) -> int:
        """A new order: rows of four tables in one transaction."""
        rows: int = cursor.execute(
            "INSERT INTO orders (customer_id, due) VALUES (%s, CURRENT_DATE)", (self._any("customers"),)
        )
        order = self._most["orders"] = cursor.lastrowid
        for line in range(1, self._random.randrange(2, 6)):
            rows += cursor.execute(
                "INSERT INTO order_lines SELECT %s, %s, sku, %s, price, NULL FROM products WHERE sku = %s",
                (order, line, self._random.randrange(1, 5), self._sku()),
            )
        rows += cursor.execute(
            "UPDATE orders SET total = COALESCE((SELECT SUM(quantity * unit_price) FROM order_lines"
            " WHERE order_id = %s), 0) WHERE id = %s",
            (order, order),
        )
        rows += cursor.execute("UPDATE products SET stock = stock - 1 WHERE sku = %s", (self._sku(),))
        rows += cursor.execute(
            "INSERT INTO events VALUES (NOW(6), 'ordered 🛒', %s, JSON_OBJECT('order', %s))",
            (self._any("customers"), order),
        )
        return rows

    def _advance(self, cursor: Cursor) -> int:
        status = self._random.choice(("paid", "shipped", "returned"))
        rows: int = cursor.execute(
            "UPDATE orders SET status = %s WHERE id = %s", (status, self._any("orders"))
        )
        return rows + int(cursor.execute("INSERT INTO events VALUES (NOW(6), %s, NULL, NULL)", (status,)))

    def _prefer(self, cursor: Cursor) -> int:
        values = (shop.preferences(self._random), self._random.randrange(2), self._any("customers"))
        return int(
            cursor.execute("UPDATE customers SET preferences = %s, newsletter = %s WHERE id = %s", values)
        )

    def _reprice(self, cursor: Cursor) -> int:
        values = (self._random.choice(("0.97", "1.02", "1.05")), self._sku())
        return int(cursor.execute("UPDATE products SET price = price * %s WHERE sku = %s", values))

    def _cancel(self, cursor: Cursor) -> int:
        order = self._any("orders")
        rows: int = cursor.execute("DELETE FROM order_lines WHERE order_id = %s", (order,))
        return rows + int(cursor.execute("DELETE FROM orders WHERE id = %s", (order,)))

    def _move_line(self, cursor: Cursor) -> int:
        """A key update: a part of the composite key changes."""
        return int(
            cursor.execute(
                "UPDATE order_lines SET line = line + 100 WHERE order_id = %s ORDER BY line DESC LIMIT 1",
                (self._any("orders"),),
            )
        )

    def _renumber(self, cursor: Cursor) -> int:
        """Key updates in two tables: an order and its lines get another number, which was unused.

        The numbers below the first leave the server's AUTO_INCREMENT alone.
        """
        old, new = self._any("orders"), self._random.randrange(1, shop.FIRST_ORDER)
        rows: int = cursor.execute("UPDATE orders SET id = %s WHERE id = %s", (new, old))
        return rows + int(
            cursor.execute("UPDATE order_lines SET order_id = %s WHERE order_id = %s", (new, old))
        )

    def _forget_event(self, cursor: Cursor) -> int:
        """Deletes from the table without a key."""
        limit = self._random.randrange(1, 4)
        return int(cursor.execute("DELETE FROM events ORDER BY at LIMIT %s", (limit,)))

    def _amend_event(self, cursor: Cursor) -> int:
        """Updates in the table without a key."""
        return int(cursor.execute("UPDATE events SET kind = 'seen 👀' ORDER BY at LIMIT 2"))

    def _replace_customer(self, cursor: Cursor) -> int:
        """A row deleted and inserted again under the same key, in one transaction."""
        self._serial += 1
        customer = self._any("customers")
        rows: int = cursor.execute("DELETE FROM customers WHERE id = %s", (customer,))
        email = f"{self._marker}-{self._serial}@example.com"
        return rows + int(
            cursor.execute(
                "INSERT INTO customers VALUES (%s, %s, %s, NULL, 1, NULL, NOW(6))",
                (customer, shop.customer_name(self._random), email),
            )
        )

    def _abandon(self, cursor: Cursor) -> None:
        """Work that is rolled back, all of it."""
        self._order(cursor)
        self._cancel(cursor)

    def _sale(self, cursor: Cursor) -> int:
        """Hundreds of rows by one statement."""
        return int(
            cursor.execute(
                "UPDATE products SET labels = 'sale', stock = stock + 1 WHERE category = %s",
                (self._random.choice(("books", "garden", "kitchen", "music", "toys")),),
            )
        )


def _highest(cursor: Cursor, table: str) -> int:
    cursor.execute(f"SELECT COALESCE(MAX(id), 1) FROM {table}")
    return int(cursor.fetchone()[0])


def _count(cursor: Cursor, table: str) -> int:
    cursor.execute(f"SELECT COUNT(*) FROM {table}")
    return int(cursor.fetchone()[0])
