"""Steps of generated tests: each changes one or two tables of a trial, whatever these look like by then.

A step holds small numbers that choose among what there is when it is taken, so that a sequence stays
meaningful when steps before it are taken away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cdc.schema import quote_mysql
from tests.schema.columns import SourceColumn, SourceTable, literal, read_tables
from tests.schema.shapes import SHAPES
from tests.schema.trial import Trial

T = TypeVar("T")

NAMES = ("one", "two", "three", "four", "Five 5", "sel`ect")
"""Names that tables may bear; more of them than tables."""
_ROWS = 4
_DATES = ("date", "datetime", "timestamp")


class Step(Protocol):
    """Anything that can be done to a trial."""

    def __call__(self, trial: Trial) -> None: ...


def pick(among: Sequence[T], number: int) -> T:
    """One of them, by number, whatever the number."""
    return among[number % len(among)]


@dataclass(frozen=True)
class Nothing:
    """The simplest step: what a failing sequence is mostly made of, once it is shrunk."""

    def __call__(self, trial: Trial) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class Do:
    """What happens to the replica: the name of a method of `Trial`."""

    what: str

    def __call__(self, trial: Trial) -> None:
        getattr(trial, self.what)()


@dataclass(frozen=True)
class Backlog:
    """Steps that the replica sleeps through: it starts when the source's catalogue has moved on."""

    steps: tuple[Step, ...]

    def __call__(self, trial: Trial) -> None:
        trial.stop()
        for step in self.steps:
            step(trial)
        trial.start()


@dataclass(frozen=True)
class Crash:
    """Steps under a service that is killed right behind the last of them, wherever it stands by then."""

    steps: tuple[Step, ...]

    def __call__(self, trial: Trial) -> None:
        trial.serve()
        for step in self.steps:
            step(trial)
        trial.kill()


@dataclass(frozen=True)
class Rows:
    """Rows that come, change and go in one transaction over up to two tables; it may be rolled back."""

    table: int
    other: int
    seed: int
    commit: bool

    def __call__(self, trial: Trial) -> None:
        tables = read_tables(trial.connection)
        if not tables:
            return
        trial.execute("BEGIN")
        for table in (pick(tables, self.table), pick(tables, self.other)):
            self._insert(trial, table)
            self._update(trial, table)
            if self.seed % 3 == 0:
                order = ", ".join(quote_mysql(column.name) for column in table.columns)
                trial.execute(f"DELETE FROM {table.quoted} ORDER BY {order} LIMIT 1")
        trial.execute("COMMIT" if self.commit else "ROLLBACK")

    def _insert(self, trial: Trial, table: SourceTable) -> None:
        columns = [column for column in table.columns if not column.generated and not column.automatic]
        if not columns:
            return
        rows = [
            ", ".join(_value(column, self.seed * 7 + row * 11 + at) for at, column in enumerate(columns))
            for row in range(_ROWS)
        ]
        names = ", ".join(quote_mysql(column.name) for column in columns)
        values = ", ".join(f"({row})" for row in rows)
        trial.execute(f"INSERT IGNORE INTO {table.quoted} ({names}) VALUES {values}")

    def _update(self, trial: Trial, table: SourceTable) -> None:
        columns = [column for column in table.columns if not column.generated]
        if not columns:
            return
        column = pick(columns, self.seed)
        order = ", ".join(quote_mysql(each.name) for each in table.columns)
        trial.execute(
            f"UPDATE IGNORE {table.quoted} SET {quote_mysql(column.name)} = {_value(column, self.seed + 3)}"
            f" ORDER BY {order} LIMIT 2"
        )


def _value(column: SourceColumn, seed: int) -> str:
    if column.key and column.data_type.endswith("int"):
        return str(seed % 97)
    if column.key and column.data_type in ("char", "varchar"):
        return f"'k{seed % 61}'"
    if column.nullable and seed % 5 == 0:
        return "NULL"
    return literal(column.column_type, seed)


@dataclass(frozen=True)
class Alter:
    """One ALTER TABLE of one or more clauses; each clause is (kind, numbers), see `_CLAUSES`."""

    table: int
    clauses: tuple[tuple[str, int, int, str], ...]
    mode: str = ""
    """Statements that are run before it, in the same session."""

    def __call__(self, trial: Trial) -> None:
        tables = read_tables(trial.connection)
        if not tables:
            return
        table = pick(tables, self.table)
        parts = [
            _clause(table, kind, column, number, kind_of) for kind, column, number, kind_of in self.clauses
        ]
        if self.mode:
            trial.execute(f"SET SESSION {self.mode}")
        trial.execute(f"ALTER TABLE {table.quoted} {', '.join(parts)}")
        if self.mode:
            trial.execute(f"SET SESSION {self.mode.split('=')[0]} = DEFAULT")
            trial.execute("SET time_zone = '+00:00'")


def _clause(table: SourceTable, kind: str, number: int, seed: int, column_type: str) -> str:
    """The text of one clause."""
    indexed = kind in ("add_key", "change_key", "partition")
    # A date that the calendar lacks has no place in a key of the copy.
    fit = [each for each in table.columns if not indexed or each.data_type not in _DATES]
    column = pick(fit or table.columns, number)
    name = quote_mysql(column.name)
    fresh = quote_mysql(f"c{seed % 4}" if seed % 5 else f"c {seed}")
    place = pick(("", " FIRST", f" AFTER {name}"), seed)
    default = literal(column_type, seed)
    keyed = ", ".join(quote_mysql(each) for each in table.key)
    match kind:
        case "add":
            return f"ADD COLUMN {fresh} {column_type}{place}"
        case "add_default":
            return f"ADD COLUMN {fresh} {column_type} DEFAULT {default}{place}"
        case "add_not_null":
            kept = column_type.removesuffix(" NULL")
            return f"ADD COLUMN {fresh} {kept} NOT NULL" + (f" DEFAULT {default}" if seed % 2 else "") + place
        case "add_now":
            return f"ADD COLUMN {fresh} DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3){place}"
        case "add_expression":
            return f"ADD COLUMN {fresh} VARCHAR(60) DEFAULT (CONCAT('a', {seed % 3}))"
        case "add_several":
            return f"ADD COLUMN ({fresh} {column_type}, d1 INT DEFAULT 7, d2 VARCHAR(9) DEFAULT 'd, (2)')"
        case "add_generated":
            stored = pick(("STORED", "VIRTUAL"), seed)
            return f"ADD COLUMN {fresh} INT GENERATED ALWAYS AS (CHAR_LENGTH({name})) {stored}{place}"
        case "add_automatic":
            return f"ADD COLUMN {fresh} INT AUTO_INCREMENT PRIMARY KEY{place}"
        case "drop":
            return f"DROP COLUMN {name}"
        case "rename":
            return f"RENAME COLUMN {name} TO {fresh}"
        case "rename_case":
            return f"RENAME COLUMN {name} TO {quote_mysql(column.name.swapcase())}"
        case "rename_swap":
            other = quote_mysql(pick(table.columns, number + 1).name)
            return f"RENAME COLUMN {name} TO {other}, RENAME COLUMN {other} TO {name}"
        case "modify":
            return f"MODIFY COLUMN {name} {column_type}{place}"
        case "modify_same":
            null = "" if column.nullable else " NOT NULL"
            return f"MODIFY {name} {column.column_type}{null} COMMENT 'moved, or not'{place}"
        case "change":
            return f"CHANGE COLUMN {name} {fresh} {column_type}{place}"
        case "set_default":
            return f"ALTER COLUMN {name} SET DEFAULT {literal(column.column_type, seed)}"
        case "drop_key":
            return "DROP PRIMARY KEY"
        case "add_key":
            return f"ADD PRIMARY KEY ({name})"
        case "change_key":
            return f"DROP PRIMARY KEY, ADD PRIMARY KEY ({', '.join(filter(None, (keyed, name)))})"
        case "index":
            return f"ADD INDEX {fresh} ({name})"
        case "convert":
            return f"CONVERT TO CHARACTER SET {pick(('latin1', 'utf8mb4', 'utf8mb3', 'utf16'), seed)}"
        case "character_set":
            return f"DEFAULT CHARACTER SET {pick(('latin1', 'utf8mb4'), seed)}"
        case "comment":
            return f"COMMENT = 'RENAME TO x, DROP COLUMN {seed}'"
        case "rebuild":
            return pick(("ENGINE = InnoDB", "FORCE", "ROW_FORMAT = DYNAMIC", "AUTO_INCREMENT = 1000"), seed)
        case "rename_to":
            return f"RENAME TO {quote_mysql(pick(NAMES, seed))}"
        case "drop_partition":
            return f"DROP PARTITION {pick(table.partitions or ('low',), seed)}"
        case "truncate_partition":
            return f"TRUNCATE PARTITION {pick(table.partitions or ('low',), seed)}"
        case "add_partition":
            return f"ADD PARTITION (PARTITION p{seed} VALUES LESS THAN ({seed * 100}))"
        case "remove_partitioning":
            return "REMOVE PARTITIONING"
        case "partition":
            return f"PARTITION BY HASH ({name}) PARTITIONS 3"
    raise ValueError(kind)


CLAUSES = [
    "add",
    "add_default",
    "add_not_null",
    "add_now",
    "add_expression",
    "add_several",
    "add_generated",
    "add_automatic",
    "drop",
    "rename",
    "rename_case",
    "rename_swap",
    "modify",
    "modify_same",
    "change",
    "set_default",
    "drop_key",
    "add_key",
    "change_key",
    "index",
    "convert",
    "character_set",
    "comment",
    "rebuild",
    "rename_to",
    "drop_partition",
    "truncate_partition",
    "add_partition",
    "remove_partitioning",
    "partition",
]


@dataclass(frozen=True)
class Rename:
    """RENAME TABLE: to a free name, two swapped, or three in a ring."""

    table: int
    number: int
    how: str

    def __call__(self, trial: Trial) -> None:
        tables = read_tables(trial.connection)
        free = [name for name in NAMES if name not in {table.name for table in tables}]
        if len(tables) < 2 or not free:
            return
        first, second = pick(tables, self.table), pick(tables, self.table + 1)
        spare = quote_mysql(pick(free, self.number))
        pairs = {
            "free": [(first.quoted, spare)],
            "swap": [(first.quoted, spare), (second.quoted, first.quoted), (spare, second.quoted)],
            "shift": [(first.quoted, spare), (second.quoted, first.quoted)],
        }[self.how]
        trial.execute("RENAME TABLE " + ", ".join(f"{old} TO {new}" for old, new in pairs))


@dataclass(frozen=True)
class Empty:
    """A table that is emptied or dropped; a dropped one comes back with another shape, at once or never."""

    table: int
    number: int
    how: str

    def __call__(self, trial: Trial) -> None:
        tables = read_tables(trial.connection)
        if not tables:
            return
        table = pick(tables, self.table).quoted
        shape = pick(SHAPES, self.number).format(t=table)
        if self.how == "truncate":
            trial.execute(f"TRUNCATE TABLE {table}")
        elif self.how == "delete":
            trial.execute(f"DELETE FROM {table}")
        else:
            trial.execute(f"DROP TABLE {table}")
            if self.how == "recreate":
                trial.execute(shape)


@dataclass(frozen=True)
class Create:
    """A table under a free name, of a shape, like another, or from its rows; not more than four in all."""

    table: int
    number: int
    how: str

    def __call__(self, trial: Trial) -> None:
        tables = read_tables(trial.connection)
        free = [name for name in NAMES if name not in {table.name for table in tables}]
        if len(tables) > 3 or not free:
            return
        new = quote_mysql(pick(free, self.number))
        other = pick(tables, self.table).quoted if tables else ""
        if self.how == "shape" or not other:
            trial.execute(pick(SHAPES, self.number).format(t=new))
        elif self.how == "like":
            trial.execute(f"CREATE TABLE {new} LIKE {other}")
        elif self.how == "select":
            trial.execute(f"CREATE TABLE {new} AS SELECT * FROM {other}")
        elif self.how == "select_key":
            trial.execute(f"CREATE TABLE {new} (extra INT DEFAULT 3, KEY (extra)) SELECT * FROM {other}")
        else:
            trial.execute(f"CREATE TABLE {new} LIKE {other}")
            trial.execute(f"INSERT IGNORE INTO {new} SELECT * FROM {other}")


@dataclass(frozen=True)
class Exchange:
    """Rows that change places between a partition and a table of its own, by no row event."""

    table: int
    number: int

    def __call__(self, trial: Trial) -> None:
        tables = [table for table in read_tables(trial.connection) if table.partitions]
        if not tables:
            return
        table = pick(tables, self.table)
        trial.execute("DROP TABLE IF EXISTS aside")
        trial.execute(f"CREATE TABLE aside LIKE {table.quoted}")
        if not trial.execute("ALTER TABLE aside REMOVE PARTITIONING"):
            return
        partition = pick(table.partitions, self.number)
        trial.execute(f"ALTER TABLE {table.quoted} EXCHANGE PARTITION {partition} WITH TABLE aside")
        trial.execute(f"INSERT IGNORE INTO {table.quoted} SELECT * FROM aside")
