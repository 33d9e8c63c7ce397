"""The source's address: `mysql://user:password@host:3306/database?ssl-mode=…`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, cast, get_args
from urllib.parse import SplitResult, quote, unquote, urlsplit

from cdc.errors import ConfigError

SslMode = Literal["disabled", "preferred", "required", "verify_ca", "verify_identity"]

DEFAULT_PORT = 3306
_SHAPE = "write it as mysql://user:password@host:3306/database"
_ENCODE = f"{_SHAPE}; in user and password write @ : / ? # % as %40 %3A %2F %3F %23 %25"
_FILES = ("ssl-ca", "ssl-cert", "ssl-key")
_VERIFYING = ("verify_ca", "verify_identity")


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """Where the source is and how to log in. `ssl_mode` has the meaning of the mysql client's `--ssl-mode`.

    Without `ssl-mode`, it is `verify_ca` where `ssl-ca` is given, `required` where `ssl-cert` is, else
    `preferred`. `verify_ca` and `verify_identity` without `ssl-ca` trust the system's authorities.
    https://dev.mysql.com/doc/refman/9.7/en/connection-options.html#encrypted-connection-options
    """

    user: str
    password: str = field(repr=False)
    host: str
    port: int
    database: str
    ssl_mode: SslMode = "preferred"
    ssl_ca: str | None = None
    ssl_cert: str | None = None
    ssl_key: str | None = None

    @classmethod
    def parse(cls, text: str) -> SourceUrl:
        """The address in `text`. Raises ConfigError that says what is wrong, without any part of `text`."""
        try:
            parts = urlsplit(text.strip())
        except ValueError:
            raise _wrong("has a malformed host", _ENCODE) from None
        if parts.scheme not in {"mysql", "mariadb"}:
            raise _wrong("does not begin with mysql://", _SHAPE)
        if parts.fragment or text.rstrip().endswith("#"):
            raise _wrong("contains a bare #", _ENCODE)
        user, password, host, port = _authority(parts)
        database = _decoded(parts.path.removeprefix("/"), "database")
        if "/" in parts.path.removeprefix("/"):
            raise _wrong("names more than one database", _ENCODE)
        if not database:
            raise _wrong("names no database", _SHAPE)
        given = _parameters(parts.query)
        mode = given.pop("ssl-mode", "") or _implied_mode(given)
        return cls(
            user=user,
            password=password,
            host=host,
            port=port,
            database=database,
            ssl_mode=_checked_mode(mode, given),
            ssl_ca=given.get("ssl-ca"),
            ssl_cert=given.get("ssl-cert"),
            ssl_key=given.get("ssl-key"),
        )

    def masked(self) -> str:
        """The address for logs and answers: the password is three stars, or absent where there is none."""
        login = quote(self.user, safe="") + (":***" if self.password else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"mysql://{login}@{host}:{self.port}/{quote(self.database, safe='')}"
            f"?ssl-mode={self.ssl_mode.replace('_', '-')}"
        )


def _wrong(what: str, hint: str) -> ConfigError:
    return ConfigError(f"MYSQL_CONNECTION_STRING {what}", hint=hint)


def _decoded(text: str, what: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise _wrong(f"has a bare % in its {what}", _ENCODE)
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _wrong(f"has a {what} that is not UTF-8", _ENCODE) from None


def _authority(parts: SplitResult) -> tuple[str, str, str, int]:
    login, at, _ = parts.netloc.rpartition("@")
    name, _, secret = login.partition(":")
    if not at or not name:
        raise _wrong("names no user", _ENCODE)
    if "@" in login:
        raise _wrong("has an @ too many", _ENCODE)
    try:
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        raise _wrong("has a port that is no number from 1 to 65535", _ENCODE) from None
    if port == 0:
        raise _wrong("has a port that is no number from 1 to 65535", _ENCODE)
    if not parts.hostname:
        raise _wrong("names no host", _SHAPE)
    host = _decoded(parts.hostname, "host")
    return _decoded(name, "user"), _decoded(secret, "password"), host, port


def _parameters(query: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        raw, _, value = pair.partition("=")
        name = raw.lower().replace("_", "-")
        known = f"known are ssl-mode, {', '.join(_FILES)}"
        if name not in {"ssl-mode", *_FILES}:
            # what is no plain word may be a piece of a password
            shown = f" {raw!r}" if re.fullmatch(r"[A-Za-z_-]{1,40}", raw) else ""
            raise _wrong(f"has an unknown parameter{shown}", known)
        if name in given:
            raise _wrong(f"gives {name} twice", known)
        given[name] = _decoded(value, name)
        if not given[name]:
            raise _wrong(f"gives {name} without a value", known)
    return given


def _implied_mode(given: dict[str, str]) -> str:
    if "ssl-ca" in given:
        return "verify_ca"
    return "required" if "ssl-cert" in given else "preferred"


def _checked_mode(text: str, given: dict[str, str]) -> SslMode:
    mode = text.lower().replace("-", "_")
    modes = get_args(SslMode)
    if mode not in modes:
        raise _wrong("has an unknown ssl-mode", f"use one of {', '.join(m.replace('_', '-') for m in modes)}")
    if "ssl-ca" in given and mode not in _VERIFYING:
        raise _wrong("gives ssl-ca with an ssl-mode that checks nothing", "use verify-ca or verify-identity")
    if ("ssl-cert" in given or "ssl-key" in given) and mode in {"disabled", "preferred"}:
        raise _wrong("gives ssl-cert with an ssl-mode that may not encrypt", "use required or stricter")
    if "ssl-key" in given and "ssl-cert" not in given:
        raise _wrong("gives ssl-key without ssl-cert", "give both, or neither")
    return cast(SslMode, mode)
