"""The sample shop: five tables with the shapes that matter, and 200,000 rows made from a seed.

A number as key (customers, orders), a text (products), two columns (order_lines), and no key at all (events);
JSON, decimals, enumerations, sets, times and emoji.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice

from pymysql.connections import Connection

ROWS = 200_000

MARK = "sample shop of duckling demo"
"""The comment of the table customers: by it the demo knows a database as its own."""

TABLES = {
    "customers": f"""(
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
        name VARCHAR(120) NOT NULL,
        email VARCHAR(190) NOT NULL,
        preferences JSON,
        newsletter TINYINT(1) NOT NULL DEFAULT 0,
        note TEXT,
        created_at DATETIME(6) NOT NULL,
        UNIQUE KEY (email)
    ) COMMENT '{MARK}'""",
    "products": """(
        sku VARCHAR(20) NOT NULL PRIMARY KEY,
        title VARCHAR(200) NOT NULL,
        price DECIMAL(12, 2) NOT NULL,
        category ENUM('books', 'garden', 'kitchen', 'music', 'toys') NOT NULL,
        labels SET('new', 'sale', 'fragile', 'bulky') NOT NULL,
        weight DOUBLE,
        stock INT NOT NULL
    )""",
    "orders": """(
        id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
        customer_id BIGINT UNSIGNED NOT NULL,
        status ENUM('open', 'paid', 'shipped', 'returned') NOT NULL DEFAULT 'open',
        total DECIMAL(14, 2) NOT NULL DEFAULT 0,
        placed_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
        due DATE,
        updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
        KEY (customer_id)
    )""",
    "order_lines": """(
        order_id BIGINT UNSIGNED NOT NULL,
        line INT UNSIGNED NOT NULL,
        sku VARCHAR(20) NOT NULL,
        quantity SMALLINT UNSIGNED NOT NULL,
        unit_price DECIMAL(12, 2) NOT NULL,
        discount DECIMAL(5, 4),
        PRIMARY KEY (order_id, line)
    )""",
    "events": """(
        at DATETIME(6) NOT NULL,
        kind VARCHAR(40) NOT NULL,
        customer_id BIGINT UNSIGNED,
        payload JSON,
        KEY (at)
    )""",
}

FIRST_ORDER = 1_000_000
"""The first order's number; those below are free for orders that get another one."""

_SHARES = {"customers": 0.1, "products": 0.01, "orders": 0.2, "order_lines": 0.49, "events": 0.2}

_FIRST = (
    "Ada",
    "Björn",
    "Chloë",
    "Dmitri",
    "Eşref",
    "Fatima",
    "Grażyna",
    "Håkon",
    "李雷",
    "さくら",
    "Zoë 🦆",
)
_LAST = (
    "Lovelace",
    "Ångström",
    "O’Brien",
    "Müller",
    "Nguyễn",
    "Иванов",
    "García",
    "👩🏽‍🔬 Curie",
    "김",
    "Šimić",
)
_THINGS = (
    "Lamp",
    "Teapot ☕",
    "Piano",
    "Spade",
    "Puzzle 🧩",
    "Atlas",
    "Kettle",
    "Ukulele 🎸",
    "Kite 🪁",
    "Rake",
)
_KINDS = ("page_view", "search", "add_to_cart", "login", "review ⭐")
_THEMES = ("light", "dark", "🌈")
_CATEGORIES = ("books", "garden", "kitchen", "music", "toys")
_LABELS = ("", "new", "sale", "new,sale", "fragile", "sale,fragile,bulky")
_STATES = ("open", "paid", "paid", "shipped", "shipped", "shipped", "returned")
_OPENING = datetime(2024, 1, 1)
_ROWS_A_STATEMENT = 2_000


def create_tables(connection: Connection) -> None:
    """Creates the five empty tables in the session's database."""
    with connection.cursor() as cursor:
        for name, definition in TABLES.items():
            cursor.execute(f"CREATE TABLE {name} {definition} ENGINE=InnoDB DEFAULT CHARSET=utf8mb4")


def table_sizes(rows: int = ROWS) -> dict[str, int]:
    """How many rows each table gets of `rows` in all."""
    sizes = {name: max(10, int(rows * share)) for name, share in _SHARES.items()}
    sizes["events"] += rows - sum(sizes.values())
    return sizes


def fill_tables(
    connection: Connection,
    *,
    rows: int = ROWS,
    seed: int = 1,
    progress: Callable[[str, int], None] = lambda _table, _rows: None,
) -> int:
    """Fills the empty tables with `rows` rows (50 or more), the same for the same seed; returns their number.

    `progress(table, rows so far)` is called after each statement. The session is in autocommit mode.
    """
    sizes = table_sizes(rows)
    makers = {
        "customers": _customers,
        "products": _products,
        "orders": _orders,
        "order_lines": _order_lines,
        "events": _events,
    }
    with connection.cursor() as cursor:
        for table, make in makers.items():
            # Each table has its own numbers, so that a change in one leaves the others as they are.
            literals = make(random.Random(f"{seed} {table}"), sizes)
            done = 0
            while chunk := list(islice(literals, _ROWS_A_STATEMENT)):
                cursor.execute(f"INSERT INTO {table} VALUES {','.join(chunk)}")
                done += len(chunk)
                progress(table, done)
    return sum(sizes.values())


def customer_name(random: random.Random) -> str:
    """A name as customers have it: of any script, with emoji."""
    return f"{random.choice(_FIRST)} {random.choice(_LAST)}"


def preferences(random: random.Random) -> str:
    """A JSON object as customers have it."""
    theme, size = random.choice(_THEMES), random.randrange(8, 24)
    return (
        f'{{"theme": "{theme}", "font": {{"size": {size}, "scale": {size / 8}}}, "tags": ["a", null, true]}}'
    )


# Each maker yields rows as SQL literals. They hold no quote and no backslash, so that they need no escaping,
# which would take longer than the server does.


def _customers(random: random.Random, sizes: dict[str, int]) -> Iterator[str]:
    for number in range(1, sizes["customers"] + 1):
        chosen = f"'{preferences(random)}'" if random.random() < 0.9 else "NULL"
        note = "NULL" if random.random() < 0.7 else f"'{'likes ducks 🦆 ' * random.randrange(1, 9)}'"
        yield (
            f"({number},'{customer_name(random)}','customer{number}@example.com',{chosen},"
            f"{random.randrange(2)},{note},'{_moment(random)}')"
        )


def _products(random: random.Random, sizes: dict[str, int]) -> Iterator[str]:
    for number in range(sizes["products"]):
        weight = "NULL" if random.random() < 0.1 else repr(random.random() * 40)
        yield (
            f"('{sku(number)}','{random.choice(_THINGS)} {number}',{_price(random)},"
            f"'{random.choice(_CATEGORIES)}','{random.choice(_LABELS)}',{weight},{random.randrange(500)})"
        )


def _orders(random: random.Random, sizes: dict[str, int]) -> Iterator[str]:
    for number in range(FIRST_ORDER, FIRST_ORDER + sizes["orders"]):
        moment = _moment(random)
        due = "NULL" if random.random() < 0.2 else f"'{moment[:10]}'"
        yield (
            f"({number},{random.randrange(1, sizes['customers'] + 1)},'{random.choice(_STATES)}',"
            f"{_price(random)},'{moment}',{due},'{moment[:19]}')"
        )


def _order_lines(random: random.Random, sizes: dict[str, int]) -> Iterator[str]:
    orders = sizes["orders"]
    for number in range(sizes["order_lines"]):
        discount = "NULL" if random.random() < 0.8 else f"0.{random.randrange(10_000):04}"
        product = sku(random.randrange(sizes["products"]))
        yield (
            f"({FIRST_ORDER + number % orders},{number // orders + 1},'{product}',"
            f"{random.randrange(1, 9)},{_price(random)},{discount})"
        )


def _events(random: random.Random, sizes: dict[str, int]) -> Iterator[str]:
    row = ""
    for number in range(sizes["events"]):
        # Now and then the same row again: nothing but its count tells the two apart.
        if number % 50 == 0 or not row:
            row = _event(random, sizes)
            yield row
        elif number % 50 == 1:
            yield row
        else:
            yield _event(random, sizes)


def _event(random: random.Random, sizes: dict[str, int]) -> str:
    customer = "NULL" if random.random() < 0.3 else str(random.randrange(1, sizes["customers"] + 1))
    payload = "NULL" if random.random() < 0.1 else f'\'{{"ms": {random.randrange(3000)}, "path": "/p/🦆"}}\''
    return f"('{_moment(random)}','{random.choice(_KINDS)}',{customer},{payload})"


def sku(number: int) -> str:
    """The key of a product."""
    return f"SKU-{number:06}"


def _price(random: random.Random) -> str:
    return f"{random.randrange(100_000)}.{random.randrange(100):02}"


def _moment(random: random.Random) -> str:
    moment = _OPENING + timedelta(microseconds=random.randrange(600 * 86_400_000_000))
    return moment.isoformat(" ", "microseconds")
