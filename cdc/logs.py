"""Log set-up: one line an event, text on a terminal and JSON elsewhere, never a secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from traceback import format_tb
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from cdc.errors import DucklingError

_PASSWORD_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*):\S*@", re.IGNORECASE)
_SECRET_NAME = re.compile(r"password|passwd|secret|api_?key|authorization|token", re.IGNORECASE)
MASK = "***"
_TELLS_NO_VALUES = (
    DucklingError,
    OSError,
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    TypeError,
)
"""Exceptions whose text names things of the program or the system. That of others may quote a row's value:
DuckDB's conversion errors do, and so do ValueError and KeyError."""


def mask(text: str) -> str:
    """`text` with the password of every URL in it replaced; up to the last `@` of the word, since a
    password that was not quoted may hold one."""
    return _PASSWORD_IN_URL.sub(rf"\1:{MASK}@", text)


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor: hides values of fields named like secrets, and passwords in URLs anywhere."""
    return {name: MASK if _SECRET_NAME.search(name) else _masked(value) for name, value in event.items()}


def trace(error: BaseException) -> str:
    """Where `error` and its causes came from: files, lines, classes; the text only where it can't hold a value."""
    lines: list[str] = []
    chain = [error]
    while (earlier := _cause(chain[-1])) is not None and earlier not in chain:
        chain.append(earlier)
    for each in reversed(chain):
        lines += [*(["", "which led to", ""] if lines else []), *_lines(each)]
    return "\n".join(lines)


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _lines(error: BaseException) -> list[str]:
    lines = [
        "Traceback (most recent call last):",
        *(part.rstrip() for part in format_tb(error.__traceback__)),
    ]
    name = type(error).__name__ if isinstance(error, DucklingError) else _class_name(type(error))
    lines.append(f"{name}: {error}" if isinstance(error, _TELLS_NO_VALUES) else name)
    return lines


def _class_name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _render_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor: `exc_info` becomes `exception`, see `trace`."""
    given = event.pop("exc_info", None)
    if given is True:
        given = sys.exc_info()[1]
    elif isinstance(given, tuple):
        given = given[1]
    if isinstance(given, BaseException):
        event["exception"] = trace(given)
    return event


def _masked(value: object) -> object:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {key: MASK if _SECRET_NAME.search(str(key)) else _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(item) for item in value]
    return value


def configure_logs(
    level: str = "INFO",
    log_format: Literal["auto", "text", "json"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Sends every log record of the process to `stream` (standard error), those of libraries too.

    Call it once, before the first record; a second call replaces the first one's settings.
    """
    stream = stream if stream is not None else sys.stderr
    text = log_format == "text" or (log_format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _render_exception,
    ]
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if text
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, mask_secrets, renderer],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    _quieten_libraries()


def _quieten_libraries() -> None:
    """Libraries report problems only: their progress is not ours, and pymysqlreplication logs its settings,
    the password among them, at INFO."""
    for name in ("asyncio", "httpcore", "httpx", "pymysqlreplication", "uvicorn", "uvicorn.error"):
        library = logging.getLogger(name)
        library.setLevel(logging.WARNING)
        library.handlers.clear()
        library.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
