"""Keys of odd types, which the source and DuckDB compare by different rules, through every kind of change."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain

from cdc.sandbox.databases import Database
from cdc.sandbox.installation import Flavor
from tests.replica import Replica
from tests.types.cases import span_of


@dataclass(frozen=True)
class Key:
    """A primary key: its columns, the rows' keys as SQL (eight), and others that two of them move to.

    `alike` is what the source takes for equal to the first key, in other bytes.
    """

    columns: Sequence[str]
    keys: Sequence[str]
    moved: Sequence[str]
    alike: str | None = None
    parts: str = ""
    """The key's parts in its own order, where that is not the columns'."""


def _quoted(*texts: str) -> tuple[str, ...]:
    return tuple(f"'{text}'" for text in texts)


def _numbers(*numbers: object) -> tuple[str, ...]:
    return tuple(map(str, numbers))


BYTES = ("x'01000000'", "x'00'", "x'0001'", "x'ff00ff00'", "x'20'", "x'2000'", "x'61'", "x'41'")
MOVED_BYTES = ("x'0100'", "x'ff00ff01'")
WORDS = _quoted("a", "é", "B", "ß", "zz", "ñandú", "10", "Ö")
MOVED_WORDS = _quoted("moved", "Gone too")
MOMENTS = tuple(
    f"'{day} 01:02:03.{fraction:06d}'"
    for day in ("2001-01-01", "1999-12-31", "2030-06-15", "1980-02-29")
    for fraction in (1, 999_999)
)


def keys(flavor: Flavor) -> dict[str, Key]:
    """The keys, by the name of their table."""
    insensitive = "utf8mb4_0900_ai_ci" if flavor is Flavor.MYSQL else "utf8mb4_unicode_ci"
    accents = "utf8mb4_0900_as_cs" if flavor is Flavor.MYSQL else "utf8mb4_bin"
    found = {
        "binary_zeros": Key(["BINARY(4)"], (*BYTES[:5], *BYTES[6:], "x'62'"), ("x'0200'", "x'ff00ff01'")),
        "binary_16": Key(
            ["BINARY(16)"],
            [f"UNHEX('{i:02x}{'00' * 15}')" for i in range(8)],
            ("UNHEX('ff')", "x'fe'"),
        ),
        "binary_varying": Key(["VARBINARY(8)"], BYTES, MOVED_BYTES),
        "case_insensitive": Key([f"VARCHAR(20) COLLATE {insensitive}"], WORDS, MOVED_WORDS, "'A'"),
        "accent_insensitive": Key([f"CHAR(20) COLLATE {insensitive}"], WORDS, MOVED_WORDS, "'á'"),
        "case_sensitive": Key([f"VARCHAR(20) COLLATE {accents}"], (*WORDS[:6], "'A'", "'e'"), MOVED_WORDS),
        "pad_space": Key(["VARCHAR(20) COLLATE latin1_swedish_ci"], WORDS, MOVED_WORDS, "'a   '"),
        "utf16": Key(["VARCHAR(20) CHARACTER SET utf16"], WORDS, MOVED_WORDS, "'A'"),
        "sjis": Key(
            ["VARCHAR(20) CHARACTER SET sjis"],
            _quoted("a", "日本", "ア", "表示", "能力", "z", "10", "か"),
            MOVED_WORDS,
            "'A'",
        ),
        "prefix_of_text": Key(["TEXT"], WORDS, MOVED_WORDS, "'A'", parts="c0(5)"),
        "prefix_of_blob": Key(["BLOB"], BYTES, MOVED_BYTES, parts="c0(5)"),
        "decimals": Key(["DECIMAL(10,2)"], _numbers(-1.5, 0, 0.01, 99999999.99, -0.01, 1, 2, 3), ("4", "-4")),
        "wide_decimals": Key(
            ["DECIMAL(50,5)"],
            _numbers(*(f"{sign}{10**size}.00001" for sign in ("", "-") for size in (0, 9, 40, 44))),
            ("4", "-4.5"),
        ),
        "datetime_6": Key(["DATETIME(6)"], MOMENTS, ("'1000-01-01'", "'9999-12-31 23:59:59.999999'")),
        "timestamp_6": Key(["TIMESTAMP(6)"], MOMENTS, ("'2000-01-01'", "'2038-01-18 23:59:59.999999'")),
        "dates": Key(
            ["DATE"], _quoted(*(f"20{i}0-01-01" for i in range(8))), _quoted("1000-01-01", "9999-12-31")
        ),
        "times": Key(
            ["TIME(3)"],
            _quoted(
                "-838:59:59", "838:59:59", "0:0:0", "-0:0:0.001", "0:0:0.001", "24:0:0", "1:2:3.5", "-24:0:0"
            ),
            _quoted("-1:0:0", "30:0:0"),
        ),
        "years": Key(["YEAR"], _numbers(0, 1901, 2155, 2000, 2001, 2002, 2003, 2004), ("1999", "1902")),
        "enums": Key(
            ["ENUM('z','a','b c','d,e','f','g','h','i','j','k')"],
            _quoted("z", "a", "b c", "d,e", "f", "g", "h", "i"),
            _quoted("j", "k"),
        ),
        "sets": Key(["SET('a','b','c','d')"], _numbers(0, 1, 2, 3, 4, 5, 6, 15), ("8", "9")),
        "floats": Key(["FLOAT"], _numbers(0, 1.1, -1.1, 1e30, 1e-30, 16777215, 2, 3), ("4", "5.5"), "-0e0"),
        "doubles": Key(["DOUBLE"], _numbers(0, 0.1, -0.1, 1e300, 5e-324, 2, 3, 4), ("4.5", "5"), "-0e0"),
        "bits": Key(["BIT(10)"], _numbers(0, 1, 2, 3, 1023, 512, 7, 8), ("9", "10")),
        "flags": Key(["TINYINT(1)"], _numbers(0, 1, 2, -1, 127, -128, 7, 8), ("9", "10")),
        "unsigned_numbers": Key(
            ["BIGINT UNSIGNED"], _numbers(0, 2**64 - 1, 2**63, 1, 2, 3, 4, 5), ("6", "7")
        ),
        "five": Key(
            ["INT", f"VARCHAR(9) COLLATE {insensitive}", "BINARY(3)", "DATE", "DECIMAL(6,2)"],
            [f"{i % 2}, 'w{i // 4}', x'0{i % 3}', '2024-01-0{1 + i // 2}', {i}.50" for i in range(8)],
            ("7, 'moved', x'', '2024-02-29', -1", "7, 'moved', x'00ff', '2024-02-29', -1"),
            "0, 'W0', x'00', '2024-01-01', 0.5",
            parts="c4, c1, c0, c3, c2",
        ),
    }
    if flavor is Flavor.MARIADB:
        uuids = [f"'{i:x}0000000-0000-0000-0000-{'f' * i}{'0' * (12 - i)}'" for i in range(8)]
        found["uuids"] = Key(["UUID"], uuids, ("UUID()", f"'{'f' * 32}'"))
        addresses = ("::", "::1", "::ffff:1.2.3.4", "1::", "1:2::", "ffff::", "1::1", "2001:db8::")
        found["addresses"] = Key(["INET6"], _quoted(*addresses), _quoted("2::", "3::3"))
    return found


def test_keys_of_every_kind_follow_inserts_updates_moves_and_deletes(
    database: Database, replica: Replica
) -> None:
    found = keys(database.flavor)
    with database.connect(sql_mode="").cursor() as cursor:
        for name, key in found.items():
            cursor.execute(_create(name, key))
            for i in range(4):
                cursor.execute(f"INSERT INTO {name} VALUES ({key.keys[i]}, {i})")
        replica.start()
        for name, key in found.items():
            for statement in _changes(name, key):
                cursor.execute(statement)
        replica.catch_up()
        _assert_equal(database, replica, found)
        # each row once more, in a batch of its own
        for name in found:
            cursor.execute(f"UPDATE {name} SET n = n + 1000")
        replica.catch_up()
        _assert_equal(database, replica, found)
        for name, key in found.items():
            back = _assignment(key, key.keys[2])
            cursor.execute(f"UPDATE {name} SET {back} WHERE n = 1002")
            cursor.execute(f"DELETE FROM {name} WHERE n IN (1001, 1006)")
        replica.catch_up()
        _assert_equal(database, replica, found)
        for name in found:
            cursor.execute(f"DELETE FROM {name}")
        replica.catch_up()
    for name in found:
        assert replica.value(f"SELECT count(*) FROM {name}") == 0, name


def _create(name: str, key: Key) -> str:
    columns = ", ".join(f"c{i} {kind} NOT NULL" for i, kind in enumerate(key.columns))
    parts = key.parts or ", ".join(f"c{i}" for i in range(len(key.columns)))
    return f"CREATE TABLE {name} ({columns}, n INT, PRIMARY KEY ({parts})) CHARACTER SET utf8mb4"


def _assignment(key: Key, values: str) -> str:
    split = values.split(", ") if len(key.columns) > 1 else [values]
    return ", ".join(f"c{i} = {value}" for i, value in enumerate(split))


def _changes(name: str, key: Key) -> list[str]:
    """Rows are found by `n`, so that the statements need no comparison of keys."""
    statements = [f"INSERT INTO {name} VALUES ({key.keys[i]}, {i})" for i in range(4, 8)]
    statements += [
        f"UPDATE {name} SET {_assignment(key, key.moved[0])} WHERE n = 2",
        f"UPDATE {name} SET {_assignment(key, key.moved[1])} WHERE n = 5",
        f"DELETE FROM {name} WHERE n IN (3, 7)",
        f"INSERT INTO {name} VALUES ({key.keys[7]}, 8)",
        f"REPLACE INTO {name} VALUES ({key.keys[4]}, 9)",
        f"INSERT INTO {name} VALUES ({key.keys[1]}, 0) ON DUPLICATE KEY UPDATE n = n + 0",
    ]
    if key.alike is not None:
        statements.append(f"UPDATE {name} SET {_assignment(key, key.alike)} WHERE n = 0")
    return statements


def _assert_equal(database: Database, replica: Replica, found: dict[str, Key]) -> None:
    """Every row of every table is the same on both sides."""
    with database.connect(conv={}, sql_mode="").cursor() as cursor:
        for name, key in found.items():
            columns = ", ".join(_shown(kind, i) for i, kind in enumerate(key.columns))
            cursor.execute(f"SELECT n, {columns} FROM {name} ORDER BY n")
            theirs = cursor.fetchall()
            listed = ", ".join(f"c{i}" for i in range(len(key.columns)))
            ours = replica.rows(f"SELECT n, {listed} FROM {name} ORDER BY n")
            assert len(ours) == len(theirs), name
            for value, text in zip(chain(*ours), chain(*theirs), strict=True):
                assert repr(value) == repr(_as(value, text)), name


def _shown(kind: str, at: int) -> str:
    """What is asked of the server, so that its text says all."""
    match kind.split("(")[0]:
        case "BINARY" | "VARBINARY" | "BLOB":
            return f"HEX(c{at})"
        case "BIT":
            return f"c{at} + 0"
        case "FLOAT" | "DOUBLE":
            return f"CAST(c{at} AS DOUBLE)"
        case _:
            return f"c{at}"


def _as(value: object, text: str) -> object:
    """The server's text as a value of the same kind."""
    match value:
        case int() | float() | Decimal():
            return type(value)(text)
        case bytes():
            return bytes.fromhex(text)
        case datetime.date():  # a datetime is one too
            return type(value).fromisoformat(text)
        case datetime.timedelta():
            return span_of(text)
        case _:
            return text
