"""`duckling serve` as a child process, and its HTTP interface."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

import cdc
from cdc.config import Settings
from cdc.errors import DucklingError, ReplicaError
from cdc.sandbox.launcher import launch
from cdc.sandbox.servers import reserve_port

START_SECONDS = 30.0
STOP_SECONDS = 20.0

Json = dict[str, Any]


class Service:
    """One service that replicates `source_url` into `folder`/replica.db; `settings` are its other settings,
    named as in duckling.toml. `start`, `stop` or `kill`, start again; `close` ends it.
    """

    def __init__(self, source_url: str, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.duckdb_path = folder / "replica.db"
        self.log = folder / "service.log"
        self.port, self._port_lock = reserve_port()
        self._key = secrets.token_hex(24)
        self._settings: dict[str, object] = {
            "mysql_connection_string": source_url,
            "duckdb_path": self.duckdb_path,
            "duckling_api_key": self._key,
            "host": "127.0.0.1",
            "port": self.port,
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._http = self.client()

    def client(self) -> httpx.Client:
        """A client with the key, for one thread; the caller closes it."""
        headers = {"Authorization": f"Bearer {self._key}"}
        # No proxy of the environment may come between: the service is on loopback.
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=60.0, trust_env=False
        )

    @property
    def pid(self) -> int:
        """The service's process. Raises ReplicaError where it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise ReplicaError("the service does not run", hint=self._last_words())
        return self._process.pid

    def start(self) -> Service:
        """Starts it and returns when `/livez` answers. Raises ReplicaError where it ends or stays silent."""
        known = {name.upper() for name in Settings.model_fields}
        # Only our settings: those of the caller's environment are for another service.
        environment = {name: value for name, value in os.environ.items() if name.upper() not in known}
        environment |= {name.upper(): str(value) for name, value in self._settings.items()}
        packages = str(Path(cdc.__file__).parent.parent)
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{packages}{os.pathsep}{inherited}" if inherited else packages
        command = [sys.executable, "-m", "cdc.cli", "serve"]
        with self.log.open("ab") as output:
            # In its folder, where no duckling.toml is.
            self._process = launch(command, env=environment, cwd=self.folder, output=output)
        deadline = time.monotonic() + START_SECONDS
        while not self._lives():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ReplicaError("`duckling serve` did not start", hint=self._last_words())
            time.sleep(0.02)
        return self

    def stop(self) -> int:
        """SIGTERM, and the exit status; the process is killed after STOP_SECONDS (status -9)."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._process = None
        return status

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """Ends it for good; its folder is the caller's."""
        self.kill()
        self._http.close()
        self._port_lock.close()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str) -> Json:
        """The answer to a GET. Raises ReplicaError where it is a problem or there is none."""
        return self._ask(self._http, "GET", path)

    def post(self, path: str, body: Json | None = None) -> Json:
        """The answer to a POST. Errors as `get`."""
        return self._ask(self._http, "POST", path, body)

    def query(self, sql: str, *, client: httpx.Client | None = None) -> list[Json]:
        """The rows of a read-only query, 10,000 at most; a thread of its own gives its own client."""
        answer = self._ask(client or self._http, "POST", "/query", {"sql": sql})
        return list(answer["result"])

    def _ask(self, client: httpx.Client, method: str, path: str, body: Json | None = None) -> Json:
        try:
            response = client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise ReplicaError(
                f"{method} {path} got no answer ({type(error).__name__})", hint=self._last_words()
            ) from error
        answer: Json = response.json()
        if response.is_error:
            raise ReplicaError(
                f"{method} {path} answered {response.status_code}: {answer.get('error')}",
                hint=str(answer.get("hint") or ""),
            )
        return answer

    def _lives(self) -> bool:
        try:
            return self._http.get("/livez").is_success
        except httpx.HTTPError:
            return False

    def _last_words(self) -> str:
        """The end of the service's log: its own error and hint."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "; ".join(line.strip() for line in lines[-3:]) or "it wrote no log"


def check_healthy(tables: list[Json], stream: Json) -> None:
    """Raises DucklingError for the first table, or the stream, that waits for a human.

    `tables` are those of `/sync/status`, `stream` the status of `/cdc/status`.
    """
    for table in tables:
        if table["state"] == "errored":
            raise DucklingError(
                f"table {table['table']} stopped: {table['error']}", hint=table.get("hint") or ""
            )
    if stream["state"] in {"failed", "needs_resync"}:
        raise DucklingError(
            f"the replication stopped: {stream['lastError']}", hint=str(stream.get("hint") or "")
        )
