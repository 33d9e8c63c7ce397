"""`duckling serve`: puts the service together, from the settings to the port."""

from __future__ import annotations

import pyarrow as pa
import structlog

from api.app import STOP_SECONDS, create_app
from api.server import Server, bind
from cdc.config import Settings
from cdc.databases import DatabaseDefinition, DatabasesFile
from cdc.metrics import Metrics
from cdc.pipeline import Pipeline
from cdc.registry import DEFAULT, Registry

log = structlog.get_logger(__name__)


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then drains and returns, within 10 s.

    Everything that can be wrong is found before the port answers: raises DucklingError for a missing key,
    a port in use, an unusable or locked DuckDB file, and a source that can't be reached or replicated. Where
    there are databases that were added over HTTP, one that fails keeps neither the others nor the service.
    """
    # Arrow's own pool keeps what batches give back: 20 MB at no gain in speed.
    pa.set_memory_pool(pa.system_memory_pool())
    file = DatabasesFile(settings.databases_path)
    stored = file.load()
    settings.check_serving(other_databases=bool(stored))
    metrics = Metrics()

    def build(definition: DatabaseDefinition) -> Pipeline:
        fixed = set_here and definition.id == DEFAULT
        own = settings if fixed else definition.settings(settings)
        return Pipeline(definition.id, own, metrics.for_database(definition.id))

    set_here = bool(settings.mysql_connection_string.get_secret_value())
    with bind(settings.host, settings.port) as listener:
        given = [Pipeline(DEFAULT, settings, metrics.for_database(DEFAULT))] if set_here else []
        registry = Registry(
            given, build=build, file=file, folder=settings.duckdb_path.parent, removed=metrics.forget
        )
        registry.load()
        try:
            if given and not stored:
                # With one database alone, what forbids its start is for whoever starts the service to see.
                given[0].check_start()
            Server(create_app(registry, settings, metrics)).run_on(listener)
        finally:
            registry.stop(STOP_SECONDS)
    log.info("service.stopped")
