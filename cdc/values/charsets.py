"""Bytes of a column's character set to the text that the server itself sends as utf8mb4.

A character that Unicode lacks becomes "?", as in the server's own conversion; surrogates that ucs2 (and
MariaDB's utf8 and utf32) can hold become U+FFFD, as they do when the copy's bytes are checked.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pyarrow as pa

from cdc.errors import ValueDecodeError
from cdc.values.arrays import Bytes, RawCells, binary, by_distinct, listed, offsets_and_data, relabel, strings
from cdc.values.single_byte import UPPER_HALVES

_ASCII = "".join(map(chr, range(128)))
_SWE7: dict[str, str | int | None] = {
    "@": "É",
    "[": "Ä",
    "\\": "Ö",
    "]": "Å",
    "^": "Ü",
    "`": "é",
    "{": "ä",
    "|": "ö",
    "}": "å",
    "~": "ü",
    "\x7f": "?",
}
_SWE7_LOWER = _ASCII.translate(str.maketrans(_SWE7))
_UTF8 = frozenset({"utf8mb4", "utf8mb3", "utf8"})


@cache
def single_byte_table(charset: str) -> str | None:
    """The 256 characters of a single-byte character set; None for any other set."""
    upper = UPPER_HALVES.get(charset)
    return None if upper is None else (_SWE7_LOWER if charset == "swe7" else _ASCII) + upper


@dataclass(frozen=True, slots=True)
class MultiByte:
    """A character set of one to four bytes: Python's codec, and where the server differs from it.

    `length` gives the bytes of the character at an index; `silent` are those that the codec accepts but maps
    otherwise than the server; `extra` those that it refuses and the server knows.
    """

    codec: str
    length: Callable[[bytes, int], int]
    silent: Mapping[bytes, str] = field(default_factory=dict)
    extra: Mapping[bytes, str] = field(default_factory=dict)

    def text(self, cell: bytes) -> str:
        """The text of one value."""
        if not any(character in cell for character in self.silent):
            try:
                return cell.decode(self.codec)
            except UnicodeDecodeError:
                pass
        return self._by_character(cell)

    def _by_character(self, cell: bytes) -> str:
        parts: list[str] = []
        at = 0
        while at < len(cell):
            character = cell[at : at + self.length(cell, at)]
            at += len(character)
            known = self.silent.get(character) or self.extra.get(character)
            if known is None:
                try:
                    known = character.decode(self.codec)
                except UnicodeDecodeError:
                    known = "?"
            parts.append(known)
        return "".join(parts)


def _double(cell: bytes, at: int) -> int:
    return 2 if cell[at] > 0x80 else 1


def _shift(cell: bytes, at: int) -> int:
    return 2 if 0x81 <= cell[at] <= 0x9F or 0xE0 <= cell[at] <= 0xFC else 1


def _euc(cell: bytes, at: int) -> int:
    lead = cell[at]
    return 3 if lead == 0x8F else 2 if lead == 0x8E or lead >= 0xA1 else 1


def _gb18030(cell: bytes, at: int) -> int:
    if cell[at] <= 0x80:
        return 1
    return 4 if at + 1 < len(cell) and 0x30 <= cell[at + 1] <= 0x39 else 2


def _cells(lead: str, characters: str) -> dict[bytes, str]:
    """The 94 cells of one row of an EUC set; "?" marks a hole."""
    row = bytes.fromhex(lead)
    return {row + bytes([0xA1 + i]): c for i, c in enumerate(characters) if c != "?"}


def _euc_private() -> dict[bytes, str]:
    """The user-defined rows of ujis and eucjpms: U+E000 to U+E757, row by row."""
    characters = "".join(map(chr, range(0xE000, 0xE000 + 1880)))
    cells: dict[bytes, str] = {}
    for row in range(20):
        lead = f"{0xF5 + row:02x}" if row < 10 else f"8f{0xF5 + row - 10:02x}"
        cells |= _cells(lead, characters[row * 94 : row * 94 + 94])
    return cells


_NEC_ROW_13 = (
    "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳ⅠⅡⅢⅣⅤⅥⅦⅧⅨⅩ?㍉㌔㌢㍍㌘㌧㌃㌶㍑㍗㌍㌦㌣㌫㍊㌻"
    "㎜㎝㎞㎎㎏㏄㎡????????㍻〝〟№㏍℡㊤㊥㊦㊧㊨㈱㈲㈹㍾㍽㍼≒≡∫∮∑√⊥∠∟⊿∵∩∪??"
)
_IBM_ROW_83 = "?" * 82 + "ⅰⅱⅲⅳⅴⅵⅶⅷⅸⅹⅠⅡ"
_IBM_ROW_84 = (
    "ⅢⅣⅤⅥⅦⅧⅨⅩ＇＂㈱№℡炻仼僴凬匇匤\ufa0e咊坙\ufa0f\ufa10增寬峵嵓\ufa11德悅愠敎昻晥\ufa12\uf929栁\ufa13\ufa14橫櫢淸淲瀨\ufa15\ufa16"
    "甁皂皞\ufa17礰\ufa18\ufa19\ufa1a\ufa1b竧\ufa1c\ufa1d綠緖\ufa1e荢\ufa1f薰\ufa20\ufa21蠇\ufa22譿賴赶\ufa23\ufa24\ufa25郞\ufa26鄕\ufa27\ufa28閒\uf9dc\ufa29霻靍靑\ufa2a\ufa2b\ufa2c馞髙魲\ufa2d黑"
)
_MULTI_BYTE = {
    "gbk": MultiByte("gbk", _double),
    "gb2312": MultiByte("gb2312", _double),
    "euckr": MultiByte("cp949", _double),
    "cp932": MultiByte("cp932", _shift),
    "sjis": MultiByte("shift_jis", _shift, silent={b"\x81\x5f": "\\"}),
    "big5": MultiByte(
        "big5",
        _double,
        silent={
            bytes.fromhex(pair): "\ufffd" for pair in ("a15a", "a1c3", "a1c5", "a1fe", "a240", "a2cc", "a2ce")
        },
        extra={b"\xf9" + bytes([0xD6 + i]): c for i, c in enumerate("碁銹裏墻恒粧嫺")},
    ),
    "gb18030": MultiByte("gb18030", _gb18030, silent={b"\xa8\xbc": "\u1e3f", b"\x81\x35\xf4\x37": "\ue7c7"}),
    "ujis": MultiByte("euc_jp", _euc, silent={b"\xa1\xc0": "\\"}, extra=_euc_private()),
    "eucjpms": MultiByte(
        "euc_jp",
        _euc,
        silent={
            b"\xa1\xc1": "～",
            b"\xa1\xc2": "∥",
            b"\xa1\xdd": "－",
            b"\xa1\xf1": "￠",
            b"\xa1\xf2": "￡",
            b"\xa2\xcc": "￢",
            b"\x8f\xa2\xb7": "～",
            b"\x8f\xa2\xc3": "￤",
        },
        extra=_euc_private()
        | _cells("ad", _NEC_ROW_13)
        | _cells("8ff3", _IBM_ROW_83)
        | _cells("8ff4", _IBM_ROW_84),
    ),
}


def _repaired(text: str) -> str:
    """Surrogates as the bytes of UTF-8 would lose them: three U+FFFD each."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _utf16(cell: bytes) -> str:
    return _repaired(cell.decode("utf-16-be", "surrogatepass"))


def _utf16le(cell: bytes) -> str:
    return _repaired(cell.decode("utf-16-le", "surrogatepass"))


def _utf32(cell: bytes) -> str:
    return _repaired(cell.decode("utf-32-be", "surrogatepass"))


def _ucs2(cell: bytes) -> str:
    """Each two bytes are a character: ucs2 has no surrogate pairs."""
    return _utf32(np.frombuffer(cell, ">u2").astype(">u4").tobytes())


_WIDE = {"utf16": _utf16, "utf16le": _utf16le, "utf32": _utf32, "ucs2": _ucs2}


def supported_charset(charset: str) -> bool:
    """Whether `decoder` and `text_array` know the set: all of MySQL 9.7 and MariaDB 10.11."""
    return charset in _UTF8 or charset in UPPER_HALVES or charset in _MULTI_BYTE or charset in _WIDE


def decoder(charset: str) -> Callable[[bytes], str]:
    """The function from bytes of `charset` to text, value by value. Raises ValueDecodeError if unknown."""
    if charset in _UTF8:
        return lambda cell: cell.decode("utf-8", "replace")
    if (table := single_byte_table(charset)) is not None:
        return lambda cell: codecs.charmap_decode(cell, "strict", table)[0]
    if (wide := _WIDE.get(charset)) is not None:
        return wide
    if (multi := _MULTI_BYTE.get(charset)) is not None:
        return multi.text
    raise ValueDecodeError(f"Character set {charset} is not known.", hint="exclude the table or convert it")


def text_array(cells: RawCells, charset: str | None) -> pa.Array:
    """A string array of cells in `charset` (None: utf8mb4).

    Whole columns at once for UTF-8 and the single-byte sets, and for all sets where every byte is ASCII.
    """
    if charset is None or charset in _UTF8:
        return strings(cells)
    if charset in _WIDE:
        return _by_value(cells, charset)
    array = binary(cells)
    offsets, data = offsets_and_data(array)
    if charset != "swe7" and not (data & 0x80).any():
        return relabel(array, pa.string())
    if (table := single_byte_table(charset)) is not None:
        return _single_byte(array, offsets, data, table)
    return _by_value(cells, charset)


def _by_value(cells: RawCells, charset: str) -> pa.Array:
    try:
        return by_distinct(listed(cells), decoder(charset), pa.string())
    except ValueError:  # half a character at the end
        raise ValueDecodeError(f"A text of character set {charset} has an incomplete character.") from None


@cache
def _utf8_widths(table: str) -> Bytes:
    return np.array([len(character.encode()) for character in table], np.uint8)


def _single_byte(array: pa.Array, offsets: np.ndarray, data: Bytes, table: str) -> pa.Array:
    text = codecs.charmap_decode(data.tobytes(), "strict", table)[0].encode()
    if len(text) > np.iinfo(np.int32).max:
        raise ValueDecodeError(
            "The values of one column in one batch exceed 2 GiB.", hint="lower the size of a batch"
        )
    ends = np.zeros(len(data) + 1, np.int32)
    np.cumsum(_utf8_widths(table)[data], dtype=np.int32, out=ends[1:])
    buffers = [array.buffers()[0], pa.py_buffer(ends[offsets]), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), len(array), buffers, array.null_count)
