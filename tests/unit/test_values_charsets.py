"""Character sets: what the servers answered for these bytes."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import ValueDecodeError
from cdc.values.charsets import decoder, single_byte_table, supported_charset, text_array
from cdc.values.single_byte import UPPER_HALVES

WIDE = {"utf16": "utf-16-be", "ucs2": "utf-16-be", "utf16le": "utf-16-le", "utf32": "utf-32-be"}
ALL = [
    "armscii8",
    "ascii",
    "big5",
    "cp1250",
    "cp1251",
    "cp1256",
    "cp1257",
    "cp850",
    "cp852",
    "cp866",
    "cp932",
    "dec8",
    "eucjpms",
    "euckr",
    "gb18030",
    "gb2312",
    "gbk",
    "geostd8",
    "greek",
    "hebrew",
    "hp8",
    "keybcs2",
    "koi8r",
    "koi8u",
    "latin1",
    "latin2",
    "latin5",
    "latin7",
    "macce",
    "macroman",
    "sjis",
    "swe7",
    "tis620",
    "ucs2",
    "ujis",
    "utf16",
    "utf16le",
    "utf32",
    "utf8mb3",
    "utf8mb4",
]


@pytest.mark.parametrize("charset", ALL)
def test_every_character_set_of_both_servers_is_known(charset: str) -> None:
    assert supported_charset(charset)
    array = text_array(["Az".encode(WIDE.get(charset, "ascii")), None], charset)
    array.validate(full=True)
    assert array.to_pylist() == ["Az", None]


@pytest.mark.parametrize(
    ("charset", "cell", "expected"),
    [
        ("latin1", "41818d8f909d80ff", "A\x81\x8d\x8f\x90\x9d€ÿ"),
        ("cp1250", "4181", "A?"),
        ("greek", "41ff", "A?"),
        ("tis620", "41a0", "A\ufffd"),
        ("ascii", "4181", "A?"),
        ("swe7", "5b5c5d7d", "ÄÖÅå"),
        ("utf16", "0041006220acd83dde00", "Ab€😀"),
        ("utf16le", "41006200ac203dd800de", "Ab€😀"),
        ("utf32", "0000004100000062000020ac0001f600", "Ab€😀"),
        ("ucs2", "0041006220ac", "Ab€"),
        ("ucs2", "d83dde00", "\ufffd" * 6),
        ("utf32", "0000d800", "\ufffd" * 3),
        ("utf8mb4", "41eda080", "A\ufffd\ufffd\ufffd"),
        ("utf8mb3", "ff", "\ufffd"),
        ("big5", "41f9fe", "A?"),
        ("big5", "c87e41", "?A"),
        ("big5", "f9d6a2cca451", "碁\ufffd十"),
        ("gbk", "fe50", "?"),
        ("gb18030", "81308130", "\x80"),
        ("gb18030", "8431a437", "\ufffd"),
        ("gb18030", "a8bc8135f437", "ḿ\ue7c7"),
        ("gb18030", "e3329a35", "\U0010ffff"),
        ("sjis", "815f5c7e", "\\\\~"),
        ("cp932", "81ad", "?"),
        ("cp932", "f040", "\ue000"),
        ("euckr", "a2e68141", "€갂"),
        ("ujis", "8fa2c1", "?"),
        ("ujis", "a1c0", "\\"),
        ("ujis", "f5a18ffefe", "\ue000\ue757"),
        ("eucjpms", "8ff3f3ada1a1c1", "ⅰ①～"),
        ("eucjpms", "8ff4c7", "\ufa13"),
    ],
)
def test_bytes_become_the_text_that_the_server_sends(charset: str, cell: str, expected: str) -> None:
    array = text_array([None, bytes.fromhex(cell), b""], charset)
    array.validate(full=True)
    assert array.type == pa.string()
    assert array.to_pylist() == [None, expected, ""]
    assert decoder(charset)(bytes.fromhex(cell)) == expected


@pytest.mark.parametrize("charset", sorted(UPPER_HALVES))
def test_a_single_byte_table_has_a_character_for_every_byte(charset: str) -> None:
    table = single_byte_table(charset)
    assert table is not None
    assert len(table) == 256
    assert text_array([bytes(range(256))], charset).to_pylist() == [table]


def test_half_a_character_is_an_error() -> None:
    with pytest.raises(ValueDecodeError, match="incomplete character"):
        text_array([b"\x00"], "ucs2")


def test_an_unknown_character_set_is_an_error() -> None:
    assert not supported_charset("klingon")
    with pytest.raises(ValueDecodeError, match="not known"):
        text_array([b"\xff"], "klingon")


@given(st.lists(st.none() | st.text(st.characters(codec="cp1252")), min_size=1))
def test_latin1_columns_round_trip(texts: list[str | None]) -> None:
    cells = [None if text is None else text.encode("cp1252") for text in texts]
    assert text_array(cells, "latin1").to_pylist() == texts


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_unicode_columns_round_trip(texts: list[str | None]) -> None:
    for charset, codec in [("utf8mb4", "utf-8"), ("utf16", "utf-16-be"), ("utf32", "utf-32-be")]:
        cells = [None if text is None else text.encode(codec) for text in texts]
        assert text_array(cells, charset).to_pylist() == texts
