"""The databases of one service, by id: which pipelines there are, started and stopped together."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import structlog

from cdc.errors import ConflictError, DucklingError, NotFoundError

if TYPE_CHECKING:
    from cdc.pipeline import Pipeline

DEFAULT = "default"
log = structlog.get_logger(__name__)


class Registry:
    """Pipelines by id. Reading is safe from any thread."""

    def __init__(self, pipelines: Iterable[Pipeline] = ()) -> None:
        self._pipelines: dict[str, Pipeline] = {}
        self._stop_lock = threading.Lock()
        self._stopped = False
        for pipeline in pipelines:
            if pipeline.id in self._pipelines:
                raise ConflictError(f"database {pipeline.id!r} is there already", code="DATABASE_EXISTS")
            self._pipelines[pipeline.id] = pipeline

    def __iter__(self) -> Iterator[Pipeline]:
        return iter(tuple(self._pipelines.values()))

    def __len__(self) -> int:
        return len(self._pipelines)

    def get(self, database: str | None = None) -> Pipeline:
        """The pipeline called `database`, `default` without a name. Raises NotFoundError."""
        name = database or DEFAULT
        try:
            return self._pipelines[name]
        except KeyError:
            raise NotFoundError(
                "there is no such database",
                hint=f"known: {', '.join(sorted(self._pipelines)) or 'none'}",
                code="DATABASE_NOT_FOUND",
            ) from None

    def start(self) -> None:
        """Starts every pipeline; returns at once. Raises the first one's DucklingError."""
        for pipeline in self:
            pipeline.start()

    def stop(self, timeout: float = 9.0) -> None:
        """Drains all pipelines at the same time, within `timeout` seconds; a second call waits for the first.

        Raises DucklingError where one could not, after all of them had their time; the log has the cause.
        """
        with self._stop_lock:
            if self._stopped:
                return
            failures: list[Exception] = []

            def drain(pipeline: Pipeline) -> None:
                try:
                    pipeline.stop(timeout)
                except Exception as error:
                    log.exception("pipeline.stop_failed", database=pipeline.id)
                    failures.append(error)

            threads = [
                threading.Thread(target=drain, args=(pipeline,), name=f"stop-{pipeline.id}", daemon=True)
                for pipeline in self
            ]
            deadline = time.monotonic() + timeout
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            self._stopped = True
            late = [thread.name for thread in threads if thread.is_alive()]
            if late:
                log.error("pipeline.stop_late", threads=late, seconds=timeout)
            if failures:
                raise DucklingError(
                    "a database could not be stopped cleanly", hint="the log has the cause"
                ) from failures[0]
