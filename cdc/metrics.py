"""The metrics of the service: counters are moved as things happen, gauges are read at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cdc.metric_families import GAUGES, GAUGES_BY_WORD, MetricFamilies, build_info
from cdc.observed import Observed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All metrics of one service. Counters move by one method an event; gauges are read at each scrape.

    Each instance has a registry of its own unless one is given, so that tests do not share counters.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._families = MetricFamilies(self.registry)
        ProcessCollector(registry=self.registry)

    def for_database(self, database: str) -> DatabaseMetrics:
        """The counters of one database."""
        return DatabaseMetrics(self._families, database)

    def forget(self, database: str) -> None:
        """The database is gone: its series end."""
        self._families.forget(database)

    def request_running(self, route: str) -> AbstractContextManager[object]:
        """Counts a request while the block runs."""
        return self._families.requests_running.labels(route).track_inprogress()

    def request_answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One HTTP request; `route` is the route's pattern, never the path as it came."""
        self._families.requests.labels(method, route, str(status)).inc()
        self._families.request_seconds.labels(route).observe(seconds)

    def observe(self, observed: Callable[[], Iterable[Observed]]) -> None:
        """From now on each scrape reads its gauges from `observed()`."""
        self.registry.register(_ObservedCollector(observed))

    def render(self) -> bytes:
        """Everything in Prometheus's text format (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)


class DatabaseMetrics:
    """The counters of one database; safe to call from any thread."""

    def __init__(self, families: MetricFamilies, database: str) -> None:
        self._families = families
        self._database = database
        # The series exist from the start, so that a rate over the first event is right.
        for operation in ("insert", "update", "delete", "copy", "poll"):
            families.rows.labels(database, operation)
        for result in ("equal", "different", "failed"):
            families.validations.labels(database, result)
        for counter in (families.transactions, families.reconnects):
            counter.labels(database)
        for histogram in (families.batch_seconds, families.batch_rows):
            histogram.labels(database)

    def batch_applied(
        self, rows: Mapping[str, int], *, transactions: int, seconds: float, reason: str
    ) -> None:
        """A micro-batch is committed. `rows` counts by operation (insert, update, delete); `reason` is what
        closed it, see `FlushReason`."""
        families, database = self._families, self._database
        for operation, count in rows.items():
            families.rows.labels(database, operation).inc(count)
        families.transactions.labels(database).inc(transactions)
        families.batches.labels(database, reason).inc()
        families.batch_seconds.labels(database).observe(seconds)
        families.batch_rows.labels(database).observe(sum(rows.values()))

    def rows_copied(self, rows: int) -> None:
        """Rows of a table copy are written to its staging table."""
        self._families.rows.labels(self._database, "copy").inc(rows)

    def rows_polled(self, rows: int) -> None:
        """Rows that a watermark sync has read are committed to the copy."""
        self._families.rows.labels(self._database, "poll").inc(rows)

    def zero_dates_met(self, table: str, count: int) -> None:
        """Values of `table` that were zero, partial or impossible dates are NULL in the copy."""
        self._families.zero_dates.labels(self._database, table).inc(count)

    def rows_repaired(self, table: str, count: int) -> None:
        """Rows of `table` were found to differ and are the source's now."""
        self._families.repaired.labels(self._database, table).inc(count)

    def error_met(self, code: str) -> None:
        """An error of this code (see `DucklingError.code`)."""
        self._families.errors.labels(self._database, code).inc()

    def sync_ended(self, kind: str, result: str, seconds: float) -> None:
        """A run has ended: `kind` as `Run.kind`, `result` success, error or cancelled."""
        self._families.syncs.labels(self._database, kind, result).observe(seconds)

    def schema_changed(self, kind: str) -> None:
        """A statement of the binary log was carried out; `kind` as `SchemaChange.kind`."""
        self._families.schema_changes.labels(self._database, kind).inc()

    def validated(self, *, equal: int, different: int, at: float) -> None:
        """Source and copy were compared: tables that are equal, and those that differ; `at` is when."""
        families, database = self._families, self._database
        families.validations.labels(database, "different" if different else "equal").inc()
        families.validated_tables.labels(database, "equal").set(equal)
        families.validated_tables.labels(database, "different").set(different)
        families.validated_at.labels(database).set(at)

    def validation_failed(self) -> None:
        """Source and copy could not be compared."""
        self._families.validations.labels(self._database, "failed").inc()

    def reconnected(self) -> None:
        """The connection to the source is open again after a loss."""
        self._families.reconnects.labels(self._database).inc()


class _ObservedCollector(Collector):
    def __init__(self, observed: Callable[[], Iterable[Observed]]) -> None:
        self._observed = observed

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not read a status."""
        return ()

    def collect(self) -> Iterator[Metric]:
        observed = tuple(self._observed())
        yield build_info()
        for name, meaning, read in GAUGES:
            gauge = GaugeMetricFamily(name, meaning, labels=["database"])
            for each in observed:
                value = read(each)
                if value is not None:
                    gauge.add_metric([each.status.id], value)
            yield gauge
        for name, meaning, label, read_words in GAUGES_BY_WORD:
            gauge = GaugeMetricFamily(name, meaning, labels=["database", label])
            for each in observed:
                for word, value in read_words(each).items():
                    gauge.add_metric([each.status.id, word], value)
            yield gauge
