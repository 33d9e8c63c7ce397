"""Buffered rows against a plain encoder of row images."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import BinlogError
from cdc.source.row_images import FixedCut
from cdc.source.row_layout import RowLayout
from cdc.source.rows import DELETE, INSERT, UPDATE, RowBuffer
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


def read_back(buffer: RowBuffer, kinds: list[Kind]) -> list[tuple[int, Image]]:
    """The buffer's rows, cut into raw values."""
    columns: list[list[bytes | None]] = []
    for cut in buffer.images().cut(range(len(kinds))):
        assert cut.column == len(columns)
        if isinstance(cut, FixedCut):
            valid = [True] * len(cut.cells) if cut.valid is None else cut.valid.tolist()
            columns.append(
                [bytes(cell) if there else None for cell, there in zip(cut.cells, valid, strict=True)]
            )
        else:
            columns.append(cut.cells.to_pylist())
    return list(zip(buffer.operations().tolist(), zip(*columns, strict=True), strict=True))


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


Event = tuple[int, bytes, list[tuple[int, Image]]]


def events_of(
    kinds: list[Kind], key: tuple[int, ...], rows: list[tuple[str, Image, Image]], padding: bool
) -> list[Event]:
    """Operation and images of an event for each row, and the rows that it means."""
    made: list[Event] = []
    for step, before, after in rows:
        data = encode(kinds, before, padding=padding)
        if step != "update":
            operation = INSERT if step == "insert" else DELETE
            made.append((operation, data, [(operation, before)]))
            continue
        data += encode(kinds, after, padding=padding)
        stays = key and all(before[i] == after[i] for i in key)
        made.append((UPDATE, data, [(UPDATE, after)] if stays else [(DELETE, before), (INSERT, after)]))
    return made


@given(tables(), st.booleans())
@settings(deadline=None)
def test_rows_are_those_that_a_plain_encoder_wrote(
    case: tuple[list[Kind], tuple[int, ...], list[tuple[str, Image, Image]], bool], one_event: bool
) -> None:
    """Whether they come in one event, in events that are added together, or one by one."""
    kinds, key, rows, padding = case
    table_map, layout = layout_of(kinds, key)
    buffer = RowBuffer(table_map, layout)
    made = events_of(kinds, key, rows, padding)
    for operation, alike in itertools.groupby(made, lambda each: each[0]):
        group = list(alike)
        images = [data for _, data, _ in group]
        assert buffer.add(operation, [b"".join(images)] if one_event else images) == len(group)
        assert buffer.last_removes_keys() == any(op == DELETE for *_, found in group for op, _ in found)
    expected = [row for *_, found in events_of(kinds, key, rows, padding) for row in found]
    assert read_back(buffer, kinds) == expected
    assert read_back(buffer, kinds) == expected


def test_more_bitmaps_than_there_is_code_for_are_read_as_well() -> None:
    kinds = [KINDS[2], KINDS[0], KINDS[3], KINDS[1], KINDS[4], KINDS[0], KINDS[5], KINDS[6]]
    values: Image = (b"12345678", b"1", b"text", b"1234", b"x" * 300, b"2", b"", b"blob")
    rows: list[tuple[int, Image]] = [
        (INSERT, tuple(None if bits >> i & 1 else value for i, value in enumerate(values)))
        for bits in [*range(0, 256, 2), *range(254, 0, -2)]
    ]
    table_map, layout = layout_of(kinds, (0,))
    buffer = RowBuffer(table_map, layout)
    assert buffer.add(INSERT, [encode(kinds, image, padding=True) for _, image in rows]) == len(rows)
    assert read_back(buffer, kinds) == rows


@pytest.mark.parametrize("operation", [INSERT, UPDATE, DELETE])
@pytest.mark.parametrize("key", [(), (0,), (2,)])
def test_row_images_that_do_not_end_with_their_event_are_an_error(
    operation: int, key: tuple[int, ...]
) -> None:
    kinds = [KINDS[1], KINDS[3], KINDS[2]]
    table_map, layout = layout_of(kinds, key)
    image = encode(kinds, (b"abcd", b"text", b"12345678"), padding=True)
    whole = image * 2 if operation == UPDATE else image
    for end in range(1, len(whole)):
        for behind in ([], [whole], [b"the next event, some more bytes" * 9]):
            with pytest.raises((BinlogError, IndexError)):
                RowBuffer(table_map, layout).add(operation, [whole, whole[:end], *behind])


def test_an_update_without_its_second_image_does_not_take_the_next_event_for_it() -> None:
    table_map, layout = layout_of([KINDS[1]], (0,))
    image = encode([KINDS[1]], (b"abcd",), padding=True)
    with pytest.raises(BinlogError):
        RowBuffer(table_map, layout).add(UPDATE, [image * 3, image])


def test_an_image_by_itself_ends_where_its_values_do() -> None:
    kinds = [KINDS[1], KINDS[3]]
    table_map, layout = layout_of(kinds, (0,))
    buffer = RowBuffer(table_map, layout)
    rows: list[Image] = [(b"aaaa", b"x"), (b"bbbb", None)]
    data = b"head" + b"".join(encode(kinds, row, padding=True) for row in rows)
    middle = buffer.add_image(UPDATE, data, 4)
    assert buffer.add_image(DELETE, data, middle) == len(data)
    assert read_back(buffer, kinds) == [(UPDATE, rows[0]), (DELETE, rows[1])]
    for end in range(5, middle):
        with pytest.raises((BinlogError, IndexError)):
            buffer.add_image(UPDATE, data[:end], 4)


def test_a_cell_of_16_mib_is_read() -> None:
    kinds = [KINDS[6], KINDS[1]]
    table_map, layout = layout_of(kinds, (1,))
    row: Image = (b"v" * (1 << 24), b"abcd")
    buffer = RowBuffer(table_map, layout)
    buffer.add(INSERT, [encode(kinds, row, padding=False)])
    assert read_back(buffer, kinds) == [(INSERT, row)]


@pytest.mark.parametrize("seen", [False, True], ids=["unread", "read before"])
def test_truncating_forgets_the_images_behind_a_mark(seen: bool) -> None:
    kinds = [KINDS[1], KINDS[3]]
    table_map, layout = layout_of(kinds, (0,))
    buffer = RowBuffer(table_map, layout)
    rows: list[Image] = [(b"aaaa", b"x"), (b"bbbb", None), (b"cccc", b"y"), (b"dddd", b"z")]
    images = [encode(kinds, row, padding=True) for row in rows]
    buffer.add(INSERT, images[:3])
    buffer.add(DELETE, images[3:])
    if seen:
        read_back(buffer, kinds)
    buffer.truncate(2)
    assert read_back(buffer, kinds) == [(INSERT, rows[0]), (INSERT, rows[1])]
    buffer.add(UPDATE, [images[1] + images[1]])
    assert read_back(buffer, kinds)[2:] == [(UPDATE, rows[1])]
    buffer.truncate(0)
    assert not len(buffer)
    buffer.add(DELETE, images[:1])
    assert read_back(buffer, kinds) == [(DELETE, rows[0])]
