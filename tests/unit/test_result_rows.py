"""The parser of SELECT's rows, fed with packets in pieces of any size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import SnapshotError, SourceError, SourceUnavailableError
from cdc.source.result_rows import Cells, _pieces

FULL = 0xFFFFFF
END = b"\5\0\0\0\xfe\0\0\2\0"

Row = tuple[bytes | None, ...]


class Trickle:
    """A connection whose buffered file gives out `step` bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._data, self._step, self._at = data, step, 0
        self._rfile = self

    def read1(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + min(self._step, size)]
        self._at += len(piece)
        return piece


def cell(value: bytes | None) -> bytes:
    if value is None:
        return b"\xfb"
    size = len(value)
    if size < 251:
        return bytes([size]) + value
    if size < 1 << 16:
        return b"\xfc" + size.to_bytes(2, "little") + value
    if size < 1 << 24:
        return b"\xfd" + size.to_bytes(3, "little") + value
    return b"\xfe" + size.to_bytes(8, "little") + value


def packet(row: Row) -> bytes:
    body = b"".join(cell(value) for value in row)
    pieces = [body[at : at + FULL] for at in range(0, len(body) + 1, FULL)]
    return b"".join(len(piece).to_bytes(3, "little") + b"\0" + piece for piece in pieces)


def pieces(
    rows: list[Row],
    width: int,
    *,
    step: int = 1 << 18,
    max_rows: int = 1000,
    max_bytes: int = 1 << 40,
    end: bytes = END,
) -> Iterator[Cells]:
    return _pieces(Trickle(b"".join(map(packet, rows)) + end, step), width, max_rows, max_bytes)


def joined(found: Iterator[Cells]) -> list[Row]:
    return [row for columns in found for row in zip(*(cells.to_pylist() for cells in columns), strict=True)]


ROWS: list[Row] = [
    (None, b""),
    (b"", None),
    (b"x" * 250, b"y"),
    (b"x" * 251, b"y"),
    (None, b"z" * 300),
    (b"\xff", b"\xfe"),
    (b"a" * 254, None),
]


@pytest.mark.parametrize("step", [*range(1, 40), 255, 256, 1000])
def test_rows_are_the_same_wherever_the_bytes_are_cut(step: int) -> None:
    assert joined(pieces(ROWS, 2, step=step)) == ROWS


@pytest.mark.parametrize(
    "size", [250, 251, 252, 65535, 65536, FULL - 5, FULL - 4, FULL - 3, FULL, FULL + 1, 2 * FULL + 9]
)
def test_a_cell_of_any_size_comes_whole(size: int) -> None:
    rows: list[Row] = [(b"1", b"a"), (None, b"v" * size), (b"3", b"b")]
    assert joined(pieces(rows, 2)) == rows
    rows = [(b"v" * size,), (b"w",)]
    assert joined(pieces(rows, 1)) == rows


def test_no_rows_are_no_pieces() -> None:
    assert list(pieces([], 3)) == []


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("step", [1, 7, 1 << 18])
def test_a_piece_has_no_more_rows_than_asked_for_and_none_is_empty(count: int, step: int) -> None:
    rows: list[Row] = [(str(i).encode(),) for i in range(count)]
    found = list(pieces(rows, 1, step=step, max_rows=4))
    assert [len(columns[0]) for columns in found] == [4] * (count // 4) + ([count % 4] if count % 4 else [])
    assert joined(iter(found)) == rows


@pytest.mark.parametrize("at", [0, 1, 3])
def test_a_row_of_several_packets_at_a_pieces_edge_is_neither_lost_nor_doubled(at: int) -> None:
    rows: list[Row] = [(str(i).encode(),) for i in range(8)]
    rows[at] = (b"v" * (FULL + 10),)
    assert joined(pieces(rows, 1, max_rows=4)) == rows


@pytest.mark.parametrize("max_bytes", [1, 1000])
def test_pieces_are_bounded_by_bytes(max_bytes: int) -> None:
    rows: list[Row] = [(b"x" * 100,) for _ in range(50)]
    found = list(pieces(rows, 1, step=150, max_bytes=max_bytes))
    assert joined(iter(found)) == rows
    assert len(found) > 2


@pytest.mark.parametrize("step", [1, 3, 1 << 18])
def test_an_error_among_the_rows_is_raised_and_the_rows_do_not_count_as_all(step: int) -> None:
    body = b"\xff" + (1317).to_bytes(2, "little") + b"#70100Query execution was interrupted"
    error = len(body).to_bytes(3, "little") + b"\0" + body
    with pytest.raises(SourceError):
        list(pieces(ROWS, 2, step=step, end=error))


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_connection_that_ends_before_the_rows_do_is_an_error(cut: int) -> None:
    with pytest.raises(SourceUnavailableError):
        list(pieces(ROWS, 2, end=END[:-cut]))


def test_a_row_whose_values_do_not_fit_its_packet_is_an_error() -> None:
    with pytest.raises(SnapshotError):
        list(_pieces(Trickle(b"\3\0\0\0\1a\1" + END, 99), 1, 10, 1000))


@given(
    rows=st.lists(
        st.tuples(st.none() | st.binary(max_size=300), st.none() | st.binary(max_size=3)), max_size=30
    ),
    step=st.integers(1, 400),
    max_rows=st.integers(1, 7),
    max_bytes=st.integers(1, 2000),
)
def test_what_was_put_in_comes_out(rows: list[Row], step: int, max_rows: int, max_bytes: int) -> None:
    assert joined(pieces(rows, 2, step=step, max_rows=max_rows, max_bytes=max_bytes)) == rows
