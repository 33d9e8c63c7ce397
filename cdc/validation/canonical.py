"""One text for one value, that the source and DuckDB compute alike: what checksums are made of.

Each type of docs/types.md has a pair of SQL expressions, one for the source's server and one for DuckDB.
For the same value both give the same bytes, for different values of a column different ones, and NULL for
NULL. The server's session is one of `SourceEndpoint.connect`: UTC, utf8mb4, no sql_mode.

| type | text |
|---|---|
| integers, YEAR, BIT | decimal digits; `+ 0` takes ZEROFILL's zeros off and makes a number of bits |
| TINYINT(1) as BOOLEAN | 0 or 1 |
| DECIMAL | all digits of the scale; CAST takes ZEROFILL's zeros off |
| FLOAT, DOUBLE | the 8 bytes of the double, in hexadecimal; a FLOAT is a double exactly |
| DATE, DATETIME, TIMESTAMP | as printed in UTC; dates that the calendar lacks are NULL, as they are in the copy |
| TIME | microseconds |
| texts of up to 255 characters, ENUM, SET | number of bytes in UTF-8, colon, text |
| longer texts, JSON | SHA-256 of the text in UTF-8 |
| BINARY, BLOB and the like | up to 255 bytes in hexadecimal, longer ones as SHA-256 |
| GEOMETRY | SHA-256 of the WKB, which the server stores behind four bytes of SRID |
| VECTOR | the numbers' bytes in hexadecimal, all of them turned round |
| UUID, INET4, INET6 | as printed |

No function of the server gives a double's bytes, but the WKB of a POINT holds its coordinates as they are,
little-endian (OGC 06-103r4, 8.2.8).

SHA-256, because MySQL 9.6 took MD5() and SHA1() out of the server, and because both sides compute it with the
processor's instructions for it.

Where a text can't be the same on both sides (half of a surrogate pair, which is no Unicode and becomes U+FFFD
in the copy), the checksums of a row differ although its values don't: such rows are fetched and compared as
the copy would hold them (`cdc.validation.comparison`), so that no alarm is raised for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdc.schema import Column, quote_duckdb, quote_mysql
from cdc.types import DATES, DECIMAL_DIGITS, GEOMETRIES, TEXTS

SHORT = 255
"""Characters (bytes of binary types) up to which a value goes into a row's text as it is."""
_SUMMED = 15
"""Hexadecimal digits of a digest that go into a checksum: 60 bits, which both sides add up exactly."""
_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year", "bit"})
_BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_SHORT_BYTES = frozenset({"binary", "varbinary", "tinyblob"})
_SHORT_TEXTS = frozenset({"char", "varchar", "tinytext", "enum", "set"})


@dataclass(frozen=True, slots=True)
class Canonical:
    """An SQL expression of the source, and one of DuckDB, that give the same."""

    server: str
    copy: str


def canonical_value(column: Column) -> Canonical:
    """The pair for one column, see the table above; NULL for NULL."""
    server, copy = quote_mysql(column.name), quote_duckdb(column.name)
    kind = column.data_type
    if column.choice == "boolean":
        return Canonical(f"({server} <> 0)", f"{copy}::UTINYINT::VARCHAR")
    if kind in _INTEGERS:
        return Canonical(f"({server} + 0)", f"{copy}::VARCHAR")
    if kind == "decimal":
        return _decimal(column, server, copy)
    if kind in ("float", "double"):
        # Times 1e0 makes a double of a FLOAT, and of DOUBLE(m,d) the number that is stored.
        return Canonical(
            f"HEX(REVERSE(SUBSTR(ST_AsBinary(POINT({server} * 1e0, 0)), 6, 8)))",
            f"hex({copy}::DOUBLE::BIT::BLOB)",
        )
    if kind in DATES:
        return _date(column, server, copy)
    if kind == "time":
        # As a number hhmmss.ffffff: TIME_TO_SEC would lose the sign of what is nearer to zero than a second.
        hours = f"CAST({server} AS DECIMAL(16,6))"
        seconds = f"{hours} - 40 * TRUNCATE({hours} / 100, 0) - 2400 * TRUNCATE({hours} / 10000, 0)"
        return Canonical(f"TRUNCATE(({seconds}) * 1000000, 0)", f"epoch_us({copy})::VARCHAR")
    if kind in TEXTS:
        return _text(column, server, copy)
    if kind == "json":
        return Canonical(
            f"SHA2(CAST({server} AS CHAR CHARACTER SET utf8mb4), 256)", f"sha256({copy}::VARCHAR)"
        )
    if kind in _BYTES:
        if _is_short(column, _SHORT_BYTES):
            return Canonical(f"HEX({server})", f"hex({copy})")
        return Canonical(f"SHA2({server}, 256)", f"sha256({copy})")
    if kind in GEOMETRIES:
        return Canonical(f"SHA2(SUBSTR({server}, 5), 256)", f"sha256(ST_AsWKB({copy}))")
    if kind == "vector":
        numbers = f"[hex(x::BIT::BLOB) for x in list_reverse({copy})]"
        text = f"CASE WHEN {copy} IS NOT NULL THEN array_to_string({numbers}, '') END"
        return Canonical(f"HEX(REVERSE(CAST({server} AS BINARY)))", text)
    return Canonical(f"CAST({server} AS CHAR)", f"{copy}::VARCHAR")


def _is_short(column: Column, kinds: frozenset[str]) -> bool:
    return column.data_type in kinds and (column.length is None or column.length <= SHORT)


def _decimal(column: Column, server: str, copy: str) -> Canonical:
    precision, scale = column.precision or 0, column.scale or 0
    there = f"CAST({server} AS DECIMAL({precision},{scale}))"
    if precision > DECIMAL_DIGITS:
        return Canonical(there, copy)
    # DuckDB prints .5 where all digits stand behind the point.
    here = f"{copy}::DECIMAL({precision + 1},{scale})" if precision == scale else copy
    return Canonical(there, f"{here}::VARCHAR")


def _date(column: Column, server: str, copy: str) -> Canonical:
    leap = f"YEAR({server}) % 4 = 0 AND (YEAR({server}) % 100 <> 0 OR YEAR({server}) % 400 = 0)"
    last = f"CASE MONTH({server}) WHEN 0 THEN 0 WHEN 2 THEN IF({leap}, 29, 28) WHEN 4 THEN 30 WHEN 6 THEN 30"
    last += " WHEN 9 THEN 30 WHEN 11 THEN 30 ELSE 31 END"
    exists = f"YEAR({server}) > 0 AND DAYOFMONTH({server}) BETWEEN 1 AND {last}"
    there = f"CASE WHEN {exists} THEN CAST({server} AS CHAR) END"
    if column.data_type == "date":
        return Canonical(there, f"{copy}::VARCHAR")
    length = 20 + column.fraction if column.fraction else 19
    return Canonical(there, f"left(strftime({copy}, '%Y-%m-%d %H:%M:%S.%f'), {length})")


def _text(column: Column, server: str, copy: str) -> Canonical:
    text = f"CONVERT({server} USING utf8mb4)"
    here = f"{copy}::VARCHAR" if column.choice == "enum" else copy
    if _is_short(column, _SHORT_TEXTS):
        return Canonical(
            f"CONCAT(LENGTH({text}), ':', CAST({text} AS BINARY))", f"(strlen({here}) || ':' || {here})"
        )
    return Canonical(f"SHA2({text}, 256)", f"sha256({here})")


def row_digest(columns: Sequence[Column]) -> Canonical:
    """SHA-256 of a row, as 64 hexadecimal digits in lower case.

    Of all values' texts with a comma between, N for NULL. No text but the short ones, which tell their
    length, holds a comma or begins with N: so different rows have different texts.
    """
    values = [canonical_value(column) for column in columns]
    there = ", ".join(f"IFNULL({value.server}, 'N')" for value in values)
    here = ", ".join(f"coalesce({value.copy}, 'N')" for value in values)
    return Canonical(f"SHA2(CONCAT_WS(',', {there}), 256)", f"sha256(concat_ws(',', {here}))")


def checksum(digest: Canonical) -> Canonical:
    """The checksum of rows: the sum of 60 bits of their digests; NULL where there are none.

    A sum, and not XOR, because equal rows of tables without a key would cancel each other out.
    """
    return Canonical(
        f"SUM(CAST(CONV(SUBSTR({digest.server}, 1, {_SUMMED}), 16, 10) AS UNSIGNED))",
        f"sum(('0x' || substr({digest.copy}, 1, {_SUMMED}))::UBIGINT)",
    )


def bucket(digest: Canonical, buckets: int) -> Canonical:
    """A row's bucket, 0 to `buckets` - 1, at most 2^28: from digits that are not in the checksum."""
    at = f"{_SUMMED + 1}, 7"
    return Canonical(
        f"(CAST(CONV(SUBSTR({digest.server}, {at}), 16, 10) AS UNSIGNED) % {buckets})",
        f"(('0x' || substr({digest.copy}, {at}))::UINTEGER % {buckets})",
    )
