"""Throw-away MySQL and MariaDB servers on 127.0.0.1: each a process with a private data folder.

A server dies with the process that started it, however that one ends (see launcher.py); its folder is then
removed when the next one is made.
"""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cdc.errors import ConfigError, SourceUnavailableError
from cdc.sandbox.cache import cache_folder
from cdc.sandbox.folders import PrivateFolder, lock
from cdc.sandbox.installation import Flavor, Installation, last_error, provision
from cdc.sandbox.launcher import launch

START_SECONDS = 60.0
STOP_SECONDS = 60.0

_PORTS = range(20_000, 32_000)
"""Below the range from which Linux takes the ports of outgoing connections (ip(7), ip_local_port_range)."""

_OPTIONS = (
    "--server-id=1",
    "--log-bin=binlog",
    "--binlog-format=ROW",
    "--binlog-row-image=FULL",
    "--binlog-row-metadata=FULL",
    "--bind-address=127.0.0.1",
    "--max-connections=200",
    "--table-open-cache=400",
    "--innodb-buffer-pool-size=128M",
    "--innodb-flush-log-at-trx-commit=2",
    "--sync-binlog=0",
    "--secure-file-priv=",
)
_FLAVOR_OPTIONS = {
    Flavor.MYSQL: (
        "--gtid-mode=ON",
        "--enforce-gtid-consistency=ON",
        "--mysqlx=OFF",
        "--innodb-redo-log-capacity=32M",
    ),
    Flavor.MARIADB: ("--gtid-strict-mode=ON", "--innodb-log-file-size=32M"),
}


class Server:
    """One server. `start` it, `stop` or `kill` it, start it again on the same data and port; `close` ends it.

    `options` are further options of the server program (`--name=value`), later ones win.
    """

    def __init__(self, installation: Installation, *options: str) -> None:
        self.installation = installation
        self.flavor = installation.flavor
        self.version = installation.version
        self.options = options
        self._private = PrivateFolder(self.flavor)
        self.folder = self._private.path
        self.data = self.folder / "data"
        self._temporary = self.folder / "tmp"
        self._temporary.mkdir()
        self.port, self._port_lock = reserve_port()
        self._process: subprocess.Popen[bytes] | None = None
        shutil.copytree(installation.template() / "data", self.data, copy_function=shutil.copyfile)

    def url(self, database: str = "") -> str:
        """The connection string of root, whose password is empty."""
        return f"mysql://root@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The server's process. Raises SourceUnavailableError where it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise SourceUnavailableError(f"the {self.flavor} server does not run", hint="start it first")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def error_log(self) -> Path:
        """The server's own log."""
        return self.folder / "error.log"

    def start(self) -> Server:
        """Starts the process and returns when it answers with a handshake; nothing if it runs already.

        Raises SourceUnavailableError where it ends or does not answer within START_SECONDS.
        """
        if self.alive:
            return self
        command = [
            *self.installation.command,
            f"--datadir={self.data}",
            # MariaDB removes temporary tables from it when it starts, those of other servers among them.
            f"--tmpdir={self._temporary}",
            # Relative to the data folder: a socket's path may have 107 bytes at most (unix(7)).
            "--socket=server.sock",
            f"--pid-file={self.folder / 'pid'}",
            f"--log-error={self.error_log}",
            f"--port={self.port}",
            *_OPTIONS,
            *_FLAVOR_OPTIONS[self.flavor],
            *self.options,
        ]
        self._process = launch(command)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                cause = "ended" if self._process.poll() is not None else "does not answer"
                self.kill()
                log = self.error_log.read_text(errors="replace") if self.error_log.exists() else ""
                raise SourceUnavailableError(
                    f"the {self.flavor} {self.version} server {cause} at its start{last_error(log)}",
                    hint="check the options it was given and the free memory and disk space",
                )
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Asks the server to end (SIGTERM) and waits for it; after STOP_SECONDS it is killed."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL, as a crash: the server recovers at its next start."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends the server for good: kills it and removes its data."""
        self.kill()
        self._port_lock.close()
        self._private.close()

    def __enter__(self) -> Server:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answers(self) -> bool:
        """Whether the port answers with the greeting of protocol version 10."""
        try:
            with (
                socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection,
                connection.makefile("rb") as stream,
            ):
                greeting = stream.read(5)
        except OSError:
            return False
        return len(greeting) == 5 and greeting[4] == 10


@contextmanager
def running(flavor: Flavor | str, *options: str, use_path: bool = False) -> Iterator[Server]:
    """A started server of `flavor`; it and its data are gone afterwards. Errors as provision and start."""
    with Server(provision(flavor, use_path=use_path), *options) as server:
        yield server


def reserve_port() -> tuple[int, IO[Any]]:
    """A free port, and the lock that keeps it ours among our processes while the server is down."""
    folder = cache_folder() / "ports"
    folder.mkdir(exist_ok=True)
    for port in random.sample(_PORTS, 200):
        try:
            held = lock(folder / str(port))
        except BlockingIOError:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                held.close()
                continue
        return port, held
    raise ConfigError("no free port between 20000 and 32000", hint="end some of the servers on this machine")
