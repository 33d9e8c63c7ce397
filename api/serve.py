"""`duckling serve`: puts the service together, from the settings to the port."""

from __future__ import annotations

import structlog

from api.app import STOP_SECONDS, create_app
from api.server import Server, bind
from cdc.config import Settings
from cdc.metrics import Metrics
from cdc.pipeline import Pipeline
from cdc.registry import DEFAULT, Registry

log = structlog.get_logger(__name__)


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then drains and returns, within 10 s.

    Everything that can be wrong is found before the port answers: raises DucklingError for a missing key,
    a port in use, an unusable or locked DuckDB file, and a source that can't be reached or replicated.
    """
    settings.check_serving()
    metrics = Metrics()
    with bind(settings.host, settings.port) as listener:
        registry = Registry([Pipeline(DEFAULT, settings, metrics.for_database(DEFAULT))])
        try:
            for pipeline in registry:
                pipeline.check_start()
            Server(create_app(registry, settings, metrics)).run_on(listener)
        finally:
            registry.stop(STOP_SECONDS)
    log.info("service.stopped")
