"""TABLE_MAP events: what the columns of the rows that follow are, by the source's own word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cdc.errors import BinlogError
from cdc.values.binlog import BinlogColumn, binlog_column, meta_length

# Column type codes that the optional metadata counts as numeric, and as character columns
# (MySQL 9.x source documentation, class Table_map_event, "Optional metadata").
_TINY, _SHORT, _LONG, _FLOAT, _DOUBLE, _LONGLONG, _INT24, _YEAR, _NEWDECIMAL = 1, 2, 3, 4, 5, 8, 9, 13, 246
_NUMERIC = {_TINY, _SHORT, _LONG, _FLOAT, _DOUBLE, _LONGLONG, _INT24, _YEAR, _NEWDECIMAL}
_VARCHAR, _BIT, _VECTOR, _ENUM, _SET, _BLOB, _VAR_STRING, _STRING, _GEOMETRY = (
    15,
    16,
    242,
    247,
    248,
    252,
    253,
    254,
    255,
)
_BLOB_COMPRESSED, _VARCHAR_COMPRESSED = 140, 141  # MariaDB
_CHARACTER = {_VARCHAR, _BLOB, _VAR_STRING, _STRING, _GEOMETRY, _BLOB_COMPRESSED, _VARCHAR_COMPRESSED}

# Kinds of optional metadata (the same source).
_SIGNEDNESS = 1
_DEFAULT_CHARSET = 2
_COLUMN_CHARSET = 3
_COLUMN_NAME = 4
_SET_STR_VALUE = 5
_ENUM_STR_VALUE = 6
_SIMPLE_PRIMARY_KEY = 8
_PRIMARY_KEY_WITH_PREFIX = 9
_ENUM_AND_SET_DEFAULT_CHARSET = 10
_ENUM_AND_SET_COLUMN_CHARSET = 11


@dataclass(frozen=True, slots=True)
class TableMap:
    """Schema, name and columns of a table as one TABLE_MAP event describes them.

    `named` is False where the source writes no column names (binlog_row_metadata is not FULL). `primary_key`
    holds the places of its columns, in key order; where the table has none, those of a unique key without NULL,
    or none.
    """

    schema: str
    table: str
    columns: tuple[BinlogColumn, ...]
    named: bool
    primary_key: tuple[int, ...] = ()


def read_lenenc(data: bytes, pos: int) -> tuple[int, int]:
    """A length-encoded integer at `pos` and the place behind it (MySQL protocol, "Integer Types")."""
    first = data[pos]
    if first < 251:
        return first, pos + 1
    width = {252: 2, 253: 3, 254: 8}.get(first)
    if width is None:
        raise BinlogError("a length in a binlog event is not valid", hint="report the source's version")
    return int.from_bytes(data[pos + 1 : pos + 1 + width], "little"), pos + 1 + width


def _lenencs(data: bytes) -> Iterator[int]:
    pos = 0
    while pos < len(data):
        number, pos = read_lenenc(data, pos)
        yield number


def _strings(data: bytes) -> Iterator[bytes]:
    pos = 0
    while pos < len(data):
        length, pos = read_lenenc(data, pos)
        yield data[pos : pos + length]
        pos += length


def _member_lists(data: bytes) -> Iterator[list[bytes]]:
    pos = 0
    while pos < len(data):
        count, pos = read_lenenc(data, pos)
        members = []
        for _ in range(count):
            length, pos = read_lenenc(data, pos)
            members.append(data[pos : pos + length])
            pos += length
        yield members


def _bits(data: bytes) -> Iterator[bool]:
    """Bits from the highest of each byte down: the order that SIGNEDNESS uses."""
    for byte in data:
        for shift in range(7, -1, -1):
            yield bool(byte >> shift & 1)


def _per_column(indexes: list[int], values: Iterator[int]) -> dict[int, int]:
    return dict(zip(indexes, values, strict=False))


def _with_default(indexes: list[int], data: bytes) -> dict[int, int]:
    """A default collation, then pairs of (index among the columns concerned, collation)."""
    numbers = list(_lenencs(data))
    result = dict.fromkeys(indexes, numbers[0])
    for at, collation in zip(numbers[1::2], numbers[2::2], strict=True):
        result[indexes[at]] = collation
    return result


def read_table_map(
    body: bytes, collations: Mapping[int, str], decode: Callable[[bytes, str | None], str]
) -> TableMap:
    """The table that `body` describes: the event behind its header, without table id and checksum.

    `collations` names the character set of a collation id; `decode` turns bytes of such a character set
    into text (for ENUM and SET members). Raises BinlogError where the bytes make no sense.
    """
    try:
        return _read(body, collations, decode)
    except (IndexError, ValueError) as error:
        raise BinlogError(
            "a TABLE_MAP event can't be read", hint="report the source's version and the table's definition"
        ) from error


def _read(body: bytes, collations: Mapping[int, str], decode: Callable[[bytes, str | None], str]) -> TableMap:
    pos = 2  # flags
    length = body[pos]
    schema = body[pos + 1 : pos + 1 + length].decode()
    pos += length + 2
    length = body[pos]
    table = body[pos + 1 : pos + 1 + length].decode()
    pos += length + 2
    count, pos = read_lenenc(body, pos)
    codes = body[pos : pos + count]
    pos += count
    length, pos = read_lenenc(body, pos)
    metas = []
    at = pos
    for code in codes:
        size = meta_length(code)
        metas.append(body[at : at + size])
        at += size
    pos += length
    if at != pos:
        raise ValueError("type metadata")
    pos += (count + 7) // 8  # which columns may be NULL

    real = [_real_code(code, meta) for code, meta in zip(codes, metas, strict=True)]
    numeric = [i for i, code in enumerate(real) if code in _NUMERIC]
    character = [i for i, code in enumerate(real) if code in _CHARACTER]
    choices = [i for i, code in enumerate(real) if code in (_ENUM, _SET)]
    names: list[bytes] = []
    unsigned: dict[int, int] = {}
    collation: dict[int, int] = {}
    members: dict[int, list[bytes]] = {}
    key: tuple[int, ...] = ()
    while pos < len(body):
        kind = body[pos]
        length, pos = read_lenenc(body, pos + 1)
        data = body[pos : pos + length]
        pos += length
        if kind == _SIGNEDNESS:
            unsigned = _per_column(numeric, iter(_bits(data)))
        elif kind == _DEFAULT_CHARSET:
            collation.update(_with_default(character, data))
        elif kind == _COLUMN_CHARSET:
            collation.update(_per_column(character, _lenencs(data)))
        elif kind == _ENUM_AND_SET_DEFAULT_CHARSET:
            collation.update(_with_default(choices, data))
        elif kind == _ENUM_AND_SET_COLUMN_CHARSET:
            collation.update(_per_column(choices, _lenencs(data)))
        elif kind == _COLUMN_NAME:
            names = list(_strings(data))
        elif kind == _ENUM_STR_VALUE:
            enums = (i for i in choices if real[i] == _ENUM)
            members.update(zip(enums, _member_lists(data), strict=True))
        elif kind == _SET_STR_VALUE:
            sets = (i for i in choices if real[i] == _SET)
            members.update(zip(sets, _member_lists(data), strict=True))
        elif kind == _SIMPLE_PRIMARY_KEY:
            key = tuple(_lenencs(data))
        elif kind == _PRIMARY_KEY_WITH_PREFIX:
            key = tuple(_lenencs(data))[::2]
        # Other kinds (visibility, geometry type, vector length) add nothing that decoding needs.
    columns = []
    for i, (code, meta) in enumerate(zip(codes, metas, strict=True)):
        character_set = collations.get(collation[i]) if i in collation else None
        if i in collation and character_set is None:
            raise BinlogError(
                f"table {schema}.{table} has a column of unknown collation {collation[i]}",
                hint="restart Duckling so that it reads the source's collations again",
                table=table,
            )
        columns.append(
            binlog_column(
                code,
                meta,
                name=names[i].decode() if names else f"@{i + 1}",
                unsigned=bool(unsigned.get(i)),
                character_set=character_set,
                members=tuple(decode(member, character_set) for member in members.get(i, ())),
            )
        )
    return TableMap(schema, table, tuple(columns), named=len(names) == count, primary_key=key)


def _real_code(code: int, meta: bytes) -> int:
    """ENUM and SET travel as STRING, their real type in the first byte of the metadata."""
    return meta[0] if code == _STRING and meta[0] in (_ENUM, _SET) else code
