"""The source has purged the log at our position: told everywhere, not tried again and again, mended by a copy."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from cdc.sandbox.databases import create_database, session
from cdc.sandbox.installation import Flavor
from cdc.sandbox.servers import Server
from cdc.sandbox.service import Service
from tests.faults.conftest import assert_equal_after_stop, wait_live
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


def test_a_purged_position_is_shown_everywhere_and_not_tried_again_and_again(
    server_factory: Callable[..., Server], service_factory: Callable[..., Service]
) -> None:
    server = server_factory(Flavor.MYSQL)
    database = create_database(server)
    database.execute("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    service = service_factory(database.url, retry_max_seconds=0.1).start()
    wait_live(service)
    assert service.stop() == 0
    database.execute("INSERT INTO t VALUES (2)", "FLUSH BINARY LOGS", "INSERT INTO t VALUES (3)")
    with session(server.url()) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW BINARY LOGS")
        cursor.execute(f"PURGE BINARY LOGS TO '{cursor.fetchall()[-1][0]}'")
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_binlog_dump%'")
    service.start()
    status = wait_until(
        lambda: (now := service.get("/cdc/status")["status"])["state"] == "needs_resync" and now, "it stops"
    )
    assert status["lastError"]
    with service.client() as client:
        ready: httpx.Response = client.get("/readyz")
        assert ready.status_code == 503
        assert "needs_resync" in ready.text
        assert (
            'duckling_pipeline_state{database="default",state="needs_resync"} 1.0'
            in client.get("/metrics").text
        )
    database.execute("INSERT INTO t VALUES (4)")
    assert service.query("SELECT count(*) AS n FROM t")[0]["n"] in (1, "1")  # readers keep the copy
    assert service.log.read_text().count("stream.needs_resync") == 1
    service.post("/sync/full")
    wait_live(service)
    assert_equal_after_stop(service, database.url)
