"""Whether the threads of one database live and get on: what a supervisor restarts the process for."""

from __future__ import annotations

from cdc.engine import Engine
from cdc.source_monitor import SourceMonitor
from cdc.syncs import Syncs


def lifeless(engine: Engine, syncs: Syncs, monitor: SourceMonitor) -> str | None:
    """What of a started pipeline does not live; None where all does. Asks neither the source nor DuckDB.

    A source that is away or a file that can't be opened is no reason: both are tried again, and a restart
    would not help. A writer that has been at one piece of work for `liveness_seconds` is taken for wedged.
    """
    if syncs.stopping:
        return None
    for name, alive in (
        ("writer", engine.writer.alive),
        ("sync", syncs.alive),
        ("monitor", monitor.alive),
    ):
        if not alive:
            return f"the {name} thread has ended"
    busy = engine.writer.busy_seconds
    if busy > engine.settings.liveness_seconds:
        return f"the writer has been at one piece of work for {busy:.0f} s"
    return None
