"""Who may call: a bearer key on every path but the probes."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import Problem, UnauthorizedError

PROBES = frozenset({"/livez", "/readyz", "/health"})


class BearerAuth:
    """Lets a request through with one of `keys`, or to a path in `public`; without keys, all of them.

    It stands before the router, so that an unknown path too answers 401 without a key.
    """

    def __init__(self, app: ASGIApp, keys: tuple[bytes, ...], public: frozenset[str]) -> None:
        self._app = app
        self._keys = keys
        self._public = public | {f"/api{path}" for path in public}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._public or not self._keys:
            await self._app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        if len(given) == 1 and self._known(given[0]):
            await self._app(scope, receive, send)
            return
        message = "the key is wrong" if given else "a key is needed"
        error = UnauthorizedError(message, hint="send the header Authorization: Bearer KEY")
        await Problem(error)(scope, receive, send)

    def _known(self, header: bytes) -> bool:
        """Compares with every key, each in constant time, so that the time tells nothing about them."""
        scheme, _, key = header.strip().partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        key = key.strip()
        found = False
        for known in self._keys:
            found |= hmac.compare_digest(known, key)
        return found
