"""Polling in place of the stream: whether it must be, why, and when."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import structlog

from cdc.engine import Engine
from cdc.errors import DucklingError
from cdc.full_sync import FullSync
from cdc.replica import state
from cdc.replica.watermarks import Watermark, load_watermarks
from cdc.runs import Run
from cdc.source.log_findings import log_obstacle
from cdc.source.preflight import Finding
from cdc.status import SyncResult
from cdc.stream_loop import StreamLoop
from cdc.watermark.copy_marks import WatermarksOfCopy
from cdc.watermark.schedule import Schedule
from cdc.watermark.sync import WatermarkSync

log = structlog.get_logger(__name__)

Mode = Literal["cdc", "polling", "none"]

_HOLES = frozenset({"BINLOG_OFF", "BINLOG_FORMAT"})
"""Obstacles while which rows change without a trace in the log: no position from before is good behind them."""


class Fallback:
    """What a pipeline does where the binary log can't be followed: watermark syncs on a schedule.

    The log is looked at again before each of them; once it can be followed, the stream takes over, from its
    position where the log has no hole and no table is ahead of it, else behind a fresh copy.
    """

    def __init__(
        self, engine: Engine, stream: StreamLoop, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._stream = stream
        self._clock = clock
        self.schedule = Schedule(engine.settings.sync_interval_minutes * 60.0, clock)
        self.obstacle: Finding | None = None
        """What keeps us from following the log; None where nothing does, or nobody has looked."""
        self._errors_seen = 0
        self._syncs = WatermarkSync(engine, self._copy, clock=clock)
        self._mode: Mode | None = None

    def close(self) -> None:
        """Ends the session with the source."""
        self._syncs.close()

    # The mode ----------------------------------------------------------------------------------------

    def mode(self, *, stream_wanted: bool) -> Mode:
        """How the copy is kept: by the stream, by polling, or not at all, since somebody has stopped it."""
        if not stream_wanted:
            return "none" if self._engine.settings.cdc_enabled else "polling"
        return "polling" if self.obstacle is not None else "cdc"

    def reason(self, *, stream_wanted: bool) -> str | None:
        """Why it is polled; None where it is not."""
        if self.mode(stream_wanted=stream_wanted) != "polling":
            return None
        return (
            self.obstacle.message if self.obstacle is not None and stream_wanted else "CDC_ENABLED is false"
        )

    def note_mode(self, *, stream_wanted: bool) -> None:
        """Writes to the log when the mode is another than last time."""
        mode = self.mode(stream_wanted=stream_wanted)
        if mode == self._mode:
            return
        before, self._mode = self._mode, mode
        if before is None and mode == "cdc":
            return
        obstacle = self.obstacle if mode == "polling" else None
        log.warning(
            "mode.changed",
            database=self._engine.id,
            mode=mode,
            before=before,
            reason=self.reason(stream_wanted=stream_wanted),
            hint=obstacle.fix if obstacle is not None else "",
        )

    def learn(self, findings: Sequence[Finding]) -> None:
        """Takes over what preflight found. A position that the log has a hole behind is forgotten."""
        self.obstacle = log_obstacle(findings)

    def begin(self) -> None:
        """The file is open and the writer runs. A copy that a stream has kept is polled an interval from now:
        until then the stream can still take it up where it left off."""
        self._drop_worthless_position(self.obstacle)
        if self._engine.position() is not None and not self.watermarks():
            self.schedule.postpone()

    def look(self) -> None:
        """Looks at the source's log again; nothing changes where the source does not answer."""
        try:
            _, _, findings = self._engine.inspect()
        except DucklingError as error:
            log.debug("mode.not_known", database=self._engine.id, code=error.code)
            return
        had, obstacle = self.obstacle, log_obstacle(findings)
        if obstacle is not None and had is None:
            self._stream.stop()
            self._drop_worthless_position(obstacle)
            if self._engine.position() is not None:
                self.schedule.postpone()
        elif obstacle is None and had is not None:
            self._stream.forgive()
        self.obstacle = obstacle  # last: the mode shows when all that it means is done

    def troubled(self) -> bool:
        """Whether the stream has failed since this was asked last, and is not connected."""
        if self._stream.reader is not None or self._stream.errors == self._errors_seen:
            return False
        self._errors_seen = self._stream.errors
        return True

    def _drop_worthless_position(self, obstacle: Finding | None) -> None:
        if obstacle is None or obstacle.code not in _HOLES or self._engine.position() is None:
            return
        self._engine.writer.submit(lambda cursor: state.forget_position(cursor, self._engine.id)).result()

    # Syncs -------------------------------------------------------------------------------------------

    def watermarks(self) -> dict[str, Watermark]:
        """The watermarks by table."""
        return self._engine.replica.read(load_watermarks)

    def poll(self, run: Run) -> SyncResult:
        """One watermark sync; see `WatermarkSync.carry_out`."""
        self._stream.stop()  # one that is ending would leave a position that the tables are ahead of
        began = self._clock()
        result = self._syncs.carry_out(run)
        if not run.tables:
            self.schedule.ran(began)
        return result

    def full(self, run: Run) -> SyncResult:
        """A copy of all tables, or of those that the run names, from which watermark syncs go on."""
        self._stream.stop()
        began = self._clock()
        result = self._copy(run, None)
        if not run.tables:
            self.schedule.ran(began)
        return result

    def _copy(self, run: Run, tables: Sequence[str] | None) -> SyncResult:
        return FullSync(
            self._engine,
            run,
            self._stream,
            needs_copy=_come_with_the_next_poll,
            clock=self._clock,
            logged=False,
            marks=WatermarksOfCopy(self._engine, self._engine.settings.watermark_overlap_seconds),
            only=tables,
        ).carry_out()


def _come_with_the_next_poll(_: list[str]) -> None:
    """A table without a watermark is copied by every sync that finds it."""
