"""uvicorn on a socket of ours: signals, and a drain in which pipelines and requests end together."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

import anyio.to_thread
import structlog
import uvicorn
from starlette.applications import Starlette

from api.app import STOP_SECONDS
from api.requests import Service
from cdc.errors import ConfigError

log = structlog.get_logger(__name__)

READERS_SECONDS = 2.0
"""What interrupted queries have to end; it is a part of STOP_SECONDS."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port` (0: any free one), not listening yet. Raises ConfigError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise ConfigError(
            "HOST is not an address of this machine", hint="for example HOST=127.0.0.1"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _unusable(error, host, port) from None
    return listener


def _unusable(error: OSError, host: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port {port} on {host} is in use", hint="stop the other process, or set PORT", code="PORT_IN_USE"
        )
    if error.errno == errno.EACCES:
        return ConfigError(f"this account may not listen on port {port}", hint="set PORT above 1023")
    return _no_such_address()


def _no_such_address() -> ConfigError:
    return ConfigError("HOST is not an address of this machine", hint="for example HOST=127.0.0.1")


class Server(uvicorn.Server):
    """uvicorn's server, with our drain: pipelines stop while the last answers go out.

    A sync that a client waits for ends by the pipeline's stop; were the requests drained first, as uvicorn
    does, it would hold the exit up. And a drained service has done what the signal asked: the signal is not
    raised again, so the exit status is 0.
    """

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="on",
                ws="none",
                timeout_graceful_shutdown=round(STOP_SECONDS),
            )
        )
        self._service: Service = app.state.service
        self.ready = threading.Event()
        """Set when the port answers."""

    def run_on(self, listener: socket.socket) -> None:
        """Serves on a bound socket until told to stop. Raises ConfigError where it can't listen."""
        address = listener.getsockname()
        try:
            listener.listen(self.config.backlog)
        except OSError as error:
            raise _unusable(error, address[0], address[1]) from None
        log.info("service.listening", host=address[0], port=address[1], pid=os.getpid())
        self.run(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the pipelines (the application's lifespan) and accepts."""
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains pipelines and requests at the same time."""
        log.info("service.stopping")
        draining = asyncio.ensure_future(anyio.to_thread.run_sync(self._drain))
        await super().shutdown(sockets)
        await draining

    def _drain(self) -> None:
        """Queries first: DuckDB does not close a file while one runs."""
        if not self._service.readers.stop(READERS_SECONDS):
            log.warning("service.queries_left", seconds=READERS_SECONDS)
        self._service.registry.stop(STOP_SECONDS - READERS_SECONDS)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handles the signals while serving, in the main thread only; see the class for what differs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
