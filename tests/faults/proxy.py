"""A TCP proxy between a replica and its source, for faults that a server does not make: silence and cuts."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

_DUMP_COMMANDS = {0x12, 0x1E}
"""COM_BINLOG_DUMP and COM_BINLOG_DUMP_GTID (MySQL source documentation, "Replication Protocol")."""
_CHUNK = 1 << 16


class Proxy:
    """Forwards connections to a server; `silence` stops every byte both ways and closes nothing, `cut` closes.

    The connections must not be encrypted, for the proxy looks for dumps: `cut_next_dump` ends the next one after
    a number of packets, or bytes, that the server sent in answer to the dump's command.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self.target = (self._parts.hostname or "", self._parts.port or 3306)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._ending = False
        self._next_cut: tuple[str, int] | None = None
        self.cuts = 0
        """Dumps that `cut_next_dump` has ended."""
        self.dumps = 0
        """Dumps that were asked for."""
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def url(self) -> str:
        """The connection string by which the source is reached through this proxy."""
        account = self._parts.netloc.rsplit("@", 1)[0]
        place = f"{account}@127.0.0.1:{self._listening.getsockname()[1]}"
        return urlunsplit(self._parts._replace(netloc=place, query="ssl-mode=disabled"))

    def silence(self) -> None:
        """From now on nothing is forwarded, and nothing is closed: a black hole."""
        self._flowing.clear()

    def resume(self) -> None:
        """New connections work again; those that were silent are lost for good."""
        self.cut()
        self._flowing.set()

    def cut(self) -> None:
        """Closes every connection."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.close()

    def cut_next_dump(self, *, packets: int = 0, size: int = 0) -> None:
        """The next dump ends after `packets` packets, or `size` bytes, of the server's."""
        self._next_cut = ("packets", packets) if packets else ("bytes", size)

    def take_cut(self) -> tuple[str, int] | None:
        """What is to befall the dump that begins."""
        self.dumps += 1
        found, self._next_cut = self._next_cut, None
        return found

    def wait_flow(self, pair: _Pair) -> bool:
        """Waits while all is silent; False once the pair is closed."""
        while not self._flowing.wait(0.05):
            if pair.closed or self._ending:
                return False
        return not pair.closed

    def close(self) -> None:
        """Ends it, and every connection through it."""
        self._ending = True
        self._listening.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(self.target, timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = _Pair(self, client, server)
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=pair.run, name="proxy-pair", daemon=True).start()

    def forget(self, pair: _Pair) -> None:
        """The pair has ended."""
        with self._lock:
            self._pairs.discard(pair)


class _Pair:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._cut: tuple[str, int] | None = None
        self._held = b""
        self.closed = False

    def run(self) -> None:
        """Forwards until one side ends or it is cut."""
        try:
            while not self.closed:
                ready, _, _ = select.select([self._client, self._server], [], [], 0.05)
                if not self._proxy.wait_flow(self):
                    return
                for sock in ready:
                    data = sock.recv(_CHUNK)
                    if not data:
                        return
                    if sock is self._client:
                        self._from_client(data)
                    elif not self._from_server(data):
                        return
        except (OSError, ValueError):
            return  # closed from outside, or by a side
        finally:
            self.close()
            self._proxy.forget(self)

    def _from_client(self, data: bytes) -> None:
        if len(data) > 4 and data[3] == 0 and data[4] in _DUMP_COMMANDS and len(data) > 10:
            self._cut = self._proxy.take_cut()
        self._server.sendall(data)

    def _from_server(self, data: bytes) -> bool:
        """Forwards; False where the connection is to end now."""
        if self._cut is None:
            self._client.sendall(data)
            return True
        kind, left = self._cut
        if kind == "bytes":
            self._client.sendall(data[:left])
            self._cut = (kind, left - len(data))
            ended = len(data) >= left
        else:
            self._held += data
            ended = False
            while not ended and len(self._held) >= 4:
                stop = 4 + int.from_bytes(self._held[:3], "little")
                if len(self._held) < stop:
                    break
                self._client.sendall(self._held[:stop])
                self._held = self._held[stop:]
                left -= 1
                ended = left == 0
            self._cut = (kind, left)
        if ended:
            self._proxy.cuts += 1
        return not ended

    def close(self) -> None:
        """Closes both sides."""
        self.closed = True
        for sock in (self._client, self._server):
            with suppress(OSError):  # it has ended by itself
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextmanager
def proxied(url: str) -> Iterator[Proxy]:
    """A proxy before the server of `url`."""
    proxy = Proxy(url)
    try:
        yield proxy
    finally:
        proxy.close()
