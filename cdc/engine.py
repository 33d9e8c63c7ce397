"""What the parts of one database's pipeline share."""

from __future__ import annotations

import zlib
from contextlib import closing
from dataclasses import dataclass, field, replace

import pymysql

from cdc.config import Settings
from cdc.errors import PreflightError
from cdc.lag import Lag
from cdc.metrics import DatabaseMetrics
from cdc.position import Position
from cdc.replica import state
from cdc.replica.database import ReplicaDatabase
from cdc.replica.row_counts import RowCounts
from cdc.replica.writer import Writer
from cdc.schema import NameCase, Table
from cdc.selection import key_indexed
from cdc.source.catalog import load_tables
from cdc.source.connection import SourceEndpoint
from cdc.source.log_findings import concerns_log
from cdc.source.preflight import Finding, require, run_preflight, table_errors
from cdc.source.server import ServerFacts, server_facts
from cdc.source.transaction import WholeTransactions
from cdc.types import TypeChoices


@dataclass(slots=True)
class Engine:
    """One source, one DuckDB file, its writer."""

    id: str
    settings: Settings
    endpoint: SourceEndpoint
    replica: ReplicaDatabase
    writer: Writer
    metrics: DatabaseMetrics
    names: NameCase = field(default_factory=NameCase)
    """Known once the source was looked at."""
    lag: Lag = field(default_factory=Lag)

    whole: WholeTransactions = field(default_factory=WholeTransactions)
    row_counts: RowCounts = field(default_factory=RowCounts)

    _learned: bool = False

    def ensure_learned(self) -> None:
        """Asks the source for what must be known of it, unless that was done. Raises SourceError."""
        if not self._learned:
            with closing(self.endpoint.connect(purpose="looking at the source")) as connection:
                self.learn(server_facts(connection))

    def learn(self, facts: ServerFacts) -> ServerFacts:
        """Takes over what the server says about names; returns `facts`."""
        self.names = NameCase(facts.lower_case_table_names != 0)
        self._learned = True
        return facts

    @property
    def server_id(self) -> int:
        """Our id among the source's replicas: set, or derived from the file's path, above 2^31."""
        path = str(self.settings.duckdb_path.resolve()).encode()
        return self.settings.server_id or 0x8000_0000 | zlib.crc32(path) >> 1

    def position(self) -> Position | None:
        """The boundary that is committed; None before the first copy."""
        return self.replica.read(lambda cursor: state.load_position(cursor, self.id))

    def catalogue(self) -> list[Table]:
        """The source's tables, as the settings choose them."""
        with closing(self.endpoint.connect(purpose="catalogue")) as connection:
            return self._load_tables(connection)

    def _load_tables(self, connection: pymysql.Connection) -> list[Table]:
        choices = TypeChoices.of(self.settings)
        found = load_tables(
            connection,
            self.endpoint.database,
            included=self.settings.included_tables,
            excluded=self.settings.excluded_tables,
        )
        return [
            replace(choices.applied_to(table), key_index=key_indexed(self.settings, table.name))
            for table in found
        ]

    def inspect(self) -> tuple[ServerFacts, list[Table], list[Finding]]:
        """The server's facts, its tables and what preflight finds. Raises SourceError."""
        with closing(self.endpoint.connect(purpose="preflight")) as connection:
            facts = self.learn(server_facts(connection))
            tables = self._load_tables(connection)
            return facts, tables, run_preflight(connection, facts, tables, self.endpoint.database)

    def fit_tables(
        self, *, logged: bool = True
    ) -> tuple[ServerFacts, list[Table], dict[str, PreflightError]]:
        """Facts, the tables that can be replicated, and an error for each that can't.

        Without `logged`, obstacles between us and the binary log don't count. Raises PreflightError where the
        server as a whole can't be replicated.
        """
        facts, tables, findings = self.inspect()
        if not logged:
            findings = [finding for finding in findings if not concerns_log(finding)]
        require(findings)
        unfit = {
            name: PreflightError(finding.message, hint=finding.fix, table=name, code=finding.code)
            for name, finding in table_errors(findings).items()
        }
        return facts, [table for table in tables if table.name not in unfit], unfit
