"""A MySQL without GTIDs: positions are files and offsets, and they hold for their server alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc.errors import SourceMismatchError
from cdc.sandbox.databases import create_database
from cdc.sandbox.installation import Flavor
from cdc.sandbox.load import Load
from cdc.sandbox.servers import Server
from cdc.sandbox.shop import create_tables, fill_tables
from tests.replica import Replica
from tests.waiting import wait_until

OFF = ("--gtid-mode=OFF", "--enforce-gtid-consistency=OFF")


def test_copy_and_stream_lose_nothing_by_file_and_offset(
    server_factory: Callable[..., Server], replica_factory: Callable[..., Replica]
) -> None:
    shop = create_database(server_factory(Flavor.MYSQL, *OFF))
    with shop.connect() as connection:
        create_tables(connection)
        fill_tables(connection, rows=5_000)
    with Load(shop.url, rate=200, seed=3) as load:
        replica = replica_factory(shop.url).start()
        load.wait_for(100)
        shop.execute("FLUSH BINARY LOGS")
        replica.pipeline.start_full_sync().wait(60)
        replica.stop()
        load.wait_for(300)
        replica.start()
    replica.catch_up()
    replica.assert_equal()
    position = replica.pipeline.status().current
    assert (position.gtid, bool(position.filename), bool(position.position)) == (None, True, True)


def test_a_position_by_file_is_refused_by_another_server(
    server_factory: Callable[..., Server], replica_factory: Callable[..., Replica]
) -> None:
    urls = []
    for _ in range(2):
        made = create_database(server_factory(Flavor.MYSQL, *OFF), "shop")
        made.execute("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        urls.append(made.url)
    replica_factory(urls[0]).start().stop()
    moved = replica_factory(urls[1]).start(live=False)
    wait_until(lambda: moved.pipeline.status().last_error_code, "the other server is refused")
    assert moved.pipeline.status().last_error_code == SourceMismatchError.code
    with pytest.raises(SourceMismatchError):
        moved.pipeline.wait_streaming(5)
