"""Every metric of the service, by name. How to read each one: docs/metrics.md."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cdc import __version__
from cdc.status import PipelineState, PipelineStatus, PositionStatus, TableState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MODES = ("cdc", "polling", "none")
_BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH_ROWS = (1, 10, 100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000)
_SYNC_SECONDS = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0)
_REQUEST_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0)


@dataclass(frozen=True, slots=True)
class Observed:
    """What a scrape reads of one database."""

    status: PipelineStatus
    replica_file: Path


class Metrics:
    """All metrics of one service. Counters move by one method an event; gauges are read at each scrape.

    Each instance has a registry of its own unless one is given, so that tests do not share counters.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        database = ("database",)
        self._rows = Counter(
            "duckling_rows_applied",
            "Rows written to the copy, by operation: insert, update, delete, copy, poll.",
            ("database", "operation"),
            registry=self.registry,
        )
        self._transactions = Counter(
            "duckling_transactions_applied",
            "Source transactions committed to the copy.",
            database,
            registry=self.registry,
        )
        self._batches = Counter(
            "duckling_batches",
            "Micro-batches committed, by what closed them.",
            ("database", "reason"),
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "duckling_batch_seconds",
            "Seconds from the start of a micro-batch's transaction to its commit.",
            database,
            buckets=_BATCH_SECONDS,
            registry=self.registry,
        )
        self._batch_rows = Histogram(
            "duckling_batch_rows",
            "Rows of a micro-batch, as read from the source.",
            database,
            buckets=_BATCH_ROWS,
            registry=self.registry,
        )
        self._errors = Counter(
            "duckling_errors",
            "Errors, by code.",
            ("database", "code"),
            registry=self.registry,
        )
        self._zero_dates = Counter(
            "duckling_zero_dates",
            "Dates that the calendar lacks and that became NULL, by table.",
            ("database", "table"),
            registry=self.registry,
        )
        self._repaired = Counter(
            "duckling_rows_repaired",
            "Rows that differed from the source and were written again, by table.",
            ("database", "table"),
            registry=self.registry,
        )
        self._reconnects = Counter(
            "duckling_reconnects",
            "Connections to the source opened again after a loss.",
            database,
            registry=self.registry,
        )
        self._syncs = Histogram(
            "duckling_sync_seconds",
            "Seconds that a sync took, by its kind and how it ended.",
            ("database", "kind", "result"),
            buckets=_SYNC_SECONDS,
            registry=self.registry,
        )
        self._schema_changes = Counter(
            "duckling_schema_changes",
            "Statements of the binary log that changed a table, by kind.",
            ("database", "kind"),
            registry=self.registry,
        )
        self._validations = Counter(
            "duckling_validations",
            "Comparisons of source and copy, by result: equal, different, failed.",
            ("database", "result"),
            registry=self.registry,
        )
        self._validated_tables = Gauge(
            "duckling_validation_tables",
            "Tables of the last comparison, by result: equal, different.",
            ("database", "result"),
            registry=self.registry,
        )
        self._validated_at = Gauge(
            "duckling_validation_timestamp_seconds",
            "When source and copy were compared last, in seconds since 1970.",
            database,
            registry=self.registry,
        )
        self._requests = Counter(
            "duckling_http_requests",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._requests_running = Gauge(
            "duckling_http_requests_running",
            "HTTP requests that are being answered.",
            ("route",),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "duckling_http_request_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            ("route",),
            buckets=_REQUEST_SECONDS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def for_database(self, database: str) -> DatabaseMetrics:
        """The counters of one database."""
        return DatabaseMetrics(self, database)

    def forget(self, database: str) -> None:
        """The database is gone: its series end."""
        for metric in vars(self).values():
            if isinstance(metric, Counter | Gauge | Histogram) and "database" in metric._labelnames:
                metric.remove_by_labels({"database": database})

    def request_running(self, route: str) -> AbstractContextManager[object]:
        """Counts a request while the block runs."""
        return self._requests_running.labels(route).track_inprogress()

    def request_answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One HTTP request; `route` is the route's pattern, never the path as it came."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def observe(self, observed: Callable[[], Iterable[Observed]]) -> None:
        """From now on each scrape reads its gauges from `observed()`."""
        self.registry.register(_StatusCollector(observed))

    def render(self) -> bytes:
        """Everything in Prometheus's text format (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)


class DatabaseMetrics:
    """The counters of one database; safe to call from any thread."""

    def __init__(self, metrics: Metrics, database: str) -> None:
        self._metrics = metrics
        self._database = database
        # The series exist from the start, so that a rate over the first event is right.
        for operation in ("insert", "update", "delete", "copy", "poll"):
            metrics._rows.labels(database, operation)
        for result in ("equal", "different", "failed"):
            metrics._validations.labels(database, result)
        for counter in (metrics._transactions, metrics._reconnects):
            counter.labels(database)
        for histogram in (metrics._batch_seconds, metrics._batch_rows):
            histogram.labels(database)

    def batch_applied(
        self, rows: Mapping[str, int], *, transactions: int, seconds: float, reason: str
    ) -> None:
        """A micro-batch is committed. `rows` counts by operation (insert, update, delete); `reason` is what
        closed it, see `FlushReason`."""
        metrics, database = self._metrics, self._database
        for operation, count in rows.items():
            metrics._rows.labels(database, operation).inc(count)
        metrics._transactions.labels(database).inc(transactions)
        metrics._batches.labels(database, reason).inc()
        metrics._batch_seconds.labels(database).observe(seconds)
        metrics._batch_rows.labels(database).observe(sum(rows.values()))

    def rows_copied(self, rows: int) -> None:
        """Rows of a table copy are written to its staging table."""
        self._metrics._rows.labels(self._database, "copy").inc(rows)

    def rows_polled(self, rows: int) -> None:
        """Rows that a watermark sync has read are committed to the copy."""
        self._metrics._rows.labels(self._database, "poll").inc(rows)

    def zero_dates_met(self, table: str, count: int) -> None:
        """Values of `table` that were zero, partial or impossible dates are NULL in the copy."""
        self._metrics._zero_dates.labels(self._database, table).inc(count)

    def rows_repaired(self, table: str, count: int) -> None:
        """Rows of `table` were found to differ and are the source's now."""
        self._metrics._repaired.labels(self._database, table).inc(count)

    def error_met(self, code: str) -> None:
        """An error of this code (see `DucklingError.code`)."""
        self._metrics._errors.labels(self._database, code).inc()

    def sync_ended(self, kind: str, result: str, seconds: float) -> None:
        """A run has ended: `kind` as `Run.kind`, `result` success, error or cancelled."""
        self._metrics._syncs.labels(self._database, kind, result).observe(seconds)

    def schema_changed(self, kind: str) -> None:
        """A statement of the binary log was carried out; `kind` as `SchemaChange.kind`."""
        self._metrics._schema_changes.labels(self._database, kind).inc()

    def validated(self, *, equal: int, different: int, at: float) -> None:
        """Source and copy were compared: tables that are equal, and those that differ; `at` is when."""
        metrics, database = self._metrics, self._database
        metrics._validations.labels(database, "different" if different else "equal").inc()
        metrics._validated_tables.labels(database, "equal").set(equal)
        metrics._validated_tables.labels(database, "different").set(different)
        metrics._validated_at.labels(database).set(at)

    def validation_failed(self) -> None:
        """Source and copy could not be compared."""
        self._metrics._validations.labels(self._database, "failed").inc()

    def reconnected(self) -> None:
        """The connection to the source is open again after a loss."""
        self._metrics._reconnects.labels(self._database).inc()


class _StatusCollector(Collector):
    def __init__(self, observed: Callable[[], Iterable[Observed]]) -> None:
        self._observed = observed

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read a status."""
        return ()

    def collect(self) -> Iterator[Metric]:
        observed = tuple(self._observed())
        build = GaugeMetricFamily("duckling_build_info", "Always 1.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        for name, meaning, read in _GAUGES:
            gauge = GaugeMetricFamily(name, meaning, labels=["database"])
            for each in observed:
                value = read(each)
                if value is not None:
                    gauge.add_metric([each.status.id], value)
            yield gauge
        state = GaugeMetricFamily(
            "duckling_pipeline_state", "1 for the state the pipeline is in.", labels=["database", "state"]
        )
        mode = GaugeMetricFamily(
            "duckling_mode", "1 for the way by which changes come.", labels=["database", "mode"]
        )
        tables = GaugeMetricFamily("duckling_tables", "Tables, by state.", labels=["database", "state"])
        for each in observed:
            status = each.status
            for word in PipelineState:
                state.add_metric([status.id, word.value], float(status.state is word))
            for way in _MODES:
                mode.add_metric([status.id, way], float(status.mode == way))
            for table_word in TableState:
                count = sum(table.state is table_word for table in status.tables)
                tables.add_metric([status.id, table_word.value], count)
        yield state
        yield mode
        yield tables


def _file_number(position: PositionStatus) -> float | None:
    """The number in `binlog.000042`; it grows at every rotation."""
    number = (position.filename or "").rpartition(".")[2]
    return float(number) if number.isdecimal() else None


def _seconds(status: PipelineStatus) -> float | None:
    return status.last_event_at.timestamp() if status.last_event_at else None


def _size(path: Path) -> float:
    try:
        return float(path.stat().st_size)
    except FileNotFoundError:
        return 0.0


def _wal(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def _free(path: Path) -> float | None:
    try:
        return float(shutil.disk_usage(path.parent).free)
    except OSError:
        return None


_GAUGES: tuple[tuple[str, str, Callable[[Observed], float | None]], ...] = (
    (
        "duckling_lag_seconds",
        "Seconds by which the copy is behind the source; 0 when it has all.",
        lambda o: o.status.lag_seconds,
    ),
    ("duckling_lag_bytes", "Bytes of binary log not applied yet.", lambda o: o.status.lag_bytes),
    ("duckling_queue_batches", "Micro-batches that wait for the writer.", lambda o: o.status.queue_size),
    (
        "duckling_last_event_timestamp_seconds",
        "When the source was heard last, heartbeats included, in seconds since 1970.",
        lambda o: _seconds(o.status),
    ),
    (
        "duckling_source_binlog_file_number",
        "Number of the file that the source writes its binary log to.",
        lambda o: _file_number(o.status.source),
    ),
    (
        "duckling_source_binlog_position_bytes",
        "Offset of the source in that file.",
        lambda o: o.status.source.position,
    ),
    (
        "duckling_replica_binlog_file_number",
        "Number of the binary log file that the copy has reached.",
        lambda o: _file_number(o.status.current),
    ),
    (
        "duckling_replica_binlog_position_bytes",
        "Offset of the copy in that file.",
        lambda o: o.status.current.position,
    ),
    ("duckling_replica_file_bytes", "Size of the DuckDB file.", lambda o: _size(o.replica_file)),
    (
        "duckling_replica_wal_bytes",
        "Size of the DuckDB file's write-ahead log.",
        lambda o: _size(_wal(o.replica_file)),
    ),
    (
        "duckling_replica_disk_free_bytes",
        "Free bytes of the file system that holds the DuckDB file.",
        lambda o: _free(o.replica_file),
    ),
    (
        "duckling_writer_busy_seconds",
        "Seconds for which the writer has been at the same piece of work; 0 when idle.",
        lambda o: o.status.writer_busy,
    ),
    (
        "duckling_source_clock_offset_seconds",
        "Seconds by which the source's clock is ahead of ours.",
        lambda o: o.status.clock_offset,
    ),
)
