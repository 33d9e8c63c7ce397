"""Syncs by watermark: asked for, and looked at."""

from __future__ import annotations

from cdc.replica.watermarks import Watermark
from cdc.status import SyncResult
from tests.replica import Replica
from tests.waiting import SECONDS

STAMP = "updated_at TIMESTAMP(3) NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)"
ITEMS = f"CREATE TABLE items (id INT PRIMARY KEY, note VARCHAR(50), {STAMP}, KEY (updated_at))"


def sync(replica: Replica) -> SyncResult:
    return replica.pipeline.start_incremental_sync().wait(SECONDS)


def records(result: SyncResult) -> dict[str, int]:
    return {table.table: table.records for table in result.tables}


def mark(replica: Replica, table: str) -> Watermark:
    return next(each for each in replica.pipeline.watermarks() if each.table == table)
