"""Settings: from duckling.toml, then the environment, then options of the command line; the later wins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cdc.errors import ConfigError

MIN_KEY_LENGTH = 16
AUTO = "auto"
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}

Names = Annotated[tuple[str, ...], NoDecode]


def byte_size(text: str) -> int:
    """Bytes of a size as DuckDB reads it: "512MB" are 512,000,000, "512MiB" 536,870,912. Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"{text!r} is no size: write it as 512MB or 2GiB, or auto")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])


class Settings(BaseSettings):
    """All settings of one service. A field `mysql_connection_string` is `MYSQL_CONNECTION_STRING` in the
    environment and `mysql_connection_string` in duckling.toml. Durations are seconds, sizes bytes.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True, toml_file="duckling.toml")

    mysql_connection_string: SecretStr = SecretStr("")
    """`mysql://user:password@host:3306/database?ssl-mode=…`."""
    mysql_password_file: Path | None = None
    """Read at every connect, so that a password can be rotated; wins over the URL's."""
    duckdb_path: Path = Path("data/duckling.db")
    duckdb_memory_limit: str = AUTO
    """DuckDB's own memory_limit. `auto` follows the need, up to half of the machine's memory: see
    `cdc.replica.memory`. A size ("2GB") is exceeded only while a write-ahead log is replayed."""
    duckdb_threads: int = Field(default=0, ge=0)
    """DuckDB's threads; 0 leaves its default, one a core."""

    duckling_api_key: SecretStr = SecretStr("")
    """One key, or several separated by commas (rotation)."""
    host: str = "127.0.0.1"
    port: int = Field(default=3001, ge=0, le=65535)
    insecure: bool = False
    """Serve without a key, on loopback only."""
    metrics_public: bool = False

    cdc_enabled: bool = True
    auto_start_sync: bool = True
    """Copy an empty replica and start the stream when the service starts."""
    sync_interval_minutes: int = Field(default=15, ge=1)
    watermark_overlap_seconds: float = Field(default=300.0, ge=0)
    """The longest time from a row's timestamp to its being visible at the source: of a transaction that stays
    open, of clocks that differ, of a replica's lag. A watermark sync reads that far back again."""
    included_tables: Names = ()
    excluded_tables: Names = ()
    unindexed_tables: Names = ()
    """Tables that do without DuckDB's index of the primary key, as they are copied from now on."""

    tinyint1: Literal["integer", "boolean"] = "integer"
    """What a TINYINT(1) becomes. As a BOOLEAN every value but 0 is true."""
    enum: Literal["varchar", "enum"] = "varchar"
    """What an ENUM becomes: its members' text, or DuckDB's own ENUM of them."""
    zero_dates: Literal["null", "error"] = "null"
    """What a date that the calendar lacks becomes; `error` sets its table aside."""

    batch_size: int = Field(default=50_000, ge=1)
    """Rows in one micro-batch at most; more over very large tables, see `cdc.replica.batch_growth`. A transaction that
    exceeds it by a quarter is applied in parts."""
    batch_bytes: int = Field(default=32 << 20, ge=1 << 16)
    """Bytes of row images in one micro-batch at most."""
    batch_age: float = Field(default=0.25, gt=0)
    """Seconds after which a batch is handed on although more changes keep coming."""
    copy_batch_rows: int = Field(default=122_880, ge=1)
    """Rows that a copy writes at a time; see `cdc.replica.row_groups`. A third of them is read at a time."""
    position_interval: float = Field(default=5.0, gt=0)
    """Seconds between saved positions while no row of ours changes."""
    checkpoint_wal_bytes: int = Field(default=256 << 20, ge=1 << 20)
    """The write-ahead log's size at which the writer checkpoints."""
    checkpoint_idle: float = Field(default=10.0, gt=0)
    """Seconds without work after which the writer checkpoints."""

    server_id: int = Field(default=0, ge=0, le=0xFFFFFFFF)
    """Our id as a replica, unique among the source's replicas; 0 derives one from the file's path. A copy reads under
    `server_id ^ 1` beside the stream."""
    connect_timeout: float = Field(default=10.0, gt=0)
    heartbeat_seconds: float = Field(default=5.0, ge=0.1)
    """The source sends a heartbeat after this much silence; three missed ones end the connection."""
    retry_max_seconds: float = Field(default=30.0, gt=0)
    """The longest pause between two attempts to reconnect."""
    lock_wait_seconds: int = Field(default=10, ge=1)
    """How long a copy waits for the short read lock on tables without a key."""
    max_lag_seconds: float = Field(default=60.0, gt=0)
    """`/readyz` fails beyond this lag."""
    liveness_seconds: float = Field(default=300.0, gt=0)
    """`/livez` fails where the writer is at one piece of work for longer."""

    databases_file: Path | None = None
    """Keeps the databases that were added over HTTP; None: `databases.json` beside the DuckDB file."""

    query_timeout_ms: int = Field(default=30_000, ge=1)
    query_max_rows: int = Field(default=10_000, ge=1)
    query_max_bytes: int = Field(default=64 << 20, ge=1 << 10)
    """Bytes of values in a JSON answer at most; a larger one is refused."""
    export_max_rows: int = Field(default=10_000_000, ge=1)
    """Rows of an answer as CSV, Arrow or Parquet at most."""
    export_max_bytes: int = Field(default=1 << 30, ge=1 << 10)
    """Bytes of such an answer at most; a larger one is refused."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "text", "json"] = "auto"
    """`auto`: text on a terminal, JSON elsewhere."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options, then the environment, then duckling.toml."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @field_validator("included_tables", "excluded_tables", "unindexed_tables", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("duckdb_memory_limit")
    @classmethod
    def _is_size(cls, value: str) -> str:
        if value != AUTO:
            byte_size(value)
        return value

    @field_validator("server_id")
    @classmethod
    def _has_a_neighbour(cls, value: int) -> int:
        if value == 1:
            raise ValueError("server_id can't be 1: a copy would read under 0, which is no replica's")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _tables_not_both(self) -> Settings:
        both = set(self.included_tables) & set(self.excluded_tables)
        if both:
            raise ValueError(f"included_tables and excluded_tables both name {min(both)!r}")
        return self

    @property
    def api_keys(self) -> tuple[bytes, ...]:
        """The keys that clients may use, as bytes."""
        keys = self.duckling_api_key.get_secret_value().split(",")
        return tuple(key.strip().encode() for key in keys if key.strip())

    @property
    def piece_rows(self) -> int:
        """Rows of a table that are read at a time: few enough to stay in the processor's caches while they are cut."""
        return -(-self.copy_batch_rows // 3)

    @property
    def on_loopback(self) -> bool:
        """Whether the service can be reached from this machine only."""
        return self.host in _LOOPBACK

    @property
    def databases_path(self) -> Path:
        """The file that keeps the databases that were added over HTTP."""
        return self.databases_file or self.duckdb_path.parent / "databases.json"

    def check_serving(self, *, other_databases: bool = False) -> None:
        """Raises ConfigError where serving with these settings would be open or impossible.

        With `other_databases` there are some that were added over HTTP, so that none need be set.
        """
        if not other_databases and not self.mysql_connection_string.get_secret_value():
            raise ConfigError(
                "MYSQL_CONNECTION_STRING is not set",
                hint="set it to mysql://user:password@host:3306/database",
            )
        keys = self.api_keys
        if any(len(key) < MIN_KEY_LENGTH for key in keys):
            raise ConfigError(
                f"DUCKLING_API_KEY holds a key shorter than {MIN_KEY_LENGTH} characters",
                hint="make one with: openssl rand -hex 24",
            )
        if not keys and not (self.insecure and self.on_loopback):
            raise ConfigError(
                "DUCKLING_API_KEY is not set",
                hint="set a key of 16 characters or more, or listen on 127.0.0.1 and give --insecure",
            )


def load_settings(config_file: Path | None = None, **options: Any) -> Settings:
    """The settings in force. `options` are those of the command line; None means not given.

    Raises ConfigError, naming the setting and what is wrong with it, never its value.
    """
    if config_file is not None and not config_file.is_file():
        raise ConfigError(f"settings file {config_file} does not exist", hint="check --config")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=config_file or "duckling.toml")

    given = {name: value for name, value in options.items() if value is not None}
    try:
        return FromFile(**given)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        name = ".".join(str(part) for part in problem["loc"]) or "settings"
        if problem["type"] == "extra_forbidden":
            reason, hint = "unknown setting", "see docs/settings.md for every name"
        else:
            reason, hint = problem["msg"], "correct it in duckling.toml, the environment or the options"
        raise ConfigError(f"{name}: {reason}", hint=hint) from None
    except ValueError as error:
        raise ConfigError(f"duckling.toml can't be read: {error}", hint="it must be valid TOML") from None
