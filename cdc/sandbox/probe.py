"""The lag as a reader sees it: from a commit at the source until a query on the copy shows the row."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cdc.sandbox.databases import session

TABLE = "probe"
_DEFINITION = (
    f"CREATE TABLE {TABLE} (id BIGINT UNSIGNED NOT NULL PRIMARY KEY, written_at TIMESTAMP(6) NOT NULL)"
    " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
)


@dataclass(frozen=True, slots=True)
class LagFigures:
    """Milliseconds of lag over all probe rows seen; None where there were none."""

    rows: int
    p50: float | None
    p95: float | None
    highest: float | None


class Probe:
    """Writes a row every `interval` seconds and asks the copy, by `seen`, for the highest id that it has.

    The clock starts when the source has answered the COMMIT. A row is asked for every few milliseconds until
    it is seen, so that the lag includes the query and up to `pause` seconds. The table must exist
    (`create_table`). `seen` is called by one thread and returns 0 while the copy is empty.
    """

    def __init__(
        self, url: str, seen: Callable[[], int], *, interval: float = 0.1, pause: float = 0.005
    ) -> None:
        self._url = url
        self._seen = seen
        self._interval = interval
        self._pause = pause
        self._pending: deque[tuple[int, float]] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._lags: list[float] = []
        self._error: BaseException | None = None
        self._threads = (
            threading.Thread(target=self._guard, args=(self._write,), name="probe-writer", daemon=True),
            threading.Thread(target=self._guard, args=(self._watch,), name="probe-reader", daemon=True),
        )

    @staticmethod
    def create_table(url: str) -> None:
        """Creates the empty table of probe rows."""
        with session(url) as connection, connection.cursor() as cursor:
            cursor.execute(_DEFINITION)

    def start(self) -> Probe:
        """Begins; returns at once."""
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, rows: int, timeout: float = 60.0) -> None:
        """Returns when so many rows were seen. Raises TimeoutError, or the error of a thread."""
        with self._changed:
            done = self._changed.wait_for(lambda: len(self._lags) >= rows or self._error, timeout)
        if self._error is not None:
            raise self._error
        if not done:
            raise TimeoutError(f"the copy showed {len(self._lags)} of {rows} probe rows")

    def end(self) -> None:
        """Writes no more, whether or not what is written was seen."""
        self._stopping.set()
        self._threads[0].join()

    def stop(self, timeout: float = 60.0) -> LagFigures:
        """Writes no more and returns when every row was seen.

        Raises TimeoutError where that takes longer than `timeout` seconds, or the error of a thread.
        """
        self.end()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            with self._changed:
                self._changed.notify_all()
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._error is not None:
            raise self._error
        if any(thread.is_alive() for thread in self._threads):
            raise TimeoutError(f"{len(self._pending)} probe rows did not reach the copy")
        return self.figures()

    def latest(self) -> float | None:
        """The lag in milliseconds now: of the last row seen, or of the oldest that still is not, if greater.

        None before the first row.
        """
        with self._changed:
            waiting = (time.monotonic() - self._pending[0][1]) * 1000 if self._pending else 0.0
            last = self._lags[-1] if self._lags else None
        return waiting if last is None and waiting else max(last, waiting) if last is not None else None

    def figures(self) -> LagFigures:
        """The lags up to now."""
        with self._changed:
            lags = sorted(self._lags)
        if not lags:
            return LagFigures(0, None, None, None)
        return LagFigures(len(lags), percentile(lags, 50), percentile(lags, 95), lags[-1])

    def _guard(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - raised by stop, in the caller's thread
            self._error = self._error or error
            self._stopping.set()
            with self._changed:
                self._pending.clear()
                self._changed.notify_all()

    def _write(self) -> None:
        with session(self._url) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT COALESCE(MAX(id), 0) FROM {TABLE}")
            number = int(cursor.fetchone()[0])
            while not self._stopping.wait(self._interval):
                number += 1
                cursor.execute(f"INSERT INTO {TABLE} VALUES ({number}, CURRENT_TIMESTAMP(6))")
                with self._changed:
                    self._pending.append((number, time.monotonic()))
                    self._changed.notify_all()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._stopping.is_set())
                if not self._pending and not self._threads[0].is_alive():
                    return
                if not self._pending:
                    self._changed.wait(self._pause)  # the writer's last row may still come
                    continue
            highest = self._seen()
            now = time.monotonic()
            with self._changed:
                while self._pending and self._pending[0][0] <= highest:
                    _, committed = self._pending.popleft()
                    # A row can be seen before its writer has the answer to the COMMIT.
                    self._lags.append(max(0.0, now - committed) * 1000)
                    self._changed.notify_all()
            time.sleep(self._pause)


def percentile(ordered: list[float], percent: float) -> float:
    """The nearest-rank percentile of an ascending list that is not empty."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
