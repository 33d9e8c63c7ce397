"""DECIMAL in MySQL's binary form (strings/decimal.cc, decimal2bin): groups of nine digits, big endian."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc.errors import ValueDecodeError
from cdc.values.arrays import Bools, Bytes, marked_bytes, primitive
from cdc.values.temporal import big_endian

_WIDTHS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
"""Bytes that hold 0 to 9 digits."""
_FEW = 16
_LOW = (1 << 64) - 1


@cache
def groups(precision: int, scale: int) -> tuple[tuple[int, int], ...]:
    """Digits and bytes of each group, from the left; the partial groups are the outermost."""
    whole, part = divmod(precision - scale, 9)
    fraction, rest = divmod(scale, 9)
    digits = ([part] if part else []) + [9] * (whole + fraction) + ([rest] if rest else [])
    return tuple((count, _WIDTHS[count]) for count in digits)


def decimal_width(precision: int, scale: int) -> int:
    """Bytes of a DECIMAL(precision, scale) in a row."""
    return sum(width for _, width in groups(precision, scale))


def decimal_array(
    precision: int, scale: int, kind: pa.DataType, cells: Bytes, valid: Bools | None
) -> pa.Array:
    """A DECIMAL column of up to 38 digits, by exact integer arithmetic in 128 bits."""
    negative = cells[:, 0] < 0x80
    plain = cells ^ np.where(negative, np.uint8(0xFF), np.uint8(0))[:, None]
    plain[:, 0] ^= 0x80
    if valid is not None:  # the zero bytes under a NULL are no number
        plain[~valid] = 0
    words = np.empty((len(cells), 2), np.int64)
    if len(cells) <= _FEW:
        for row, number in enumerate(_exact(precision, scale, plain)):
            value = -number if negative[row] else number
            words[row] = (value & _LOW) - ((value & 1 << 63) << 1), value >> 64
    elif precision <= 18:
        total = np.zeros(len(cells), np.int64)
        for digits, group in _numbers(precision, scale, plain):
            total *= 10**digits
            total += group
        words[:, 0] = np.where(negative, -total, total)
        words[:, 1] = words[:, 0] >> 63
    else:
        _wide(words.view(np.uint64), precision, scale, plain, negative)
    return primitive(kind, words, valid)


def _numbers(precision: int, scale: int, plain: Bytes) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    at = 0
    for digits, width in groups(precision, scale):
        group = big_endian(plain[:, at : at + width])
        if (group >= 10**digits).any():
            raise _damaged()
        yield digits, group
        at += width


def _damaged() -> ValueDecodeError:
    return ValueDecodeError("A DECIMAL has a group of digits that no server writes.")


def _exact(precision: int, scale: int, plain: Bytes) -> Iterator[int]:
    """Row by row, for batches so small that a hundred array operations would cost more."""
    for row in plain.tolist():
        at = number = 0
        for digits, width in groups(precision, scale):
            group = int.from_bytes(row[at : at + width], "big")
            if group >= 10**digits:
                raise _damaged()
            number = number * 10**digits + group
            at += width
        yield number


def _wide(words: npt.NDArray[np.uint64], precision: int, scale: int, plain: Bytes, negative: Bools) -> None:
    """Four limbs of 32 bits: limb * 10**9 + carry stays below 2**63. Then two's complement where negative."""
    limbs = [np.zeros(len(plain), np.uint64) for _ in range(4)]
    for digits, group in _numbers(precision, scale, plain):
        carry = group.astype(np.uint64)
        for limb in limbs:
            limb *= np.uint64(10**digits)
            limb += carry
            carry = limb >> np.uint64(32)
            limb &= np.uint64(0xFFFF_FFFF)
    low = limbs[0] | limbs[1] << np.uint64(32)
    high = limbs[2] | limbs[3] << np.uint64(32)
    words[:, 0] = np.where(negative, ~low + np.uint64(1), low)
    words[:, 1] = np.where(negative, ~high + (low == 0), high)


def decimal_text(precision: int, scale: int, cell: bytes) -> str:
    """One value as MySQL prints it: no leading zeros, all digits of the scale."""
    negative = cell[0] < 0x80
    plain = bytearray(byte ^ 0xFF for byte in cell) if negative else bytearray(cell)
    plain[0] ^= 0x80
    at = 0
    digits = ""
    for count, width in groups(precision, scale):
        digits += f"{int.from_bytes(plain[at : at + width], 'big'):0{count}d}"
        at += width
    whole = digits[: precision - scale].lstrip("0") or "0"
    fraction = f".{digits[precision - scale :]}" if scale else ""
    return f"{'-' if negative else ''}{whole}{fraction}"


def decimal_text_array(precision: int, scale: int, cells: Bytes, valid: Bools | None) -> pa.Array:
    """A DECIMAL column of more than 38 digits, as text as `decimal_text` makes it."""
    present = cells if valid is None else cells[valid]
    negative = present[:, 0] < 0x80
    plain = present ^ np.where(negative, np.uint8(0xFF), np.uint8(0))[:, None]
    plain[:, 0] ^= 0x80
    digits = [
        group // 10**place % 10
        for count, group in _numbers(precision, scale, plain)
        for place in range(count - 1, -1, -1)
    ]
    whole = precision - scale
    zero = np.zeros(len(present), np.int64)
    columns = [zero, *(digits[:whole] or [zero]), *([zero, *digits[whole:]] if scale else [])]
    text = np.stack(columns, axis=1).astype(np.uint8) + np.uint8(ord("0"))
    text[:, 0] = ord("-")
    keep = np.ones(text.shape, np.bool_)
    keep[:, 0] = negative
    last = max(whole, 1)
    keep[:, 1:last] = np.maximum.accumulate(text[:, 1:last] != ord("0"), axis=1)
    if scale:
        text[:, last + 1] = ord(".")
    return marked_bytes(pa.string(), text, keep, valid)
