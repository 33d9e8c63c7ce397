"""MariaDB's UUID, INET4 and INET6 to the server's text; the binary log cuts their trailing zero bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from cdc.values.arrays import by_distinct

_HEX = np.frombuffer(bytes(range(256)).hex().encode(), np.uint8).reshape(256, 2)
_DASHES = (8, 13, 18, 23)
_DIGITS = np.array([i for i in range(36) if i not in _DASHES])


def uuid_array(cells: Sequence[bytes | None]) -> pa.Array:
    """UUID as text in lower case; the binary log keeps the order of the text for every version."""
    present = [cell.ljust(16, b"\0") for cell in cells if cell is not None]
    text = np.full((len(present), 36), ord("-"), np.uint8)
    text[:, _DIGITS] = _HEX[np.frombuffer(b"".join(present), np.uint8)].reshape(-1, 32)
    if len(present) == len(cells):
        offsets = np.arange(0, 36 * len(cells) + 1, 36, dtype=np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
        return pa.Array.from_buffers(pa.string(), len(cells), buffers)
    rows = iter(text.tobytes()[at : at + 36] for at in range(0, text.size, 36))
    return pa.array([None if cell is None else next(rows) for cell in cells], pa.binary()).cast(pa.string())


def inet4_array(cells: Sequence[bytes | None]) -> pa.Array:
    """INET4 as dotted decimals."""
    return by_distinct(cells, lambda cell: ".".join(map(str, cell.ljust(4, b"\0"))), pa.string())


def inet6_array(cells: Sequence[bytes | None]) -> pa.Array:
    """INET6 as the server prints it."""
    return by_distinct(cells, lambda cell: inet6_text(cell.ljust(16, b"\0")), pa.string())


def inet6_text(address: bytes) -> str:
    """INET6_NTOA of 16 bytes: the first longest run of zero words (one is enough) becomes "::".

    IPv4-compatible and IPv4-mapped addresses end in dotted decimals, unlike Python's ipaddress.
    """
    words = [int.from_bytes(address[at : at + 2], "big") for at in range(0, 16, 2)]
    start, length = _longest_gap(words)
    if start == 0 and (length == 6 or (length == 5 and words[5] == 0xFFFF)):
        return ("::" if length == 6 else "::ffff:") + ".".join(map(str, address[12:]))
    if not length:
        return ":".join(f"{word:x}" for word in words)
    left = ":".join(f"{word:x}" for word in words[:start])
    right = ":".join(f"{word:x}" for word in words[start + length :])
    return f"{left}::{right}"


def _longest_gap(words: Sequence[int]) -> tuple[int, int]:
    best = (0, 0)
    start = 0
    for at, word in enumerate([*words, 1]):
        if word:
            if at - start > best[1]:
                best = (start, at - start)
            start = at + 1
    return best
