"""How far DuckDB's memory limit grows."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from cdc.config import AUTO, Settings, byte_size, load_settings
from cdc.errors import ConfigError
from cdc.replica.memory import FIRST_BYTES, QUERY_BYTES, MemoryLimit, available_bytes


def test_a_fixed_limit_never_grows() -> None:
    limit = MemoryLimit("2GB", machine_bytes=64 << 30)
    assert (limit.bytes, limit.can_grow, limit.grow()) == (2_000_000_000, False, False)
    assert limit.bytes == 2_000_000_000


def test_auto_doubles_up_to_half_of_the_machine() -> None:
    limit = MemoryLimit(AUTO, machine_bytes=3_000_000_000)
    sizes = [limit.bytes]
    while limit.grow():
        sizes.append(limit.bytes)
    assert sizes == [64_000_000, 128_000_000, 256_000_000, 512_000_000, 1_024_000_000, 1_500_000_000]
    assert not limit.can_grow


def test_auto_begins_where_it_was_but_not_beyond_the_machine_of_today() -> None:
    limit = MemoryLimit(AUTO, machine_bytes=3_000_000_000)
    assert limit.grow(1_024_000_000)
    assert limit.bytes == 1_024_000_000
    assert not limit.grow(1)
    assert limit.grow(9_000_000_000)
    assert limit.bytes == 1_500_000_000


def test_the_databases_of_one_process_share_half_of_the_machine() -> None:
    one, other, fixed = (MemoryLimit(s, machine_bytes=4_000_000_000) for s in (AUTO, AUTO, "9GB"))
    while one.grow():
        assert one.bytes + other.bytes <= 2_000_000_000
    assert one.bytes == 2_000_000_000 - 64_000_000
    assert not other.can_grow
    assert fixed.bytes == 9_000_000_000
    del one
    gc.collect()
    assert other.grow()


def test_a_machine_of_little_memory_still_gets_the_first_amount() -> None:
    limit = MemoryLimit(AUTO, machine_bytes=100 << 20)
    assert (limit.bytes, limit.can_grow) == (64_000_000, False)


def test_what_is_set_aside_comes_on_top() -> None:
    limit = MemoryLimit(AUTO, machine_bytes=64 << 30)
    limit.set_aside(11_000_000)
    assert (limit.bytes, limit.base) == (FIRST_BYTES + 11_000_000, FIRST_BYTES)
    assert limit.grow()
    assert limit.bytes == 2 * FIRST_BYTES + 11_000_000
    limit.set_aside(0)
    assert limit.bytes == 2 * FIRST_BYTES


def test_no_more_is_set_aside_than_half_of_the_machine() -> None:
    limit = MemoryLimit(AUTO, machine_bytes=1_000_000_000)
    limit.set_aside(9_000_000_000)
    assert (limit.bytes, limit.can_grow, limit.grow()) == (500_000_000, False, False)
    assert limit.with_more(QUERY_BYTES) == 500_000_000
    limit.set_aside(0)
    assert limit.bytes == FIRST_BYTES  # what could not grow did not


def test_what_one_file_was_given_is_not_the_others() -> None:
    one, other = (MemoryLimit(AUTO, machine_bytes=1_000_000_000) for _ in range(2))
    one.given = 400_000_000
    other.set_aside(9_000_000_000)
    assert other.bytes == other.with_more(QUERY_BYTES) == 100_000_000
    assert one.with_more(QUERY_BYTES) == one.bytes + QUERY_BYTES


def test_a_fixed_limit_sets_nothing_aside_and_gives_nobody_more() -> None:
    limit = MemoryLimit("100MB", machine_bytes=64 << 30)
    limit.set_aside(10_000_000)
    assert (limit.bytes, limit.with_more(QUERY_BYTES)) == (100_000_000, 100_000_000)


MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("groups", "files", "found"),
    [
        ("", {}, MACHINE),
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/\n", {"memory.max": "1000000\n"}, 1_000_000),  # a container
        ("0::/\n", {"memory.max": f"{2**63}\n"}, MACHINE),
        (
            "0::/system.slice/duckling.service\n",
            {"system.slice/memory.max": "3000000\n", "system.slice/duckling.service/memory.max": "max\n"},
            3_000_000,
        ),
        ("0::/../other\n", {"memory.max": "5000000\n"}, 5_000_000),  # a group outside of the container's view
        (
            "4:cpu:/a\n3:memory:/a/b\n1:name=systemd:/a\n",
            {"memory/a/b/memory.limit_in_bytes": "4000000\n", "memory/memory.limit_in_bytes": f"{2**63}\n"},
            4_000_000,
        ),
    ],
)
def test_a_containers_or_a_services_limit_counts(
    tmp_path: Path, groups: str, files: dict[str, str], found: int
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    if groups:
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert available_bytes(tmp_path) == found


@pytest.mark.parametrize(
    ("text", "size"), [("512MB", 512_000_000), ("1.5 GiB", 3 << 29), ("100", 100), ("2g", 2_000_000_000)]
)
def test_sizes_are_read_as_duckdb_reads_them(text: str, size: int) -> None:
    assert byte_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0MB", "12QB", "80%"])
def test_a_wrong_size_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match="duckdb_memory_limit"):
        load_settings(duckdb_memory_limit=text)


def test_the_default_grows() -> None:
    assert Settings().duckdb_memory_limit == AUTO
