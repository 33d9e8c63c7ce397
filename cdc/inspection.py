"""A look at a source, with nothing changed anywhere: the server, its tables, and what preflight finds."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from cdc.config import Settings
from cdc.schema import Table
from cdc.source.catalog import load_tables
from cdc.source.connection import SourceEndpoint
from cdc.source.preflight import Finding, run_preflight
from cdc.source.server import ServerFacts, server_facts


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a source is like."""

    server: ServerFacts
    tables: tuple[Table, ...]
    findings: tuple[Finding, ...]

    @property
    def replicable(self) -> bool:
        """Whether nothing forbids to replicate it, or some of its tables."""
        return not any(each.severity == "error" and each.table is None for each in self.findings)

    @property
    def version(self) -> str:
        """The server's version, `8.4.3`."""
        return ".".join(map(str, self.server.version))


def inspect_source(settings: Settings) -> Inspection:
    """Connects and runs every preflight check. Raises ConfigError, SourceError."""
    endpoint = SourceEndpoint(settings)
    with closing(endpoint.connect(purpose="preflight")) as connection:
        facts = server_facts(connection)
        tables = load_tables(
            connection,
            endpoint.database,
            included=settings.included_tables,
            excluded=settings.excluded_tables,
        )
        findings = run_preflight(connection, facts, tables, endpoint.database)
        return Inspection(facts, tuple(tables), tuple(findings))
