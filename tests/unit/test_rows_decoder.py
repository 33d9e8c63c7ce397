"""The generated row decoder against a plain encoder of row images."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import BinlogError
from cdc.source.rows import DELETE, INSERT, UPDATE, RowBuffer, RowLayout, Run
from cdc.source.table_map import TableMap
from cdc.values.binlog import FieldType, binlog_column

Image = tuple[bytes | None, ...]


@dataclass(frozen=True)
class Kind:
    code: int
    meta: bytes
    prefix: int
    size: int


KINDS = [
    Kind(FieldType.TINY, b"", 0, 1),
    Kind(FieldType.LONG, b"", 0, 4),
    Kind(FieldType.LONGLONG, b"", 0, 8),
    Kind(FieldType.VARCHAR, b"\x64\0", 1, 20),
    Kind(FieldType.VARCHAR, b"\xe8\3", 2, 300),
    Kind(FieldType.BLOB, b"\3", 3, 300),
    Kind(FieldType.BLOB, b"\4", 4, 5),
]


def layout_of(kinds: list[Kind], key: tuple[int, ...]) -> tuple[TableMap, RowLayout]:
    columns = tuple(binlog_column(kind.code, kind.meta, name=f"c{i}") for i, kind in enumerate(kinds))
    table_map = TableMap("shop", "t", columns, named=True)
    return table_map, RowLayout.of(table_map, tuple(f"c{i}" for i in key))


def encode(kinds: list[Kind], image: Image, *, padding: bool) -> bytes:
    count = len(kinds)
    bits = sum(1 << i for i, value in enumerate(image) if value is None)
    width = (count + 7) // 8
    if padding:
        bits |= ((1 << 8 * width) - 1) ^ ((1 << count) - 1)
    values = [
        len(value).to_bytes(kind.prefix, "little") + value if kind.prefix else value
        for kind, value in zip(kinds, image, strict=True)
        if value is not None
    ]
    return bits.to_bytes(width, "little") + b"".join(values)


def read_back(buffer: RowBuffer) -> list[tuple[int, Image]]:
    """The buffer's rows, with the plainest of readers."""
    rows: list[list[bytes | None]] = [[None] * buffer.layout.column_count for _ in range(len(buffer))]
    runs, cells = iter(buffer.runs), iter(buffer.cells)
    for part in buffer.layout.parts:
        if isinstance(part, Run):
            for row, run in zip(rows, next(runs), strict=True):
                for i, at, width in zip(part.columns, part.offsets, part.widths, strict=True):
                    row[i] = run[at : at + width]
        else:
            for row, value in zip(rows, next(cells), strict=True):
                row[part.column] = value
    for row, image in zip(rows, buffer.nulls, strict=True):
        bits = int.from_bytes(image, "little")
        for i in range(len(row)):
            if bits >> i & 1:
                assert row[i] is None or not any(row[i] or b"")
                row[i] = None
    return [(op, tuple(row)) for op, row in zip(buffer.ops, rows, strict=True)]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Kind], tuple[int, ...], list[tuple[str, Image, Image]], bool]:
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=draw(st.sampled_from([3, 9, 17, 70]))))
    key = tuple(sorted(draw(st.sets(st.integers(0, len(kinds) - 1), max_size=3))))

    def image() -> Image:
        seed = draw(st.randoms(use_true_random=False))
        null = draw(st.sampled_from([0.0, 0.3, 1.0]))
        return tuple(
            None
            if i not in key and seed.random() < null
            else bytes(
                seed.choice(b"ab") for _ in range(seed.choice([0, kind.size]) if kind.prefix else kind.size)
            )
            for i, kind in enumerate(kinds)
        )

    steps = draw(st.lists(st.sampled_from(["insert", "update", "delete", "touch"]), max_size=6))
    rows = []
    for step in steps:
        before, after = image(), image()
        if step == "touch":  # an update that keeps the key
            after = tuple(before[i] if i in key else after[i] for i in range(len(kinds)))
        rows.append(("update" if step == "touch" else step, before, after))
    return kinds, key, rows, draw(st.booleans())


@given(tables())
@settings(deadline=None)
def test_the_decoder_reads_what_a_plain_encoder_wrote(
    case: tuple[list[Kind], tuple[int, ...], list[tuple[str, Image, Image]], bool],
) -> None:
    kinds, key, rows, padding = case
    table_map, layout = layout_of(kinds, key)
    buffer = RowBuffer(table_map, layout)
    expected: list[tuple[int, Image]] = []
    for step, before, after in rows:
        data = b"head" + encode(kinds, before, padding=padding)
        if step == "update":
            data += encode(kinds, after, padding=padding)
            if key and all(before[i] == after[i] for i in key):
                expected.append((UPDATE, after))
            else:
                expected += [(DELETE, before), (INSERT, after)]
        else:
            expected.append((INSERT if step == "insert" else DELETE, before))
        assert getattr(buffer, step)(data + b"tail", 4, len(data)) == 1
    assert read_back(buffer) == expected


@pytest.mark.parametrize("operation", ["insert", "update", "delete"])
@pytest.mark.parametrize("key", [(), (0,), (2,)])
def test_row_images_that_do_not_end_with_their_event_are_an_error(
    operation: str, key: tuple[int, ...]
) -> None:
    kinds = [KINDS[1], KINDS[3], KINDS[2]]
    table_map, layout = layout_of(kinds, key)
    image = encode(kinds, (b"abcd", b"text", b"12345678"), padding=True)
    whole = image * 2 if operation == "update" else image
    for end in range(1, len(whole)):
        with pytest.raises((BinlogError, IndexError)):
            getattr(RowBuffer(table_map, layout), operation)(whole[:end], 0, end)
        with pytest.raises((BinlogError, IndexError)):
            getattr(RowBuffer(table_map, layout), operation)(
                whole + b"the next event, some more bytes" * 9, 0, end
            )


def test_a_cell_of_16_mib_is_read() -> None:
    kinds = [KINDS[6], KINDS[1]]
    table_map, layout = layout_of(kinds, (1,))
    row: Image = (b"v" * (1 << 24), b"abcd")
    buffer = RowBuffer(table_map, layout)
    data = encode(kinds, row, padding=False)
    buffer.insert(data, 0, len(data))
    assert read_back(buffer) == [(INSERT, row)]


def test_truncating_forgets_the_rows_behind_a_mark() -> None:
    table_map, layout = layout_of([KINDS[1], KINDS[3]], (0,))
    buffer = RowBuffer(table_map, layout)
    one, two = (b"aaaa", b"x"), (b"bbbb", None)
    for row in (one, two, two):
        data = encode([KINDS[1], KINDS[3]], row, padding=True)
        buffer.insert(data, 0, len(data))
    buffer.truncate(1)
    assert read_back(buffer) == [(INSERT, one)]
