"""A server program of either flavor: where it is, how it is called, and its empty data folder."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cdc.errors import ConfigError
from cdc.sandbox.cache import cache_folder, made_once, say
from cdc.sandbox.packages import library_path, loader, unpacked


class Flavor(StrEnum):
    """Which of the two servers."""

    MYSQL = "mysql"
    MARIADB = "mariadb"


_PACKAGES = {
    # The first suite with MySQL 9; and the one whose MariaDB is 10.11.
    Flavor.MYSQL: ("sid", "mysql-server-core", "mysql-client-core"),
    Flavor.MARIADB: ("bookworm", "mariadb-server-core", "mariadb-client-core"),
}
_PROGRAM = {Flavor.MYSQL: "mysqld", Flavor.MARIADB: "mariadbd"}
_VARIABLE = {Flavor.MYSQL: "DUCKLING_MYSQLD", Flavor.MARIADB: "DUCKLING_MARIADBD"}

_LOG_FILE_OPTION = {
    Flavor.MYSQL: "--innodb-redo-log-capacity=32M",
    Flavor.MARIADB: "--innodb-log-file-size=32M",
}
"""Smaller than the default of 100 MB, so that a data folder is copied quickly."""

_MARIADB_SCRIPTS = (
    # The order in which mariadb-install-db(1) feeds them to the server; the help texts are left out.
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mysql_sys_schema.sql",
)


@dataclass(frozen=True, slots=True)
class Installation:
    """A server program. `command` is what to run, up to the options that belong to one server;
    `share` is the folder with its SQL scripts and messages.
    """

    flavor: Flavor
    version: str
    command: tuple[str, ...]
    share: Path

    def template(self) -> Path:
        """A data folder as just initialised, with an empty root password, in the cache; only to be copied."""
        spec = repr((self.command, self.version, _LOG_FILE_OPTION, _MARIADB_SCRIPTS, getpass.getuser()))
        digest = hashlib.sha256(spec.encode()).hexdigest()[:12]
        target = cache_folder() / "templates" / f"{self.flavor}-{self.version}-{digest}"
        return made_once(target, self._initialise)

    def _initialise(self, folder: Path) -> None:
        say(f"initialising a data folder of {self.flavor} {self.version} (once)")
        data = folder / "data"
        command = [*self.command, f"--datadir={data}", _LOG_FILE_OPTION[self.flavor]]
        if self.flavor is Flavor.MYSQL:
            command += ["--initialize-insecure", "--innodb-flush-log-at-trx-commit=2"]
            script = None
        else:
            # Statements as mariadb-install-db feeds them with --auth-root-authentication-method=normal.
            data.mkdir()
            command += ["--bootstrap", "--log-warnings=0", "--enforce-storage-engine=", "--log-bin=0"]
            command += ["--max-allowed-packet=8M", "--net-buffer-length=16K"]
            files = b"\n".join((self.share / name).read_bytes() for name in _MARIADB_SCRIPTS)
            opening = b"create database if not exists mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n"
            script = opening + files
        done = subprocess.run(command, input=script, capture_output=True, check=False)
        if done.returncode != 0:
            raise ConfigError(
                f"{self.flavor} {self.version} could not initialise a data folder"
                f"{last_error(done.stderr.decode(errors='replace'))}",
                hint="check the free space of the cache folder, and run the server program by hand",
            )
        # Each server makes its own identity (server_uuid) at its first start.
        (data / "auto.cnf").unlink(missing_ok=True)


def provision(flavor: Flavor | str, *, use_path: bool = False) -> Installation:
    """A server program of `flavor`, MySQL 9.7 or MariaDB 10.11 unless the machine's own is asked for.

    DUCKLING_MYSQLD or DUCKLING_MARIADBD in the environment names a program to use instead; `use_path` takes
    the one on PATH. Otherwise Debian's packages are unpacked into the cache folder at the first use.
    Raises ConfigError where there is no such program or no way to get one.
    """
    flavor = Flavor(flavor)
    name, variable = _PROGRAM[flavor], _VARIABLE[flavor]
    given = os.environ.get(variable)
    if given or use_path:
        found = shutil.which(given or name, path=None if given else f"{os.environ['PATH']}:/usr/sbin")
        if found is None:
            raise ConfigError(
                f"there is no program {given or name}" + (f" ({variable})" if given else " on PATH"),
                hint=f"set {variable} to a server program, or unset it to have one fetched",
            )
        program = Path(found).resolve()
        return _installation(flavor, (str(program),), program.parent.parent)
    root = unpacked(*_PACKAGES[flavor])
    start = (str(loader(root)), "--library-path", library_path(root), str(root / "usr/sbin" / name))
    return _installation(flavor, start, root / "usr")


def last_error(log: str) -> str:
    """`: ` and the last line of a server's log that tells an error, without its time; else an empty text."""
    lines = [line for line in log.splitlines() if "ERROR" in line and not line.endswith("Aborting")]
    return ": " + re.sub(r"^.*?\[?ERROR\]?\s*", "", lines[-1]).strip() if lines else ""


def _installation(flavor: Flavor, start: tuple[str, ...], base: Path) -> Installation:
    try:
        told = subprocess.run(
            [*start, "--no-defaults", "--version"], capture_output=True, text=True, check=False
        ).stdout
    except OSError as error:
        raise ConfigError(f"{start[-1]} does not run: {error.strerror}", hint=_check(flavor)) from error
    match = re.search(r"Ver (\d+\.\d+\.\d+)", told)
    if match is None:
        raise ConfigError(f"{start[-1]} does not tell its version", hint=_check(flavor))
    if ("MariaDB" in told) != (flavor is Flavor.MARIADB):
        raise ConfigError(f"{start[-1]} is not {flavor}", hint=_check(flavor))
    share = base / "share/mysql" if (base / "share/mysql").is_dir() else base / "share"
    options = [
        "--no-defaults",
        f"--basedir={base}",
        f"--lc-messages-dir={share}",
        f"--character-sets-dir={share / 'charsets'}",
    ]
    plugins = [base / "lib/mysql/plugin", base / "lib/plugin", base / "lib64/mysql/plugin"]
    options += [f"--plugin-dir={folder}" for folder in plugins if folder.is_dir()][:1]
    if os.geteuid() == 0:
        options.append("--user=root")
    return Installation(flavor, match[1], (*start, *options), share)


def _check(flavor: Flavor) -> str:
    return f"check {_VARIABLE[flavor]}, or unset it to have the program fetched"
