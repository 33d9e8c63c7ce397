"""Bytes that are cut, flipped or made up: an error of ours, never another one, a hang or a crash."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.errors import BinlogError, DucklingError
from cdc.schema import Column, NameCase, Table
from cdc.source import events
from cdc.source.batcher import Batch, Batcher
from cdc.source.binlog import Stretch
from cdc.source.compressed_events import payload_events, uncompressed, uncompressed_query
from cdc.source.mixed_rows import MixedRows
from cdc.source.stream import BinlogReader
from cdc.source.table_map import read_table_map
from cdc.source.tagged_gtid import read_tagged_gtid
from cdc.values.json_binary import json_text
from cdc.values.json_diff import apply_diffs
from tests.unit.wire import START, Log

_PACKET = 5
"""Bytes of a packet before its event: header and OK byte."""

T = Table("shop", "t", (Column("id", "int", "int"),), ("id",))


class Scripted:
    """A dump of given events, instead of a socket's: what reads them is the real thing."""

    checksum = False

    def __init__(self, script: list[bytes]) -> None:
        self._script = script

    def stretches(self) -> Iterator[Stretch | None]:
        for event in self._script:
            yield Stretch(event, [0], [len(event)])
        yield None

    def wake(self) -> None:
        """Nobody waits."""


def read(script: list[bytes]) -> list[int]:
    """Reads all events; returns the ids of the rows. Raises what the reader raises."""
    batches: list[Batch] = []
    reader = BinlogReader(
        Scripted(script),  # type: ignore[arg-type]
        START,
        Batcher(batches.append, lambda: True, max_rows=100, max_bytes=1 << 20, max_age=60.0),
        schema="shop",
        tables={"t": T},
        names=NameCase(),
        collations={},
        on_schema_change=lambda _changes, _position: None,
        position_interval=3600.0,
    )
    reader.stop()
    reader.run()
    return [
        i
        for batch in batches
        for _, rows in batch.buffers
        if not isinstance(rows, MixedRows)
        for i in rows.to_arrow(T)["c0"].to_pylist()  # type: ignore[union-attr]
    ]


def fixed(event: bytes) -> bytes:
    """The event with its right length in its header."""
    return event[:9] + struct.pack("<I", len(event)) + event[13:]


def transaction() -> list[bytes]:
    log = Log()
    made = (log.gtid(), log.query("BEGIN"), log.table_map(), log.insert(1, 2, 3), log.xid())
    return [event[_PACKET:] for event in made]


def only_ours(script: list[bytes]) -> None:
    with suppress(DucklingError):
        read(script)


def test_the_untouched_transaction_is_read() -> None:
    assert read(transaction()) == [1, 2, 3]


@given(st.integers(0, 4), st.data())
def test_an_event_cut_short_is_an_error_of_ours_or_read(which: int, data: st.DataObject) -> None:
    script = transaction()
    script[which] = script[which][: data.draw(st.integers(19, len(script[which]) - 1))]
    with pytest.raises(BinlogError, match="bytes and has"):
        read(script)
    script[which] = fixed(script[which])
    only_ours(script)


@given(st.integers(0, 4), st.data())
def test_flipped_bits_are_an_error_of_ours_or_read(which: int, data: st.DataObject) -> None:
    script = transaction()
    damaged = bytearray(script[which])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    script[which] = bytes(damaged)
    only_ours(script)
    script[which] = fixed(bytes(damaged))
    only_ours(script)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=6))
def test_made_up_events_are_an_error_of_ours_or_passed_over(made: list[tuple[int, bytes]]) -> None:
    script = [fixed(events.HEADER.pack(1, kind, 1, 0, 100, 0) + body) for kind, body in made]
    only_ours(script)
    first = transaction()
    only_ours([*first[:3], *script, *first[3:]])


@given(st.binary(max_size=80), st.sampled_from([166, 167, 168, 39, 23, 24, 25, 30, 31, 32]))
def test_made_up_rows_of_a_known_table_are_an_error_of_ours_or_read(body: bytes, kind: int) -> None:
    script = transaction()
    head = (70).to_bytes(6, "little") + b"\1\0"
    script[3] = fixed(events.HEADER.pack(1, kind, 1, 0, 100, 0) + head + body)
    only_ours(script)


@pytest.mark.parametrize("kind", sorted(events.HARMLESS))
def test_an_event_that_changes_nothing_is_passed_over_wherever_it_stands(kind: int) -> None:
    """MariaDB's START_ENCRYPTION among them: the server decrypts what it sends."""
    gtid, *rest = transaction()
    between = fixed(events.HEADER.pack(1, kind, 1, 0, 0, 0) + bytes(20))
    assert read([between, gtid, between, rest[0], between, *rest[1:3], between, rest[3], between]) == [
        1,
        2,
        3,
    ]


def payload(inner: list[bytes]) -> bytes:
    plain = b"".join(inner)
    packed = pa.compress(plain, codec="zstd", asbytes=True)
    head = (
        b"\2\1\0"
        + b"\3\3\xfc"
        + struct.pack("<H", len(plain))
        + b"\1\3\xfc"
        + struct.pack("<H", len(packed))
        + b"\0"
    )
    return fixed(events.HEADER.pack(1, 40, 1, 0, 500, 0) + head + packed)


def test_a_compressed_transaction_is_read() -> None:
    gtid, *rest = transaction()
    assert read([gtid, payload(rest)]) == [1, 2, 3]


def test_a_compressed_transaction_inside_another_is_refused() -> None:
    gtid, *rest = transaction()
    with pytest.raises(BinlogError, match="kind 40"):
        read([gtid, payload([payload(rest)])])


@given(st.data())
def test_a_damaged_compressed_transaction_is_an_error_of_ours_or_read(data: st.DataObject) -> None:
    gtid, *rest = transaction()
    whole = payload(rest)
    damaged = bytearray(whole[: data.draw(st.integers(20, len(whole)))])
    at = data.draw(st.integers(19, len(damaged) - 1))
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    only_ours([gtid, fixed(bytes(damaged))])


@given(st.binary(max_size=60))
def test_compressed_bytes_that_are_none_are_an_error_of_ours(data: bytes) -> None:
    for read_it in (
        lambda: uncompressed(data, 0, len(data)),
        lambda: uncompressed_query(bytes(13) + data),
        lambda: list(payload_events(data, 0, len(data))),
    ):
        with suppress(BinlogError, IndexError):  # the loop says of an IndexError that the event can't be read
            read_it()


@given(st.binary(max_size=300), st.integers(1, 4))
def test_what_mariadb_compresses_comes_out_as_it_was(data: bytes, width: int) -> None:
    packed = bytes([0x80 | width]) + len(data).to_bytes(width, "big") if len(data) < 256**width else b""
    if packed:
        assert uncompressed(packed + zlib.compress(data), 0, len(packed) + len(zlib.compress(data))) == data


@given(st.binary(max_size=120))
def test_made_up_tagged_gtids_and_table_maps_are_errors_of_ours(data: bytes) -> None:
    for read_it in (
        lambda: read_tagged_gtid(data),
        lambda: read_table_map(data, {}, lambda b, _: b.decode()),
    ):
        with suppress(DucklingError):
            read_it()


TAGGED = bytes.fromhex(
    "027400000002e67a3815029903710222c5032902390204f103000000020404060a6d7974616708080a0c0c7f2ee8a809e160061069"
    "041283120b"
)


def test_a_tagged_gtid_of_mysql_9_7_is_read() -> None:
    assert read_tagged_gtid(TAGGED) == ("733d1c85-e69c-11f1-8a8e-02fc00000001", 1, 1795369506.236462, "mytag")


@given(st.integers(0, len(TAGGED) - 1), st.integers(0, 7), st.integers(0, len(TAGGED)))
def test_damaged_tagged_gtids_are_errors_of_ours_or_read(at: int, bit: int, length: int) -> None:
    damaged = bytearray(TAGGED)
    damaged[at] ^= 1 << bit
    with suppress(BinlogError):
        read_tagged_gtid(bytes(damaged[:length]))


@given(st.binary(max_size=80))
@settings(max_examples=300)
def test_made_up_json_and_json_diffs_are_errors_of_ours(data: bytes) -> None:
    for read_it in (json_text, lambda diffs: apply_diffs('{"a": [1, {"b": 2}]}', diffs)):
        with suppress(DucklingError):
            read_it(data)


@given(st.binary(max_size=60), st.lists(st.integers(0, 2), unique=True, max_size=3))
def test_mixed_images_of_made_up_bytes_end_or_are_an_error_of_ours(data: bytes, columns: list[int]) -> None:
    body = b"\1\0\4shop\0\1t\0\3\3\x0f\xf5\3\x28\0\4\7\4\7\2id\1v\1j"
    rows = MixedRows(read_table_map(body, {}, lambda member, _: member.decode()))
    held = tuple(sorted(columns))
    for partial in (False, True):
        with suppress(BinlogError, IndexError):  # RowEvents says of an IndexError that the rows can't be read
            rows.add_images(2, held, held, data, 0, len(data), partial_json=partial)
