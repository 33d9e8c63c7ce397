"""Every type on both real servers: the text protocol and the binary log give equal columns."""

from __future__ import annotations

import datetime
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from pydantic import SecretStr
from pymysql.connections import Connection
from pymysql.constants import COMMAND

from cdc.config import Settings
from cdc.sandbox.databases import Database
from cdc.sandbox.installation import Flavor
from cdc.schema import Column, Table
from cdc.source.catalog import load_tables
from cdc.source.connection import SourceEndpoint
from cdc.types import arrow_type, duckdb_type, select_expression, unsupported
from cdc.values.binlog import (
    BinlogColumn,
    Fixed,
    binlog_column,
    fixed_column,
    meta_length,
    prefixed_column,
    storage,
)
from cdc.values.text import text_column

ROWS = 60
Value = Callable[[random.Random], object]


def numbers() -> Iterator[tuple[str, Value]]:
    """Types of numbers with random values and extremes."""
    for name, bits in (("tinyint", 8), ("smallint", 16), ("mediumint", 24), ("int", 32), ("bigint", 64)):
        low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        yield name, lambda r, low=low, high=high: r.choice([low, high, 0, -1, r.randint(low, high)])  # type: ignore[misc]
        yield f"{name} unsigned", lambda r, top=2 * high + 1: r.choice([top, 0, r.randint(0, top)])  # type: ignore[misc]
    yield "bigint(60) zerofill", lambda r: r.getrandbits(64)
    narrow = ((1, 0), (1, 1), (9, 0), (12, 3), (18, 4), (19, 0), (27, 9), (38, 0), (38, 30))
    for precision, scale in (*narrow, (39, 1), (65, 0), (65, 30)):
        yield f"decimal({precision},{scale})", _decimal(precision, scale)
    yield "decimal(45,3) zerofill", lambda r: r.choice(["0.5", "123456.789", "0"])
    yield (
        "float",
        lambda r: r.choice(["16777215", "-0e0", "1e-45", "3.4028234663852886e38", repr(_float(r, "<f"))]),
    )
    yield "double", lambda r: r.choice(["-0e0", "5e-324", "1.7976931348623157e308", repr(_float(r, "<d"))])
    yield "double(15,3)", lambda r: r.uniform(-1e11, 1e11)
    for bits in (1, 7, 8, 9, 17, 33, 64):
        yield f"bit({bits})", lambda r, bits=bits: r.choice([(1 << bits) - 1, 0, r.getrandbits(bits)])  # type: ignore[misc]


def _decimal(precision: int, scale: int) -> Value:
    def value(r: random.Random) -> str:
        digits = str(r.choice([r.randrange(10**precision), 10**precision - 1, 0, 1])).rjust(scale + 1, "0")
        whole, fraction = digits[: len(digits) - scale], digits[len(digits) - scale :]
        return r.choice(["", "-"]) + whole + (f".{fraction}" if scale else "")

    return value


def _float(r: random.Random, form: str) -> float:
    while True:
        number: float = struct.unpack(form, r.randbytes(struct.calcsize(form)))[0]
        if number == number and abs(number) != float("inf"):
            return number


def temporals() -> Iterator[tuple[str, Value]]:
    """Dates and times, zero, partial and impossible ones included."""
    yield "date", _date
    yield "year", lambda r: r.choice([0, 1901, 2155])
    for fraction in range(7):
        yield f"datetime({fraction})", lambda r: f"{_date(r)} {_clock(r, 23)}"
        yield f"timestamp({fraction}) null", _timestamp
        yield f"time({fraction})", lambda r: r.choice(["", "-"]) + _clock(r, 838)


def _date(r: random.Random) -> str:
    odd = ["0000-00-00", "2024-00-00", "2024-02-30", "0000-05-01", "0001-01-01", "9999-12-31", "2000-02-29"]
    real = str(datetime.date.fromordinal(r.randint(1, 3652059)))
    return r.choice([*odd, f"{r.randint(0, 9999):04d}-{r.randint(0, 12):02d}-{r.randint(0, 31):02d}", real])


def _clock(r: random.Random, hours: int) -> str:
    hour = r.choice([0, r.randint(0, hours)])
    return f"{hour:02d}:{r.randint(0, 59):02d}:{r.randint(0, 59):02d}.{r.choice([0, r.randrange(10**6)]):06d}"


def _timestamp(r: random.Random) -> object:
    moment = datetime.datetime.fromtimestamp(r.randint(86400, 2**31 - 2 * 86400), datetime.UTC)
    return r.choice([0, f"{moment:%Y-%m-%d %H:%M:%S}.{r.randrange(10**6):06d}"])


def texts(charsets: list[str]) -> Iterator[tuple[str, Value]]:
    """Character and byte types, members, and every character set of the server."""
    for charset in charsets:
        yield f"varchar(60) character set {charset}", _text
        yield f"char(60) character set {charset}", _text
        yield f"mediumtext character set {charset}", _text
        yield (
            f"enum('a','b''c','x,y') character set {charset}",
            lambda r: r.choice(["a", "b'c", "x,y", "none"]),
        )
    for length in (1, 16, 255):
        yield f"binary({length})", lambda r, n=length: r.randbytes(r.randint(0, n))  # type: ignore[misc]
    yield "varbinary(300)", lambda r: r.randbytes(r.randint(0, 300))
    yield "tinyblob", lambda r: r.randbytes(r.randint(0, 255))
    yield "longblob", lambda r: r.randbytes(r.randint(0, 999))
    for count in (1, 8, 9, 17, 33, 64):
        members = ",".join(f"'m{i}é'" for i in range(count))
        yield f"set({members})", lambda r, n=count: r.getrandbits(n)  # type: ignore[misc]


def _text(r: random.Random) -> str:
    ranges = [(1, 127), (0xA0, 0x24F), (0x400, 0x4FF), (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3)]
    ranges += [(0x1F300, 0x1F600), (1, 0xD7FF)]
    return "".join(chr(r.randint(*r.choice(ranges))) for _ in range(r.randint(0, 12))) + r.choice(["", "  "])


def of_flavor(flavor: Flavor) -> Iterator[tuple[str, Value]]:
    """Types that only one of both servers has."""
    if flavor is Flavor.MYSQL:
        yield "vector(5)", lambda r: struct.pack("<3f", *(r.uniform(-9, 9) for _ in range(3)))
        documents = [
            "null",
            '{"a": [1.0e3, {"é": "x\\u0001\\n😀"}], "b": -2.5e-17}',
            "18446744073709551615",
            "[]",
        ]
        yield "json", lambda r: r.choice([*documents, repr(_float(r, "<d"))])
    else:
        yield "json", lambda r: r.choice(["null", '{"b": 1,  "a": 2.50}'])
        yield "uuid", lambda r: f"{r.getrandbits(128) & ~r.choice([0, 0xFFFF, 2**100 - 1]):032x}"
        yield "inet4", lambda r: ".".join(str(r.choice([0, 255, r.randint(0, 255)])) for _ in range(4))
        yield (
            "inet6",
            lambda r: ":".join(f"{r.choice([0, 0, 0xFFFF, r.getrandbits(16)]):x}" for _ in range(8)),
        )
        yield "varchar(3000) compressed", lambda r: _text(r) * r.randint(0, 40)
        yield "mediumblob compressed", lambda r: r.randbytes(5) * r.randint(0, 400)
        yield "text character set sjis compressed", lambda r: _text(r) * 20


def fill(database: Database) -> dict[str, str]:
    """A table for each type, with its rows; answers with the SQL type of each table."""
    r = random.Random(20240229)
    declared: dict[str, str] = {}
    with database.connect(sql_mode="NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES").cursor() as cursor:
        # what does not fit is changed with a warning: zero dates, "?" for a character, '' for a member
        cursor.execute("SELECT character_set_name FROM information_schema.character_sets")
        charsets = [str(name) for (name,) in cursor.fetchall() if name != "binary"]
        cases = [*numbers(), *temporals(), *texts(charsets), *of_flavor(database.flavor)]
        for number, (kind, value) in enumerate(cases):
            table = f"t{number:03d}"
            declared[table] = kind
            cursor.execute(f"CREATE TABLE {table} (id INT PRIMARY KEY, c {kind})")
            place = "CAST(%s AS UNSIGNED)" if kind.startswith(("bit", "set")) else "%s"
            rows = [(i, value(r) if r.random() > 0.15 else None) for i in range(ROWS)]
            cursor.executemany(f"INSERT INTO {table} VALUES (%s, {place})", rows)
        cursor.execute("CREATE TABLE shapes (id INT PRIMARY KEY, c GEOMETRY)")
        points = [(i, f"POINT(1 {i})", i % 2 * 4326) for i in range(ROWS)]
        cursor.executemany(
            "INSERT INTO shapes VALUES (%s, ST_GeomFromText(%s, %s))", [*points, (ROWS, None, 0)]
        )
    return declared | {"shapes": "geometry"}


def position(database: Database) -> tuple[str, int]:
    """The current end of the binary log."""
    of = "BINARY LOG" if database.flavor is Flavor.MYSQL else "MASTER"
    with database.connect().cursor() as cursor:
        cursor.execute(f"SHOW {of} STATUS")
        [(file, at, *_)] = cursor.fetchall()
    return str(file), int(at)


def row_events(connection: Connection, file: str, at: int) -> Iterator[tuple[int, bytes]]:
    """Type and body of TABLE_MAP (19) and insert events (23, 30) from a position to the end of the log."""
    with connection.cursor() as cursor:
        cursor.execute("SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32'")
        cursor.execute("SET @mariadb_slave_capability = 4")
        cursor.execute("SELECT @@GLOBAL.binlog_checksum")
        checksum = 4 if cursor.fetchall() == (("CRC32",),) else 0
    request = struct.pack("<IHI", at, 1, 771_239) + file.encode()  # flag 1: end at the end of the log
    connection._execute_command(COMMAND.COM_BINLOG_DUMP, request)
    while not (packet := connection._read_packet()).is_eof_packet():
        data = packet.get_all_data()[1:]
        if data[4] in (19, 23, 30):
            yield data[4], data[19 : len(data) - checksum]


def inserted(connection: Connection, start: tuple[str, int], tables: dict[str, Table]) -> dict[str, Any]:
    """Columns and cells of every table, read from its insert events."""
    found: dict[str, tuple[list[BinlogColumn], list[list[bytes | None]]]] = {}
    columns: list[BinlogColumn] = []
    name = ""
    for kind, body in row_events(connection, *start):
        if kind == 19:
            schema_end = 9 + body[8]
            name_end = schema_end + 2 + body[schema_end + 1]
            name = body[schema_end + 2 : name_end].decode()
            if body[9:schema_end].decode() != tables["shapes"].schema:
                name = ""
                continue
            columns = _columns(body[name_end + 1 :], tables[name])
            found.setdefault(name, (columns, [[] for _ in columns]))
        elif name:
            at = 8 + (struct.unpack_from("<H", body, 8)[0] if kind == 30 else 0)
            _read_rows(body[at + 2 :], columns, found[name][1])  # after the count and the bitmap of columns
    return found


def _columns(block: bytes, table: Table) -> list[BinlogColumn]:
    count = block[0]
    meta = block[count + 2 :]
    columns = []
    for code, column in zip(block[1 : count + 1], table.columns, strict=True):
        size = meta_length(code)
        columns.append(
            binlog_column(
                code,
                meta[:size],
                name=column.name,
                unsigned=column.unsigned,
                character_set=column.character_set,
                members=column.members,
            )
        )
        meta = meta[size:]
    return columns


def _read_rows(rows: bytes, columns: list[BinlogColumn], cells: list[list[bytes | None]]) -> None:
    at = 0
    while at < len(rows):
        nulls = rows[at]
        at += 1
        for i, column in enumerate(columns):
            if nulls >> i & 1:
                cells[i].append(None)
                continue
            match storage(column):
                case Fixed(width):
                    size = width
                case prefixed:
                    size = int.from_bytes(rows[at : at + prefixed.length_bytes], "little")
                    at += prefixed.length_bytes
            cells[i].append(rows[at : at + size])
            at += size


def streamed(target: Column, origin: BinlogColumn, cells: list[bytes | None]) -> pa.Array:
    """The column as the stream converts it."""
    match storage(origin):
        case Fixed(width):
            present = b"".join(bytes(width) if cell is None else cell for cell in cells)
            valid = np.array([cell is not None for cell in cells])
            return fixed_column(target, origin, np.frombuffer(present, np.uint8).reshape(-1, width), valid)
        case _:
            return prefixed_column(target, origin, cells)


def copied(connection: Connection, table: Table) -> list[pa.Array]:
    """The columns as the copy converts them."""
    expressions = ", ".join(select_expression(column) for column in table.columns)
    with connection.cursor() as cursor:
        # the cells must come as the bytes that the protocol carries
        connection.decoders, connection.use_unicode = {}, False
        cursor.execute(f"SELECT {expressions} FROM {table.source_name} ORDER BY id")
        rows = cursor.fetchall()
    return [text_column(column, [row[i] for row in rows]) for i, column in enumerate(table.columns)]


def test_every_type_is_the_same_by_copy_and_by_stream(database: Database) -> None:
    start = position(database)
    declared = fill(database)
    endpoint = SourceEndpoint(Settings(mysql_connection_string=SecretStr(database.url)))
    session = endpoint.connect(purpose="a test")
    tables = {table.name: table for table in load_tables(session, database.name)}
    assert tables.keys() == declared.keys()
    stream = inserted(database.connect(), start, tables)
    duck = duckdb.connect()
    for name, table in tables.items():
        columns, cells = stream[name]
        for target, origin, mine, copy in zip(
            table.columns, columns, cells, copied(session, table), strict=True
        ):
            assert unsupported(target) is None
            array = streamed(target, origin, mine)
            copy.validate(full=True)
            array.validate(full=True)
            assert copy.type == array.type == arrow_type(target)
            assert copy.equals(array), declared[name]
            duck.register("batch", pa.table({"c": array}))
            duck.execute(f"CREATE OR REPLACE TABLE landed (c {duckdb_type(target)})")
            duck.execute("INSERT INTO landed SELECT c FROM batch")
    session.close()
    duck.close()
