"""The databases that were added over HTTP: what each one is, and the file that keeps them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from cdc.config import Settings
from cdc.errors import ConfigError, NotPossibleError
from cdc.logs import MASK
from cdc.source.url import SourceUrl

log = structlog.get_logger(__name__)

FORMAT = 1
"""The version of the file; a later one is refused."""

DatabaseId = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$",
        description="What `?db=` selects: letters, digits, `-` and `_`, 63 characters at most.",
    ),
]
TableName = Annotated[str, Field(min_length=1, max_length=64)]


class DatabaseDefinition(BaseModel):
    """One database: where it is, where its copy is, and what of it is replicated."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="forbid", frozen=True
    )

    id: DatabaseId
    name: str = Field(default="", max_length=200, description="A name for people.")
    mysql_connection_string: SecretStr = Field(
        max_length=4096, description="`mysql://user:password@host:3306/database?ssl-mode=…`."
    )
    duckdb_path: str = Field(
        default="",
        max_length=1024,
        description="The DuckDB file, in the folder of DUCKDB_PATH or below; `ID.db` there unless given.",
    )
    included_tables: tuple[TableName, ...] = Field(
        default=(), description="Only these tables; all where empty."
    )
    excluded_tables: tuple[TableName, ...] = Field(default=(), description="Not these tables.")
    unindexed_tables: tuple[TableName, ...] | None = Field(
        default=None,
        description="Tables to do without DuckDB's index of the key, `*` and `?` as in a shell;"
        " those of UNINDEXED_TABLES where null.",
    )
    cdc_enabled: bool = Field(default=True, description="Whether the binary log is followed.")
    sync_interval_minutes: int = Field(
        default=15, ge=1, le=525_600, description="Minutes between watermark syncs, without the log."
    )

    @model_validator(mode="after")
    def _tables_not_both(self) -> DatabaseDefinition:
        if set(self.included_tables) & set(self.excluded_tables):
            raise ValueError("includedTables and excludedTables name the same table")
        return self

    @property
    def url(self) -> str:
        """The connection string, password included."""
        return self.mysql_connection_string.get_secret_value()

    @property
    def masked_url(self) -> str:
        """The connection string as answers show it: three stars for the password."""
        parts = urlsplit(self.url.strip())
        login, at, address = parts.netloc.rpartition("@")
        user, colon, _ = login.partition(":")
        return parts._replace(netloc=f"{user}:{MASK}{at}{address}" if colon else parts.netloc).geturl()

    def dump(self) -> dict[str, Any]:
        """The fields as the file keeps them, password included."""
        fields = self.model_dump(by_alias=True)
        return {**fields, "mysqlConnectionString": self.url}

    def checked(self, folder: Path) -> DatabaseDefinition:
        """This definition with its file's path made absolute, once its address and path are found good.

        `folder` is the one that all files must be in, so that no call of the API can make, or delete, files
        elsewhere. Raises NotPossibleError (CONNECTION_STRING, PASSWORD_NEEDED, DUCKDB_PATH).
        """
        try:
            parsed = SourceUrl.parse(self.url)
        except ConfigError as error:
            raise NotPossibleError(
                error.message.replace("MYSQL_CONNECTION_STRING", "mysqlConnectionString"),
                hint=error.hint,
                code="CONNECTION_STRING",
            ) from None
        if parsed.password == MASK:
            raise NotPossibleError(
                "mysqlConnectionString holds a masked password",
                hint="give the password; it is kept only while user, host and port stay the same",
                code="PASSWORD_NEEDED",
            )
        path = self._path(folder.resolve())
        return self.model_copy(update={"duckdb_path": str(path)})

    def _path(self, folder: Path) -> Path:
        hint = "give a path in the folder of DUCKDB_PATH, for example ID.db there, or none"
        try:
            path = Path(self.duckdb_path).resolve() if self.duckdb_path else folder / f"{self.id}.db"
            is_folder = path.is_dir()
        except (ValueError, OSError, RuntimeError):
            raise NotPossibleError("duckdbPath is no path", hint=hint, code="DUCKDB_PATH") from None
        if folder not in path.parents:
            raise NotPossibleError(
                "duckdbPath is not in the folder of the service's data", hint=hint, code="DUCKDB_PATH"
            )
        # DuckDB takes what follows a question mark for options, and loses the write-ahead log of such a file.
        if path.suffix in {".wal", ".tmp", ".json"} or is_folder or "?" in str(path):
            raise NotPossibleError("duckdbPath can't be a DuckDB file", hint=hint, code="DUCKDB_PATH")
        return path

    def with_password_of(self, known: DatabaseDefinition) -> DatabaseDefinition:
        """This definition with the password of `known` where its own is masked.

        Only for the same account on the same server: a password must not be sent to another one.
        """
        try:
            mine, old = SourceUrl.parse(self.url), SourceUrl.parse(known.url)
        except ConfigError:
            return self
        same = (mine.user, mine.host, mine.port) == (old.user, old.host, old.port)
        if mine.password != MASK or not same:
            return self
        parts = urlsplit(self.url.strip())
        login, _, address = parts.netloc.rpartition("@")
        secret = urlsplit(known.url.strip()).netloc.rpartition("@")[0].partition(":")[2]
        netloc = f"{login.partition(':')[0]}:{secret}@{address}"
        return self.model_copy(
            update={"mysql_connection_string": SecretStr(parts._replace(netloc=netloc).geturl())}
        )

    def settings(self, service: Settings) -> Settings:
        """The service's settings, for this database."""
        return service.model_copy(
            update={
                "mysql_connection_string": self.mysql_connection_string,
                "mysql_password_file": None,
                "duckdb_path": Path(self.duckdb_path),
                "included_tables": self.included_tables,
                "excluded_tables": self.excluded_tables,
                "unindexed_tables": service.unindexed_tables
                if self.unindexed_tables is None
                else self.unindexed_tables,
                "cdc_enabled": self.cdc_enabled,
                "sync_interval_minutes": self.sync_interval_minutes,
                "server_id": 0,  # from the file's path: two readers of one source must not share an id
            }
        )

    @classmethod
    def of_settings(cls, database_id: str, settings: Settings) -> DatabaseDefinition:
        """The database that the settings describe."""
        return cls.model_construct(
            id=database_id,
            name="",
            mysql_connection_string=settings.mysql_connection_string,
            duckdb_path=str(settings.duckdb_path.resolve()),
            included_tables=settings.included_tables,
            excluded_tables=settings.excluded_tables,
            unindexed_tables=settings.unindexed_tables,
            cdc_enabled=settings.cdc_enabled,
            sync_interval_minutes=settings.sync_interval_minutes,
        )


class DatabasesFile:
    """Keeps definitions. A crash leaves the old contents or the new, and only the owner may read them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[DatabaseDefinition, ...]:
        """What the file holds; nothing where there is none. Raises ConfigError."""
        try:
            content = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return ()  # what can't be a folder is told by who has to write there
        except OSError as error:
            raise self._unusable(f"can't be read: {error.strerror}") from None
        self._close_to_others()
        try:
            kept = orjson.loads(content)
            if not isinstance(kept, dict) or kept.get("format") != FORMAT:
                raise self._unusable("is not of this version")
            found = tuple(DatabaseDefinition.model_validate(each) for each in kept["databases"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise self._unusable("is not a list of databases") from None
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
            place = ".".join(str(part) for part in problem["loc"]) or "entry"
            raise self._unusable(f"holds a wrong database ({place}: {problem['msg']})") from None
        if len({each.id.casefold() for each in found}) < len(found):
            raise self._unusable("holds two databases of one id")
        return found

    def save(self, definitions: Iterable[DatabaseDefinition]) -> None:
        """Replaces the contents, durably, before it returns. Raises ConfigError; the old contents then stay."""
        kept = {"format": FORMAT, "databases": [each.dump() for each in definitions]}
        content = orjson.dumps(kept, option=orjson.OPT_INDENT_2) + b"\n"
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(self.path)
            except OSError:
                with suppress(OSError):  # the error before it is the one to tell
                    temporary.unlink()
                raise
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unusable(f"can't be written: {error.strerror}") from error

    def _close_to_others(self) -> None:
        """The file holds passwords; one that others may read is closed to them, and that is told."""
        if self.path.stat().st_mode & 0o077:
            log.warning("databases.file_open", path=str(self.path), fix="mode set to 0600")
            self.path.chmod(0o600)

    def _unusable(self, why: str) -> ConfigError:
        return ConfigError(
            f"the file of databases {self.path.name} {why}",
            hint=f"mend or move {self.path}, or name another one in DATABASES_FILE",
            code="DATABASES_FILE",
        )
