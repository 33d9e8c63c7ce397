"""Every type with its extremes, typical and generated values, and how the server shows them.

What a server shows is compared with what DuckDB holds by plain Python values that are made here, without the
conversions under test.
"""

from __future__ import annotations

import datetime
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pymysql.connections import Connection

from cdc.sandbox.installation import Flavor

GENERATED = 200
Value = Callable[[random.Random], object]
Plain = Callable[[Any], object]


def _same(value: Any) -> object:
    return value


def _whole(text: str) -> object:
    return int(text)


def _decimal(value: Any) -> object:
    """All digits that are there: 1.50 is not 1.5 here."""
    return Decimal(value).as_tuple()


def _double(value: Any) -> object:
    return struct.pack("<d", float(value))


def _moment(text: str) -> object:
    """None for what is no date of the calendar, as Python's own calendar has it."""
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        return None


def _day(text: str) -> object:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None


def span_of(text: str) -> datetime.timedelta:
    """A TIME as it is printed."""
    hours, minutes, seconds = text.lstrip("-").split(":")
    span = datetime.timedelta(hours=int(hours), minutes=int(minutes))
    span += datetime.timedelta(microseconds=round(Decimal(seconds) * 1_000_000))
    return -span if text.startswith("-") else span


def _hex(value: Any) -> object:
    return value if isinstance(value, str) else value.hex().upper()


def _floats(value: Any) -> object:
    return value if isinstance(value, str) else struct.pack(f"<{len(value)}f", *value).hex().upper()


@dataclass(frozen=True)
class Case:
    """One type. `shown` is what the oracle selects, `there` and `here` make both sides comparable."""

    kind: str
    edges: Sequence[object]
    value: Value
    shown: str = "{}"
    there: Plain = _same
    here: Plain = _same
    place: str = "{}"
    """How a value is written in SQL: its literal in a function, say."""

    def values(self, r: random.Random, count: int) -> list[object]:
        """The edges, NULL, and generated values up to `count`."""
        chosen = [*self.edges, None]
        return chosen + [self.value(r) for _ in range(count - len(chosen))]


def integers() -> Iterator[Case]:
    """Signed and unsigned integers, flags, BIT and YEAR."""
    for name, bits in (("TINYINT", 8), ("SMALLINT", 16), ("MEDIUMINT", 24), ("INT", 32), ("BIGINT", 64)):
        low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        yield Case(name, (low, high, 0, -1, 1), _between(low, high), there=_whole)
        top = 2 * high + 1
        yield Case(f"{name} UNSIGNED", (0, top, high, high + 1), _between(0, top), there=_whole)
    yield Case("TINYINT(1)", (0, 1, 2, -1, -128, 127), _between(-128, 127), there=_whole)
    yield Case("BOOLEAN", (0, 1), _between(0, 1), there=_whole)
    yield Case("INT(8) ZEROFILL", (0, 7, 2**32 - 1), _between(0, 2**32 - 1), there=_whole)
    yield Case("BIGINT(60) ZEROFILL", (0, 2**64 - 1), _between(0, 2**64 - 1), there=_whole)
    for bits in (1, 7, 8, 9, 16, 17, 32, 33, 63, 64):
        top = (1 << bits) - 1
        yield Case(f"BIT({bits})", (0, 1, top), _between(0, top), shown="{} + 0", there=_whole)
    yield Case("YEAR", (0, 1901, 2155, 2000), _between(1901, 2155), there=_whole)


def _between(low: int, high: int) -> Value:
    return lambda r: r.randint(low, high)


def fractions() -> Iterator[Case]:
    """DECIMAL of all widths, FLOAT and DOUBLE."""
    widths = ((1, 0), (1, 1), (9, 0), (9, 9), (10, 2), (12, 3), (18, 4), (19, 0), (27, 9), (38, 0), (38, 30))
    for precision, scale in (*widths, (38, 10), (39, 1), (48, 12), (65, 0), (65, 30)):
        unit = Decimal(1).scaleb(-scale)
        most = Decimal(10**precision - 1).scaleb(-scale) if precision < 28 else None
        top = f"{most:f}" if most is not None else _digits("9" * precision, scale)
        edges = ("0", top, f"-{top}", f"{unit:f}", f"-{unit:f}", "-0")
        kind = f"DECIMAL({precision},{scale})"
        yield Case(kind, edges, _number(precision, scale), there=_decimal, here=_decimal)
    yield Case("DECIMAL(20,4) UNSIGNED", ("0", "0.5"), _unsigned, there=_decimal, here=_decimal)
    zerofill = {"there": _decimal, "here": _decimal}
    yield Case("DECIMAL(30,3) ZEROFILL", ("0.5", "0"), _unsigned, **zerofill)  # type: ignore[arg-type]
    yield Case("DECIMAL(45,3) ZEROFILL", ("0.5", "0"), _unsigned, **zerofill)  # type: ignore[arg-type]
    shown = {"shown": "CAST({} AS DOUBLE)", "there": _double, "here": _double}
    singles = ("0", "-0e0", "16777215", "1.1", "1e-45", "1.17549435e-38", "3.4028234663852886e38", "-3.4e38")
    doubles = ("0", "-0e0", "0.1", "5e-324", "2.2250738585072014e-308", "1.7976931348623157e308", "-1e308")
    yield Case("FLOAT", singles, _float("<f"), **shown)  # type: ignore[arg-type]
    yield Case("FLOAT UNSIGNED", ("0", "1.1"), lambda r: abs(_a_float(r, "<f")), **shown)  # type: ignore[arg-type]
    yield Case("FLOAT(7,2)", ("0", "1.1"), lambda r: r.uniform(-9e4, 9e4), **shown)  # type: ignore[arg-type]
    yield Case("DOUBLE", doubles, _float("<d"), **shown)  # type: ignore[arg-type]
    yield Case("DOUBLE(15,3)", ("0.125",), lambda r: r.uniform(-1e11, 1e11), **shown)  # type: ignore[arg-type]
    yield Case("DOUBLE UNSIGNED ZEROFILL", ("0.5",), lambda r: abs(_a_float(r, "<d")), **shown)  # type: ignore[arg-type]


def _digits(digits: str, scale: int) -> str:
    digits = digits.rjust(scale + 1, "0")
    return digits[: len(digits) - scale] + (f".{digits[-scale:]}" if scale else "")


def _number(precision: int, scale: int) -> Value:
    return lambda r: (
        r.choice(["", "-"]) + _digits(str(r.randrange(10 ** r.randint(1, precision))), scale)
    )  # of all sizes


def _unsigned(r: random.Random) -> str:
    return f"{r.randrange(10**12)}.{r.randrange(1000):03d}"


def _float(form: str) -> Value:
    return lambda r: repr(_a_float(r, form))


def _a_float(r: random.Random, form: str) -> float:
    while True:
        number: float = struct.unpack(form, r.randbytes(struct.calcsize(form)))[0]
        if number == number and abs(number) != float("inf"):
            return number


def temporals() -> Iterator[Case]:
    """Dates and times, with zero, partial and impossible ones, the switches to and from summer time."""
    days = ("0000-00-00", "2024-00-00", "2024-05-00", "0000-05-01", "0001-01-01", "1000-01-01", "9999-12-31")
    yield Case("DATE", (*days, "2024-02-29", "2023-02-29", "1969-12-31"), _date, there=_day)
    moments = (*(f"{day} 00:00:00" for day in days), "2024-03-10 02:30:00", "2024-11-03 01:30:00")
    for fraction in range(7):
        last = f"9999-12-31 23:59:59.{'9' * 6}"[: 20 + fraction].rstrip(".")
        odd = (last, "1969-12-31 23:59:59.999999", "0000-00-00 12:00:00")
        yield Case(f"DATETIME({fraction})", (*moments, *odd), _datetime, there=_moment)
        edges = ("0", "1970-01-02 00:00:01", "2038-01-18 03:14:07.499999", *moments[-2:])
        yield Case(f"TIMESTAMP({fraction}) NULL", edges, _timestamp, there=_moment)
        spans = ("-838:59:59", "838:59:59", "00:00:00", "-00:00:01", "-00:00:00.000001", "838:59:58.999999")
        others = ("-12:34:56.789012", "24:00:00", "-838:59:58.999999")
        yield Case(f"TIME({fraction})", (*spans, *others), _time, there=span_of)
    yield Case("DATETIME", moments, _datetime, there=_moment)
    yield Case("TIMESTAMP NOT NULL DEFAULT '2020-01-01 00:00:00'", ("0",), _timestamp, there=_moment)


def _date(r: random.Random) -> str:
    if r.random() < 0.5:
        return str(datetime.date.fromordinal(r.randint(1, 3652059)))
    return f"{r.randint(0, 9999):04d}-{r.randint(0, 12):02d}-{r.randint(0, 31):02d}"


def _clock(r: random.Random, hours: int) -> str:
    hour = r.choice([0, r.randint(0, hours)])
    return f"{hour:02d}:{r.randint(0, 59):02d}:{r.randint(0, 59):02d}.{r.choice([0, r.randrange(10**6)]):06d}"


def _datetime(r: random.Random) -> str:
    return f"{_date(r)} {_clock(r, 23)}"


def _timestamp(r: random.Random) -> str:
    moment = datetime.datetime.fromtimestamp(r.randint(86_400, 2**31 - 2 * 86_400), datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{r.randrange(10**6):06d}"


def _time(r: random.Random) -> str:
    return r.choice(["", "-"]) + _clock(r, 838)


def texts() -> Iterator[Case]:
    """Character types, ENUM and SET."""
    edges = ("", " ", "a  ", "é", "😀 ß", "日本", "a\0b", "\\n'\"`%", "\u2028", "x" * 60)
    for charset in ("utf8mb4", "utf8mb3", "latin1", "utf16", "sjis"):
        yield Case(f"CHAR(60) CHARACTER SET {charset}", edges, a_text)
        yield Case(f"VARCHAR(60) CHARACTER SET {charset}", edges, a_text)
    long = (*edges, "é" * 250)
    yield Case("VARCHAR(300)", long, a_text)
    yield Case("TINYTEXT", edges, a_text)
    yield Case("TEXT", long, a_text)
    yield Case("MEDIUMTEXT", (*long, "ß" * 70_000), a_text)
    yield Case("LONGTEXT CHARACTER SET utf16", long, a_text)
    members = ("a", "b'c", "d,e", '"', "\\", "é", "")
    quoted = ",".join("'" + m.replace("\\", "\\\\").replace("'", "''") + "'" for m in members)
    picked: Value = lambda r: r.choice([*members, "no member"])  # noqa: E731
    yield Case(f"ENUM({quoted})", (*members, 0), picked)
    yield Case("ENUM('x','y') CHARACTER SET utf16", ("x", "y", 0), lambda r: r.choice(["x", "y"]))
    many = ",".join(f"'member {i}'" for i in range(300))
    yield Case(f"ENUM({many})", (1, 256, 300, 0), _between(1, 300))
    for count in (1, 8, 9, 17, 33, 64):
        names = ",".join(f"'m{i}é'" for i in range(count))
        yield Case(f"SET({names})", (0, 1, (1 << count) - 1, 1 << count - 1), _between(0, (1 << count) - 1))


def a_text(r: random.Random) -> str:
    """Characters of many scripts; what a set lacks becomes "?" at the source."""
    ranges = [(1, 127), (0xA0, 0x24F), (0x400, 0x4FF), (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3)]
    ranges += [(0x1F300, 0x1F600), (1, 0xD7FF)]
    return "".join(chr(r.randint(*r.choice(ranges))) for _ in range(r.randint(0, 12))) + r.choice(["", "  "])


def bytes_and_shapes(flavor: Flavor) -> Iterator[Case]:
    """Binary types and geometry."""
    shown = {"shown": "HEX({})", "here": _hex}
    edges = (b"", b"\0", b"\x01\0", b"\xff\0\0", b"a'b\\\"\n")
    for length in (1, 16, 255):
        data: Value = lambda r, n=length: r.randbytes(r.randint(0, n))  # type: ignore[misc] # noqa: E731
        yield Case(f"BINARY({length})", [edge[:length] for edge in edges], data, **shown)  # type: ignore[arg-type]
    some: Value = lambda r: r.randbytes(r.randint(0, 40))  # noqa: E731
    for kind in ("VARBINARY(40)", "VARBINARY(300)", "TINYBLOB", "BLOB", "MEDIUMBLOB"):
        yield Case(kind, edges, some, **shown)  # type: ignore[arg-type]
    yield Case("LONGBLOB", (*edges, bytes(range(256)) * 300), some, **shown)  # type: ignore[arg-type]
    flat = flavor is Flavor.MARIADB
    shape = {
        "shown": "HEX(ST_AsBinary({}))" if flat else "HEX(ST_AsBinary({}, 'axis-order=long-lat'))",
        "place": "ST_GeomFromText({})",
        "here": _hex,
    }
    yield Case("POINT", ("POINT(0 0)", "POINT(1.5 -2)", "POINT(1e-300 1e300)"), _point, **shape)  # type: ignore[arg-type]
    shapes = (
        "LINESTRING(0 0,1 1,2 2.5)",
        "POLYGON((0 0,4 0,4 4,0 4,0 0),(1 1,2 1,2 2,1 2,1 1))",
        "MULTIPOINT(1 1,2 2)",
        "MULTILINESTRING((0 0,1 1),(2 2,3 3))",
        "MULTIPOLYGON(((0 0,4 0,4 4,0 4,0 0)),((9 9,12 9,12 12,9 12,9 9)))",
        "GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1),GEOMETRYCOLLECTION(POINT(3 3)))",
    )
    yield Case("GEOMETRY", shapes, _point, **shape)  # type: ignore[arg-type]
    yield Case("GEOMETRYCOLLECTION", (*shapes[-1:], "GEOMETRYCOLLECTION EMPTY"), _collection, **shape)  # type: ignore[arg-type]
    line: Value = lambda r: f"LINESTRING({r.random()} 1,{r.random()} {r.random()})"  # noqa: E731
    yield Case("LINESTRING", shapes[:1], line, **shape)  # type: ignore[arg-type]
    yield Case("POLYGON", shapes[1:2], lambda _: shapes[1], **shape)  # type: ignore[arg-type]
    yield Case("MULTIPOINT", shapes[2:3], lambda _: shapes[2], **shape)  # type: ignore[arg-type]
    yield Case("MULTILINESTRING", shapes[3:4], lambda _: shapes[3], **shape)  # type: ignore[arg-type]
    yield Case("MULTIPOLYGON", shapes[4:5], lambda _: shapes[4], **shape)  # type: ignore[arg-type]
    if not flat:
        earth = {**shape, "place": "ST_GeomFromText({}, 4326)"}
        yield Case("POINT SRID 4326", ("POINT(48.2 16.4)",), _place_on_earth, **earth)  # type: ignore[arg-type]


def _point(r: random.Random) -> str:
    return f"POINT({r.uniform(-1e6, 1e6)!r} {r.gauss(0, 1)!r})"


def _collection(r: random.Random) -> str:
    return f"GEOMETRYCOLLECTION({_point(r)},{_point(r)})"


def _place_on_earth(r: random.Random) -> str:
    return f"POINT({r.uniform(-90, 90)!r} {r.uniform(-179, 180)!r})"


DOCUMENTS = (
    "null",
    "true",
    "[]",
    "{}",
    '""',
    "18446744073709551615",
    "-9223372036854775808",
    '{"b": [1, 2.50, true, null, "é\\n\\"q"], "a": {"k": 18446744073709551615}}',
    "[-1, 1e100, 0.1, {}, 1.0e3, 1e-20, 123456789012345678, 0.30000000000000004]",
    '{"é": "x\\u0001\\n😀", "": 0}',
)
SQL_IN_JSON = (
    "JSON_ARRAY(CAST('-838:59:59.5' AS TIME(6)), CAST('2024-02-29' AS DATE), CAST(1.50 AS DECIMAL(10,2)))",
    "JSON_OBJECT('d', CAST('0000-00-00 00:00:00' AS DATETIME), 't', TIMESTAMP('2024-01-02 03:04:05.006'))",
    "JSON_ARRAY(CAST(-12345678901234567890123456789.123456789 AS DECIMAL(65,30)), x'ff00fe', b'101')",
    "JSON_ARRAY(CAST(REPEAT(x'ff', 200) AS BINARY), CAST('24:00:00' AS TIME), 1e15, 1e14, 1.5e-7)",
    "JSON_OBJECT('big', REPEAT('é', 40000), 'n', 70000, 'deep', JSON_ARRAY(JSON_ARRAY(JSON_ARRAY(-1))))",
    "JSON_ARRAY(CAST('-01:02:03.25' AS TIME(6)), CAST('-00:00:00.000001' AS TIME(6)))",
    "JSON_ARRAY(CAST('2024-02-29' AS DATE))",
    "JSON_ARRAY(CAST(YEAR('2024-01-01') AS YEAR), POINT(1, 2))",
)


class Sql(str):
    """An SQL expression that stands for a value."""

    __slots__ = ()


def documents(flavor: Flavor) -> Iterator[Case]:
    """JSON, and the types that only one of both servers has."""
    if flavor is Flavor.MYSQL:
        sql = tuple(Sql(each) for each in SQL_IN_JSON)
        yield Case("JSON", (*DOCUMENTS, *sql), _document)
        vector: Value = lambda r: struct.pack("<3f", *(r.uniform(-9, 9) for _ in range(3)))  # noqa: E731
        edge = struct.pack("<5f", 0, -0.0, 1e-45, 3.4e38, -1.5)
        yield Case("VECTOR(5)", (edge,), vector, shown="HEX({})", here=_floats)
        return
    yield Case("JSON", (*DOCUMENTS, '{"b": 1,  "a": 2.50}'), _document)
    uuids = ("123e4567-e89b-12d3-a456-426655440000", "0" * 32, "f" * 32, "01" + "0" * 30)
    yield Case("UUID", uuids, lambda r: f"{r.getrandbits(128) & ~r.choice([0, 0xFFFF, 2**100 - 1]):032x}")
    address: Value = lambda r: ".".join(str(r.choice([0, 255, r.randint(0, 255)])) for _ in range(4))  # noqa: E731
    yield Case("INET4", ("0.0.0.0", "255.255.255.255", "192.0.2.0"), address)
    long: Value = lambda r: ":".join(f"{r.choice([0, 0, 65535, r.getrandbits(16)]):x}" for _ in range(8))  # noqa: E731
    yield Case("INET6", ("::", "::1", "::ffff:192.0.2.1", "::192.0.2.1", "2001:db8::ff00:42:8329"), long)
    yield Case("VARCHAR(3000) COMPRESSED", ("", "né" * 400), lambda r: a_text(r) * r.randint(0, 20))
    yield Case("TEXT CHARACTER SET sjis COMPRESSED", ("", "日本" * 200), lambda r: a_text(r) * 9)
    blob: Value = lambda r: r.randbytes(5) * r.randint(0, 100)  # noqa: E731
    yield Case("MEDIUMBLOB COMPRESSED", (b"", b"\0" * 5000), blob, shown="HEX({})", here=_hex)
    yield Case("VARBINARY(900) COMPRESSED", (b"", b"\0" * 900), blob, shown="HEX({})", here=_hex)


def _document(r: random.Random) -> str:
    simple = [
        f"{r.getrandbits(70) - 2**69}",
        repr(_a_float(r, "<d")),
        f'"{r.getrandbits(40):x}"',
        "null",
        "false",
    ]
    body = ", ".join(f'"k{r.getrandbits(6)}": {r.choice(simple)}' for _ in range(r.randint(0, 5)))
    return f"{{{body}}}" if r.random() < 0.7 else f"[{', '.join(r.choice(simple) for _ in range(4))}]"


def groups(flavor: Flavor) -> dict[str, list[Case]]:
    """All cases, by the table that holds them."""
    return {
        "integers": list(integers()),
        "fractions": list(fractions()),
        "temporals": list(temporals()),
        "texts": list(texts()),
        "bytes_and_shapes": list(bytes_and_shapes(flavor)),
        "documents": list(documents(flavor)),
    }


def create(name: str, cases: Sequence[Case], *, keyed: bool) -> str:
    """CREATE TABLE with a column for each case."""
    columns = ", ".join(f"c{i} {case.kind}" for i, case in enumerate(cases))
    key = "PRIMARY KEY (id)" if keyed else "KEY (id)"
    return f"CREATE TABLE {name} (id INT NOT NULL, {columns}, {key}) CHARACTER SET utf8mb4"


def insert(connection: Connection, name: str, cases: Sequence[Case], rows: dict[int, list[object]]) -> None:
    """Inserts rows (by id) in one statement."""
    if not rows:
        return
    written = (
        f"({number}, " + ", ".join(_written(case, each) for case, each in zip(cases, row, strict=True)) + ")"
        for number, row in rows.items()
    )
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {name} VALUES {', '.join(written)}")


def _written(case: Case, value: object) -> str:
    """The value in SQL. As hexadecimal, a text means the same in every sql_mode."""
    match value:
        case None:
            return "DEFAULT" if "NOT NULL" in case.kind else "NULL"
        case Sql():
            return str(value)
        case bytes():
            return case.place.format(f"x'{value.hex()}'")
        case str():
            return case.place.format(f"_utf8mb4 x'{value.encode().hex()}'")
        case _:
            return case.place.format(value)
