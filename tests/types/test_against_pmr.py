"""The same rows as python-mysql-replication decodes them: equal but for its errors, each of which has a name.

An error that a later version of it mends makes this test fail, so that the list stays true.
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from urllib.parse import urlsplit

import pytest
from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import WriteRowsEvent

from cdc.sandbox.databases import Database
from cdc.sandbox.installation import Flavor
from tests.replica import Replica
from tests.types.cases import create, groups, insert

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""It calls PyMySQL and datetime in ways that have become old."""

GENERATED = 12
"""Generated values of each type: every row is a statement, so that one that can't be decoded stands alone."""

STOPPING = r"VECTOR|.*COMPRESSED$"
"""Types at whose tables it stops for good, unless it is not asked for them."""

BOTH = frozenset(Flavor)
MYSQL, MARIADB = frozenset({Flavor.MYSQL}), frozenset({Flavor.MARIADB})


@dataclass(frozen=True)
class Failed:
    """A value that could not be had, and why."""

    error: str


@dataclass(frozen=True)
class Known:
    """An error of python-mysql-replication 1.0: where it is met, and what it makes of our value."""

    name: str
    flavors: frozenset[Flavor]
    kinds: str
    explains: Callable[[object, object], bool]


def _cut(ours: object, theirs: object) -> bool:
    return isinstance(ours, bytes) and ours.endswith(b"\0") and theirs == (ours.rstrip(b"\0") or "")


def _in_wrong_order(ours: object, theirs: object) -> bool:
    """Big-endian text read as little-endian."""
    if isinstance(theirs, Failed):
        return theirs.error.startswith("UnicodeDecodeError")
    return isinstance(ours, str) and theirs == ours.encode("utf-16-be").decode("utf-16-le", "replace")


def _fails(start: str) -> Callable[[object, object], bool]:
    return lambda _ours, theirs: isinstance(theirs, Failed) and theirs.error.startswith(start)


def _bytes_of_text(ours: object, theirs: object) -> bool:
    """UUID and addresses come as the bytes that they are kept as, cut."""
    return isinstance(ours, str) and (isinstance(theirs, bytes) or theirs == "")


def _other_fraction(ours: object, theirs: object) -> bool:
    """-1.25 s as -1.75 s."""
    if not isinstance(ours, timedelta) or not isinstance(theirs, timedelta) or ours >= timedelta():
        return False
    mirrored = timedelta(ours.days, ours.seconds, 1_000_000 - ours.microseconds)
    return theirs == mirrored


def _holds(pattern: str, kind: type) -> Callable[[object, object], bool]:
    """The document has such a text, and theirs a value of `kind` instead."""

    def values(document: object) -> Iterator[object]:
        match document:
            case dict():
                for each in document.values():
                    yield from values(each)
            case list():
                for each in document:
                    yield from values(each)
            case _:
                yield document

    return lambda ours, theirs: (
        re.search(pattern, str(ours)) is not None and any(isinstance(each, kind) for each in values(theirs))
    )


KNOWN = (
    Known("BINARY(n) loses its trailing zeros", BOTH, r"BINARY\(", _cut),
    Known(
        "an empty value of bytes is an empty text",
        BOTH,
        r"VARBINARY\(\d+\)$|\w*BLOB$",
        lambda ours, theirs: ours == b"" and theirs == "",
    ),
    Known("a table with a VECTOR can't be read", MYSQL, r"VECTOR", _fails("ValueError")),
    Known("a table with a COMPRESSED column can't be read", MARIADB, r".*COMPRESSED$", _fails("ValueError")),
    Known(
        "a zero TIMESTAMP is 1970-01-01",
        BOTH,
        r"TIMESTAMP",
        lambda ours, theirs: ours is None and theirs == datetime(1970, 1, 1),
    ),
    Known("an impossible DATE can't be decoded", BOTH, r"DATE$", _fails("ValueError: day is out of range")),
    Known("the YEAR 0 is 1900", BOTH, r"YEAR$", lambda ours, theirs: (ours, theirs) == (0, 1900)),
    Known("an empty SET is NULL", BOTH, r"SET\(", lambda ours, theirs: ours == "" and theirs is None),
    Known("utf16 is read as little-endian", BOTH, r"\w+(\(60\))? CHARACTER SET utf16$", _in_wrong_order),
    Known(
        "members of an ENUM in utf16 are read as utf8",
        BOTH,
        r"ENUM\(.* CHARACTER SET utf16$",
        lambda ours, theirs: isinstance(ours, str) and theirs == "".join(f"\0{c}" for c in ours),
    ),
    Known(
        "sjis 815F is another backslash than the server's",
        BOTH,
        r"\w+\(60\) CHARACTER SET sjis$",
        lambda ours, theirs: isinstance(theirs, str) and theirs.replace("＼", "\\") == ours,
    ),
    Known("the fraction of a negative TIME counts the other way", BOTH, r"TIME\(", _other_fraction),
    Known(
        "a TIME of a day or more inside JSON can't be decoded",
        MYSQL,
        "JSON",
        _fails("ValueError: hour must be in 0..23"),
    ),
    Known("a TIME inside JSON loses its sign", MYSQL, "JSON", _holds(r'"-\d\d:', time)),
    Known("a DATE or DATETIME inside JSON is an object", MYSQL, "JSON", _holds(r'"\d{4}-', datetime)),
    Known("bytes inside JSON are lost", MYSQL, "JSON", _holds(r'"base64:type15', str)),
    Known(
        "UUID, INET4 and INET6 are bytes without their trailing zeros", MARIADB, r"UUID|INET", _bytes_of_text
    ),
)


def test_all_values_are_those_of_python_mysql_replication_but_for_its_known_errors(
    database: Database, replica: Replica
) -> None:
    cases = [case for group in groups(database.flavor).values() for case in group]
    r = random.Random(1017)
    writer = database.connect(sql_mode="ALLOW_INVALID_DATES")
    with writer.cursor() as cursor:
        for i, case in enumerate(cases):
            cursor.execute(create(f"t{i}", [case], keyed=True))
        replica.start()
        cursor.execute("SHOW BINARY LOG STATUS" if database.flavor is Flavor.MYSQL else "SHOW MASTER STATUS")
        file, place, *_ = cursor.fetchall()[0]
    for i, case in enumerate(cases):
        for number, value in enumerate(case.values(r, len(case.edges) + 1 + GENERATED)):
            insert(writer, f"t{i}", [case], {number: [value]})
    replica.catch_up()

    theirs: dict[tuple[str, int], object] = {}
    names = {f"t{i}": case for i, case in enumerate(cases)}
    alone = [name for name, case in names.items() if re.match(STOPPING, case.kind)]
    for tables in ([name for name in names if name not in alone], *([name] for name in alone)):
        theirs |= _decoded(database, tables, str(file), int(place))

    met = Counter[str]()
    unknown: list[tuple[str, object, object]] = []
    for name, case in names.items():
        kind = "LONGTEXT" if case.kind == "JSON" and database.flavor is Flavor.MARIADB else case.kind
        for number, value in replica.rows(f"SELECT id, c0 FROM {name}"):
            other = theirs.get((name, -1)) or theirs[name, number]
            if _comparable_ours(kind, value) == _comparable_theirs(kind, other):
                continue
            reasons = [
                known.name
                for known in KNOWN
                if database.flavor in known.flavors
                and re.match(known.kinds, kind)
                and known.explains(value, other)
            ]
            met.update(reasons)
            if not reasons:
                unknown.append((kind, value, other))
    assert not unknown
    assert set(met) == {known.name for known in KNOWN if database.flavor in known.flavors}


def _decoded(database: Database, tables: list[str], file: str, place: int) -> dict[tuple[str, int], object]:
    """Values by table and id; the id is -1 where the table as a whole can't be read."""
    parts = urlsplit(database.url)
    found: dict[tuple[str, int], object] = {}
    seen = Counter[str]()
    with closing(
        BinLogStreamReader(
            {"host": parts.hostname, "port": parts.port, "user": "root", "password": ""},
            server_id=4_000_017,
            only_events=[WriteRowsEvent],
            only_schemas=[database.name],
            only_tables=tables,
            log_file=file,
            log_pos=place,
            resume_stream=True,
            blocking=False,
            enable_logging=False,
        )
    ) as reader:
        try:
            for event in reader:
                number = seen[event.table]
                seen[event.table] += 1
                try:
                    [row] = event.rows
                except Exception as error:  # noqa: BLE001 - what it is, the list of known errors says
                    found[event.table, number] = Failed(f"{type(error).__name__}: {error}")
                else:
                    assert row["values"]["id"] == number
                    found[event.table, number] = row["values"]["c0"]
        except ValueError as error:
            [table] = tables
            found[table, -1] = Failed(f"{type(error).__name__}: {error}")
    return found


def _comparable_ours(kind: str, value: object) -> object:
    """Our value as something that the other's can be compared with."""
    match value:
        case float():
            return struct.pack("<d", value)
        case Decimal():
            return value.as_tuple()
        case str() if kind.startswith("DECIMAL"):
            return Decimal(value).as_tuple()
        case str() if kind.startswith("SET"):
            return set(value.split(",")) if value else set()
        case str() if kind == "JSON":
            return _document(json.loads(value))
        case _:
            return value


def _comparable_theirs(kind: str, value: object) -> object:
    """BIT comes as text of zeros and ones, SET as a set, JSON as objects of bytes, geometry behind its SRID."""
    match value:
        case float():
            return struct.pack("<d", value)
        case Decimal():
            return value.as_tuple()
        case str() if kind.startswith("BIT"):
            return int(value, 2)
        case bytes() if kind.split()[0] in _SHAPES:
            return value[4:]
        case _ if kind == "JSON":
            return _document(value)
        case _:
            return value


_SHAPES = {"POINT", "LINESTRING", "POLYGON", "GEOMETRY", "GEOMETRYCOLLECTION"}
_SHAPES |= {"MULTIPOINT", "MULTILINESTRING", "MULTIPOLYGON"}


def _document(value: object) -> object:
    """A JSON value with texts as str, and numbers by what they are worth."""
    match value:
        case dict():
            return {_document(key): _document(each) for key, each in value.items()}
        case list():
            return [_document(each) for each in value]
        case bytes():
            return value.decode()
        case float() | Decimal():
            return float(value)
        case _:
            return value
