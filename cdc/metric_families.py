"""Every metric of the service, by name. How to read each one: docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

from cdc import __version__
from cdc.observed import Observed
from cdc.status import PipelineState, TableState

_MODES = ("cdc", "polling", "none")
_BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH_ROWS = (1, 10, 100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000)
_SYNC_SECONDS = (0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0)
_REQUEST_SECONDS = (0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0)


class MetricFamilies:
    """Those that are moved as things happen; by whom and when: `metrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        database = ("database",)
        self.rows = Counter(
            "duckling_rows_applied",
            "Rows written to the copy, by operation: insert, update, delete, copy, poll.",
            ("database", "operation"),
            registry=registry,
        )
        self.transactions = Counter(
            "duckling_transactions_applied",
            "Source transactions committed to the copy.",
            database,
            registry=registry,
        )
        self.batches = Counter(
            "duckling_batches",
            "Micro-batches committed, by what closed them.",
            ("database", "reason"),
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "duckling_batch_seconds",
            "Seconds from the start of a micro-batch's transaction to its commit.",
            database,
            buckets=_BATCH_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "duckling_batch_rows",
            "Rows of a micro-batch, as read from the source.",
            database,
            buckets=_BATCH_ROWS,
            registry=registry,
        )
        self.errors = Counter(
            "duckling_errors",
            "Errors, by code.",
            ("database", "code"),
            registry=registry,
        )
        self.zero_dates = Counter(
            "duckling_zero_dates",
            "Dates that the calendar lacks and that became NULL, by table.",
            ("database", "table"),
            registry=registry,
        )
        self.repaired = Counter(
            "duckling_rows_repaired",
            "Rows that differed from the source and were written again, by table.",
            ("database", "table"),
            registry=registry,
        )
        self.reconnects = Counter(
            "duckling_reconnects",
            "Connections to the source opened again after a loss.",
            database,
            registry=registry,
        )
        self.syncs = Histogram(
            "duckling_sync_seconds",
            "Seconds that a sync took, by its kind and how it ended.",
            ("database", "kind", "result"),
            buckets=_SYNC_SECONDS,
            registry=registry,
        )
        self.schema_changes = Counter(
            "duckling_schema_changes",
            "Statements of the binary log that changed a table, by kind.",
            ("database", "kind"),
            registry=registry,
        )
        self.validations = Counter(
            "duckling_validations",
            "Comparisons of source and copy, by result: equal, different, failed.",
            ("database", "result"),
            registry=registry,
        )
        self.validated_tables = Gauge(
            "duckling_validation_tables",
            "Tables of the last comparison, by result: equal, different.",
            ("database", "result"),
            registry=registry,
        )
        self.validated_at = Gauge(
            "duckling_validation_timestamp_seconds",
            "When source and copy were compared last, in seconds since 1970.",
            database,
            registry=registry,
        )
        self.requests = Counter(
            "duckling_http_requests",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.requests_running = Gauge(
            "duckling_http_requests_running",
            "HTTP requests that are being answered.",
            ("route",),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "duckling_http_request_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            ("route",),
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )

    def forget(self, database: str) -> None:
        """The database is gone: its series end."""
        for family in vars(self).values():
            if isinstance(family, Counter | Gauge | Histogram) and "database" in family._labelnames:
                family.remove_by_labels({"database": database})


def build_info() -> GaugeMetricFamily:
    """The service's version, which is known before any database."""
    build = GaugeMetricFamily("duckling_build_info", "Always 1.", labels=["version"])
    build.add_metric([__version__], 1)
    return build


GAUGES: tuple[tuple[str, str, Callable[[Observed], float | None]], ...] = (
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
        lambda o: o.last_event,
    ),
    (
        "duckling_source_binlog_file_number",
        "Number of the file that the source writes its binary log to.",
        lambda o: o.source_file_number,
    ),
    (
        "duckling_source_binlog_position_bytes",
        "Offset of the source in that file.",
        lambda o: o.status.source.position,
    ),
    (
        "duckling_replica_binlog_file_number",
        "Number of the binary log file that the copy has reached.",
        lambda o: o.replica_file_number,
    ),
    (
        "duckling_replica_binlog_position_bytes",
        "Offset of the copy in that file.",
        lambda o: o.status.current.position,
    ),
    ("duckling_replica_file_bytes", "Size of the DuckDB file.", lambda o: o.replica_bytes),
    ("duckling_replica_wal_bytes", "Size of the DuckDB file's write-ahead log.", lambda o: o.wal_bytes),
    (
        "duckling_replica_disk_free_bytes",
        "Free bytes of the file system that holds the DuckDB file.",
        lambda o: o.free_bytes,
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
"""Those that a scrape reads: name, meaning, and how; None is left out."""

GAUGES_BY_WORD: tuple[tuple[str, str, str, Callable[[Observed], Mapping[str, float]]], ...] = (
    (
        "duckling_pipeline_state",
        "1 for the state the pipeline is in.",
        "state",
        lambda o: {word.value: float(o.status.state is word) for word in PipelineState},
    ),
    (
        "duckling_mode",
        "1 for the way by which changes come.",
        "mode",
        lambda o: {way: float(o.status.mode == way) for way in _MODES},
    ),
    (
        "duckling_tables",
        "Tables, by state.",
        "state",
        lambda o: {word.value: sum(table.state is word for table in o.status.tables) for word in TableState},
    ),
)
"""Those of them with a second label, whose words are all told: name, meaning, label, and how."""
