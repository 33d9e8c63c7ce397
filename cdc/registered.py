"""One database of a service: a pipeline that was started, or the error that forbids it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from cdc.databases import DatabaseDefinition
from cdc.errors import DucklingError, as_duckling
from cdc.status import PipelineState, PipelineStatus

if TYPE_CHECKING:
    from cdc.pipeline import Pipeline

log = structlog.get_logger(__name__)

_REFUSED_SECONDS = 1.0
"""How long a pipeline that could not be started may take to let go of what it has."""


@dataclass(slots=True)
class Registered:
    """A database by its id. Only one thread at a time may launch and close it."""

    id: str
    definition: DatabaseDefinition | None
    """None where a pipeline was given as it is."""
    pipeline: Pipeline | None = None
    error: DucklingError | None = None
    fixed: bool = False
    """Whether the settings define it, so that no call can change it."""
    opened: bool = False
    """Whether its file was opened, hence is one of ours."""

    def status(self) -> PipelineStatus:
        """How things stand; `failed`, with the error, where it could not be started."""
        if self.error is None and self.pipeline is not None:
            return self.pipeline.status()
        error = self.error
        return PipelineStatus(
            id=self.id,
            state=PipelineState.FAILED if error else PipelineState.STOPPED,
            mode="none",
            running=False,
            # One that is polled counts as well: it was to be kept, and is not.
            enabled=error is not None or self.definition is None or self.definition.cdc_enabled,
            errors=1 if error else 0,
            last_error=error.message if error else None,
            last_error_code=error.code if error else None,
            hint=error.hint if error else None,
        )

    @property
    def between_polls(self) -> float:
        """Seconds from one watermark sync to the next, where the log is not followed."""
        return self.definition.sync_interval_minutes * 60.0 if self.definition is not None else 0.0

    def lifeless(self) -> str | None:
        """What of it does not live though it should; None where all does. One that failed is tried again."""
        return self.pipeline.lifeless() if self.error is None and self.pipeline is not None else None

    def launch(self, build: Callable[[Registered], Pipeline] | None) -> None:
        """Starts its pipeline, or keeps the error that forbids it.

        `build` makes a pipeline where there is none. One that fails is let go of, if another can be built.
        """
        pipeline = self.pipeline
        try:
            if pipeline is None:
                assert build is not None
                pipeline = build(self)
            pipeline.start()
        except DucklingError as error:
            self._refuse(error)
        except Exception as failure:
            log.exception("database.start_crashed", database=self.id)
            self._refuse(as_duckling(failure, "the start of the database"))
        else:
            self.pipeline, self.error, self.opened = pipeline, None, True
            return
        if pipeline is not None and build is not None:
            self._close(pipeline, _REFUSED_SECONDS)
            self.pipeline = None

    def close(self, timeout: float) -> None:
        """Stops its pipeline, where it has one, within `timeout` seconds. That it could not is logged."""
        if self.pipeline is not None:
            self._close(self.pipeline, timeout)

    def _refuse(self, error: DucklingError) -> None:
        self.error = error
        log.error(
            "database.not_started", database=self.id, code=error.code, error=error.message, hint=error.hint
        )

    def _close(self, pipeline: Pipeline, timeout: float) -> None:
        try:
            pipeline.stop(timeout)
        except DucklingError as error:
            log.error("pipeline.stop_failed", database=self.id, code=error.code, error=error.message)
