"""A column as a TABLE_MAP event describes it, and how its values lie in a row image."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from cdc.errors import BinlogError, ValueDecodeError
from cdc.values.decimals import decimal_width


class FieldType(IntEnum):
    """Type codes of TABLE_MAP (MySQL's field_types.h; 140 and 141 are MariaDB's)."""

    DECIMAL = 0
    TINY = 1
    SHORT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    TIMESTAMP = 7
    LONGLONG = 8
    INT24 = 9
    DATE = 10
    TIME = 11
    DATETIME = 12
    YEAR = 13
    NEWDATE = 14
    VARCHAR = 15
    BIT = 16
    TIMESTAMP2 = 17
    DATETIME2 = 18
    TIME2 = 19
    BLOB_COMPRESSED = 140
    VARCHAR_COMPRESSED = 141
    VECTOR = 242
    JSON = 245
    NEWDECIMAL = 246
    ENUM = 247
    SET = 248
    TINY_BLOB = 249
    MEDIUM_BLOB = 250
    LONG_BLOB = 251
    BLOB = 252
    VAR_STRING = 253
    STRING = 254
    GEOMETRY = 255


_LENGTH_IN_META = frozenset(
    {
        FieldType.BLOB,
        FieldType.TINY_BLOB,
        FieldType.MEDIUM_BLOB,
        FieldType.LONG_BLOB,
        FieldType.BLOB_COMPRESSED,
        FieldType.JSON,
        FieldType.GEOMETRY,
        FieldType.VECTOR,
    }
)
_FRACTION_IN_META = frozenset({FieldType.TIME2, FieldType.DATETIME2, FieldType.TIMESTAMP2})
_VARYING = frozenset({FieldType.VARCHAR, FieldType.VAR_STRING, FieldType.VARCHAR_COMPRESSED})
_ONE_BYTE_META = _LENGTH_IN_META | _FRACTION_IN_META | {FieldType.FLOAT, FieldType.DOUBLE}
_TWO_BYTE_META = _VARYING | {
    FieldType.BIT,
    FieldType.NEWDECIMAL,
    FieldType.STRING,
    FieldType.ENUM,
    FieldType.SET,
}
_NO_META = {
    FieldType.TINY: 1,
    FieldType.SHORT: 2,
    FieldType.INT24: 3,
    FieldType.LONG: 4,
    FieldType.LONGLONG: 8,
    FieldType.DATE: 3,
    FieldType.NEWDATE: 3,
    FieldType.YEAR: 1,
}
_SECONDS_WIDTH = {FieldType.TIME2: 3, FieldType.TIMESTAMP2: 4, FieldType.DATETIME2: 5}
_OLD = frozenset({FieldType.DECIMAL, FieldType.TIMESTAMP, FieldType.TIME, FieldType.DATETIME})


@dataclass(frozen=True, slots=True)
class Fixed:
    """A non-NULL value is `width` bytes (0 for an empty BIT that no server makes)."""

    width: int


@dataclass(frozen=True, slots=True)
class Prefixed:
    """A non-NULL value is a little-endian length of `length_bytes` (1 to 4), then as many bytes."""

    length_bytes: int


@dataclass(frozen=True, slots=True)
class BinlogColumn:
    """One column of a TABLE_MAP. Make it with `binlog_column`, which resolves the metadata bytes.

    `type_code` is the real type: STRING is STRING, ENUM or SET. `width` is the size of a fixed value in
    bytes; `length_bytes` that of the length before another value (0 where fixed); `max_length` the declared
    bytes of CHAR, VARCHAR and their binary kin; `precision` and `scale` are DECIMAL's; `fraction` the digits
    after the second; `bits` BIT's length; `dimension` VECTOR's. `collation_id`, `srid`, `members`,
    `character_set` and `unsigned` come from the optional metadata (binlog_row_metadata=FULL).
    """

    name: str
    type_code: int
    width: int = 0
    length_bytes: int = 0
    max_length: int = 0
    precision: int = 0
    scale: int = 0
    fraction: int = 0
    bits: int = 0
    unsigned: bool = False
    collation_id: int | None = None
    character_set: str | None = None
    members: tuple[str, ...] = ()
    srid: int | None = None
    dimension: int | None = None


def meta_length(type_code: int) -> int:
    """Bytes of TABLE_MAP's metadata block that a column of this raw type takes: 0, 1 or 2.

    Raises BinlogError for a type that is not known, for then the block can't be cut.
    """
    if type_code in _NO_META or type_code in _OLD:
        return 0
    if type_code in _ONE_BYTE_META:
        return 1
    if type_code in _TWO_BYTE_META:
        return 2
    raise BinlogError(
        f"A table map has the unknown column type {type_code}.", hint="exclude the table, or upgrade Duckling"
    )


def binlog_column(
    type_code: int,
    meta: bytes,
    *,
    name: str,
    unsigned: bool = False,
    character_set: str | None = None,
    members: tuple[str, ...] = (),
    collation_id: int | None = None,
    srid: int | None = None,
    dimension: int | None = None,
) -> BinlogColumn:
    """The column of a raw type byte and its `meta_length` bytes of TABLE_MAP.

    Layouts: MySQL's rows_event.h, Table_map_event. Raises ValueDecodeError for types that no longer exist.
    """
    kind = type_code
    width = length_bytes = max_length = precision = scale = fraction = bits = 0
    if len(meta) != meta_length(kind):
        raise BinlogError(f"Column {name} has {len(meta)} bytes of metadata, which is wrong for type {kind}.")
    if kind in _OLD:
        raise ValueDecodeError(
            f"Column {name} is stored in a temporal or decimal format of MySQL before 5.6.",
            hint="rebuild the table at the source: ALTER TABLE … FORCE",
        )
    if kind in _NO_META:
        width = _NO_META[FieldType(kind)]
    elif kind in _LENGTH_IN_META:
        length_bytes = meta[0]
    elif kind in _FRACTION_IN_META:
        fraction = meta[0]
        width = _SECONDS_WIDTH[FieldType(kind)] + (fraction + 1) // 2
    elif kind in (FieldType.FLOAT, FieldType.DOUBLE):
        width = meta[0]
    elif kind in _VARYING:
        max_length = int.from_bytes(meta, "little")
        length_bytes = 1 if max_length < 256 else 2
    elif kind == FieldType.BIT:
        bits = meta[1] * 8 + meta[0]
        width = (bits + 7) // 8
    elif kind == FieldType.NEWDECIMAL:
        precision, scale = meta
        width = decimal_width(precision, scale)
    else:  # STRING: the real type, or bits 8 and 9 of the length, inverted, in the type byte
        kind, max_length = meta
        if kind & 0x30 != 0x30:
            max_length |= (kind & 0x30 ^ 0x30) << 4
            kind |= 0x30
        if kind in (FieldType.ENUM, FieldType.SET):
            width, max_length = max_length, 0
        elif kind == FieldType.STRING:
            length_bytes = 1 if max_length < 256 else 2
        else:
            raise BinlogError(f"Column {name} is a string of the unknown type {kind}.")
    return BinlogColumn(
        name=name,
        type_code=kind,
        width=width,
        length_bytes=length_bytes,
        max_length=max_length,
        precision=precision,
        scale=scale,
        fraction=fraction,
        bits=bits,
        unsigned=unsigned,
        collation_id=collation_id,
        character_set=character_set,
        members=members,
        srid=srid,
        dimension=dimension,
    )


def storage(column: BinlogColumn) -> Fixed | Prefixed:
    """How a non-NULL value of the column lies in a row image."""
    return Prefixed(column.length_bytes) if column.length_bytes else Fixed(column.width)
