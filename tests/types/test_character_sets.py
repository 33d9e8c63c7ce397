"""Every character set of both servers, and every character that it has, by copy and by stream."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

import pytest
from pymysql.cursors import Cursor

from cdc.sandbox.databases import Database
from tests.replica import Replica
from tests.types.cases import a_text

T = TypeVar("T")
UNICODE = {"utf8mb4", "utf16", "utf16le", "utf32", "gb18030"}
"""Sets that have all of Unicode: their characters come from utf8mb4."""
STREAMED = 1_000_000
"""What is added to the id of a row that was copied, for its equal that came by the stream."""
_TEXT_ROWS = 40
_SWEEP = 1_000
_A_ROW = 496
"""Characters in one value of the sweep; 128 values end exactly below U+10000."""


@pytest.fixture
def cursor(database: Database) -> Iterator[Cursor]:
    """A session that takes what does not fit, with "?" or cut off."""
    with database.connect(sql_mode="").cursor() as found:
        found.execute("SET SESSION group_concat_max_len = 1000000")
        yield found


def character_sets(cursor: Cursor) -> dict[str, int]:
    """All sets of the server with the most bytes of a character, but binary, which is none."""
    cursor.execute("SELECT character_set_name, maxlen FROM information_schema.character_sets ORDER BY 1")
    return {str(name): int(most) for name, most in cursor.fetchall() if name != "binary"}


def test_every_character_of_every_set_is_the_text_that_the_server_makes_of_it(
    replica: Replica, cursor: Cursor
) -> None:
    sets = character_sets(cursor)
    _make_codes(cursor)
    r = random.Random(1252)
    words = [a_text(r) for _ in range(_TEXT_ROWS)]
    for name, most in sorted(sets.items(), key=lambda each: each[0] != "utf8mb4"):
        cursor.execute(
            f"CREATE TABLE cs_{name} (id INT PRIMARY KEY, t LONGTEXT, v VARCHAR(60), c CHAR(60), m TINYTEXT,"
            f" e ENUM('a','b''c','x,y')) CHARACTER SET {name}"
        )
        rows = [
            (i, word, word, word, word, r.choice(["a", "b'c", "x,y", "none", None]))
            for i, word in enumerate(words)
        ]
        cursor.executemany(f"INSERT INTO cs_{name} VALUES (%s, %s, %s, %s, %s, %s)", rows)
        _sweep(cursor, name, most)
    cursor.execute("DROP TABLE codes")

    replica.start()
    for name in sets:
        cursor.execute(f"INSERT INTO cs_{name} SELECT id + {STREAMED}, t, v, c, m, e FROM cs_{name}")
    replica.catch_up()

    columns = ("t", "v", "c", "m", "e")
    shown = ", ".join(f"CONVERT({column} USING utf8mb4)" for column in columns)
    for name, most in sets.items():
        cursor.execute(f"SELECT id, {shown} FROM cs_{name} WHERE id < {STREAMED} ORDER BY id")
        theirs = list(cursor.fetchall())
        held = f"SELECT id % {STREAMED}, {', '.join(columns)} FROM cs_{name} WHERE id"
        assert replica.rows(f"{held} < {STREAMED} ORDER BY id") == theirs, (name, "by copy")
        assert replica.rows(f"{held} >= {STREAMED} ORDER BY id") == theirs, (name, "by stream")
        characters = sum(len(row[1]) for row in theirs if row[0] >= _SWEEP)
        assert characters >= _least(name, most), name


def _runs(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _make_codes(cursor: Cursor) -> None:
    """All strings of one and of two bytes, and those of two behind 0x8f, where sets of three bytes begin."""
    cursor.execute("CREATE TABLE codes (n INT PRIMARY KEY, b VARBINARY(3))")
    cursor.execute("INSERT INTO codes VALUES " + ", ".join(f"({n}, x'{n:02x}')" for n in range(256)))
    pairs = "codes h JOIN codes l WHERE h.n < 256 AND l.n < 256"
    cursor.execute(f"INSERT INTO codes SELECT 256 + h.n * 256 + l.n, CONCAT(h.b, l.b) FROM {pairs}")
    cursor.execute("INSERT INTO codes SELECT 65536 + n, CONCAT(x'8f', b) FROM codes WHERE n >= 256")


def _sweep(cursor: Cursor, name: str, most: int) -> None:
    """Rows of all the characters that the set has."""
    if name == "utf8mb4":
        points = [*range(0xD800), *range(0xE000, 0x110000)]
        texts = ("".join(map(chr, run)) for run in _runs(points, _A_ROW))
        written = [f"({_SWEEP + i}, _utf8mb4 x'{text.encode().hex()}')" for i, text in enumerate(texts)]
        for part in _runs(written, 500):
            cursor.execute(f"INSERT INTO cs_utf8mb4 (id, t) VALUES {', '.join(part)}")
    elif name in UNICODE:
        cursor.execute(f"INSERT INTO cs_{name} (id, t) SELECT id, t FROM cs_utf8mb4 WHERE id >= {_SWEEP}")
    elif name in ("utf8mb3", "ucs2"):
        last = _SWEEP + 0xF800 // _A_ROW - 1
        cursor.execute(
            f"INSERT INTO cs_{name} (id, t) SELECT id, t FROM cs_utf8mb4 WHERE id BETWEEN {_SWEEP} AND {last}"
        )
    else:
        longest = {1: 256, 2: 256 + 65536}.get(most, 3 * 65536)
        cursor.execute(f"CREATE TEMPORARY TABLE one (n INT PRIMARY KEY, c VARCHAR(4) CHARACTER SET {name})")
        cursor.execute(f"INSERT INTO one SELECT n, CONVERT(b USING {name}) FROM codes WHERE n < {longest}")
        cursor.execute(
            f"INSERT INTO cs_{name} (id, t) SELECT {_SWEEP} + n DIV {_A_ROW},"
            f" GROUP_CONCAT(c ORDER BY n SEPARATOR '') FROM one JOIN codes USING (n)"
            f" WHERE HEX(c) = HEX(b) AND CHAR_LENGTH(c) = 1 GROUP BY n DIV {_A_ROW}"
        )
        cursor.execute("DROP TEMPORARY TABLE one")


def _least(name: str, most: int) -> int:
    """Characters that a sweep must have met to deserve the name."""
    if name in UNICODE:
        return 0x10F800
    if name in ("utf8mb3", "ucs2"):
        return 0xF800
    return {1: 128, 2: 5_000, 3: 10_000}[most]


NO_TEXT = {
    # unassigned in the set, though formed as its characters are
    "sjis": ("8150", "8540", "fcfc", "efef"),
    "cp932": ("8540", "fcfc"),
    "gbk": ("a2a1", "fefe", "a140"),
    "gb2312": ("aaa1", "fefe"),
    "big5": ("c7a1", "f9fe"),
    "euckr": ("c9a1", "fea1"),
    "ujis": ("a9a1", "8ffefe"),
    "eucjpms": ("a9a1", "8ff5a1"),
    "gb18030": ("8431a530", "fe39fe39", "84318237"),
    "tis620": ("db", "fc", "ff"),
    "latin1": ("818d8f909d",),
    "cp1250": ("8183",),
    "cp1256": ("ff",),
    "greek": ("aeff",),
    "hebrew": ("a1ff",),
    "ascii": ("80", "ff"),
    "swe7": ("80", "ff"),
    "geostd8": ("ff",),
    # half a pair, or a number that Unicode gives to no character
    "ucs2": ("d83d", "d83dde00", "dfff0041", "ffff"),
    "utf16": ("ffff",),
    "utf16le": ("ffff",),
    "utf32": ("0000d800", "0000ffff", "0010ffff"),
    "utf8mb3": ("eda080", "efbfbf"),
    "utf8mb4": ("eda080", "efbfbf", "f48fbfbf"),
}
"""Bytes that are no text, or hardly. What a server does not store it cuts off or makes "?"."""


def test_bytes_that_are_no_text_become_the_same_by_both_ways_and_stop_nothing(
    replica: Replica, cursor: Cursor
) -> None:
    r = random.Random(932)
    sets = character_sets(cursor)
    for name, most in sets.items():
        width = 4 if name == "utf32" else 2 if name in ("ucs2", "utf16", "utf16le") else 1
        odd = [bytes.fromhex(each) for each in NO_TEXT.get(name, ())]
        odd += [r.randbytes(width * r.randint(1, most + 2)) for _ in range(60)]
        kind = f"VARCHAR(60) CHARACTER SET {name}"
        cursor.execute(
            f"CREATE TABLE cs_{name} (id INT PRIMARY KEY, b VARBINARY(60), c {kind}, a VARBINARY(60))"
        )
        rows = ", ".join(
            f"({i}, x'{each.hex()}', CONVERT(x'{each.hex()}' USING {name}), x'{each.hex()}')"
            for i, each in enumerate(odd)
        )
        cursor.execute(f"INSERT INTO cs_{name} VALUES {rows}")
        cursor.execute(f"ALTER TABLE cs_{name} MODIFY a {kind}")
    replica.start()
    for name in sets:
        cursor.execute(f"INSERT INTO cs_{name} SELECT id + {STREAMED}, b, c, a FROM cs_{name}")
    replica.catch_up()
    for name in sets:
        held = f"SELECT id % {STREAMED}, c, a FROM cs_{name} WHERE id"
        copied = replica.rows(f"{held} < {STREAMED} ORDER BY id")
        assert copied == replica.rows(f"{held} >= {STREAMED} ORDER BY id"), name
    assert replica.value("SELECT c FROM cs_latin1 WHERE id = 0") == "\x81\x8d\x8f\x90\x9d"
    assert replica.value("SELECT c FROM cs_ucs2 WHERE id = 0") == "\ufffd\ufffd\ufffd"
    assert replica.value("SELECT c FROM cs_tis620 WHERE id = 0") == "\ufffd"
    assert replica.value("SELECT c FROM cs_sjis WHERE id = 1") == "?"
