"""MariaDB's UUID, INET4 and INET6 to the server's text; the binary log cuts their trailing zero bytes.

Columns at a time: every character that a text may have is laid out in a row of bytes, and those that it does
have are marked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc.values.arrays import Bools, Bytes, Ints, RawCells, marked_bytes, padded

_HEX = np.frombuffer(bytes(range(256)).hex().encode(), np.uint8).reshape(256, 2)
_DASHES = (8, 13, 18, 23)
_DIGITS = np.array([i for i in range(36) if i not in _DASHES])
_WORDS = 8
_ZERO, _DOT, _COLON = b"0.:"


def uuid_array(cells: RawCells) -> pa.Array:
    """UUID as text in lower case; the binary log keeps the order of the text for every version."""
    matrix, valid = padded(cells, 16)
    text = np.full((len(matrix), 36), ord("-"), np.uint8)
    text[:, _DIGITS] = _HEX[matrix].reshape(-1, 32)
    return marked_bytes(pa.string(), text, None, valid)


def inet4_array(cells: RawCells) -> pa.Array:
    """INET4 as dotted decimals."""
    matrix, valid = padded(cells, 4)
    text, keep = _dotted(matrix)
    return marked_bytes(pa.string(), text, keep, valid)


def inet6_array(cells: RawCells) -> pa.Array:
    """INET6 as INET6_NTOA prints it: the first longest run of zero words (one is enough) becomes "::".

    IPv4-compatible and IPv4-mapped addresses end in dotted decimals, unlike Python's ipaddress.
    """
    matrix, valid = padded(cells, 2 * _WORDS)
    words = matrix.reshape(-1, _WORDS, 2).astype(np.int64) @ np.array([256, 1])
    start, length = _longest_gap(words)
    end = start + length
    at = np.arange(_WORDS)
    hidden = (at >= start[:, None]) & (at < end[:, None])
    mapped = (start == 0) & ((length == 6) | ((length == 5) & (words[:, 5] == 0xFFFF)))
    hidden[:, 6:] |= mapped[:, None]

    hexes = _HEX[matrix].reshape(-1, _WORDS, 4)
    significant = words[:, :, None] >= np.array([1 << 12, 1 << 8, 1 << 4, 0])
    # The colon behind each word goes inside a gap (all but its last) and before dotted decimals.
    behind = ~((at >= start[:, None]) & (at < end[:, None] - 1))
    behind[:, 6] &= ~mapped
    gap = length > 0
    behind[:, 7] = gap & (end == _WORDS)
    before = gap & (start == 0)
    body = np.concatenate([hexes, np.full((len(words), _WORDS, 1), _COLON, np.uint8)], axis=2)
    shown = np.concatenate([significant & ~hidden[:, :, None], behind[:, :, None]], axis=2)
    dotted, dotted_keep = _dotted(matrix[:, 12:])
    text = np.hstack([np.full((len(words), 1), _COLON, np.uint8), body.reshape(-1, 5 * _WORDS), dotted])
    keep = np.hstack([before[:, None], shown.reshape(-1, 5 * _WORDS), dotted_keep & mapped[:, None]])
    return marked_bytes(pa.string(), text, keep, valid)


def _dotted(octets: Bytes) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """Four bytes as "ddd.ddd.ddd.ddd", and which of these characters count."""
    digits = octets[:, :, None] // np.array([100, 10, 1], np.uint8) % 10 + _ZERO
    keep = octets[:, :, None] >= np.array([100, 10, 0])
    dots = np.full((len(octets), 4, 1), _DOT, np.uint8)
    text = np.concatenate([digits.astype(np.uint8), dots], axis=2).reshape(-1, 16)[:, :15]
    marks = np.concatenate([keep, np.ones_like(dots, np.bool_)], axis=2).reshape(-1, 16)[:, :15]
    return text, marks


def _longest_gap(words: Ints) -> tuple[Ints, Ints]:
    """Where the first longest run of zero words begins in each row, and how long it is."""
    run = np.zeros(len(words), np.int64)
    start, length = run.copy(), run.copy()
    for at in range(_WORDS):
        run = np.where(words[:, at] == 0, run + 1, 0)
        longer: Bools = run > length
        start[longer] = at - run[longer] + 1
        length[longer] = run[longer]
    return start, length
