"""Log set-up: one line an event, text on a terminal and JSON elsewhere, never a secret."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_PASSWORD_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*):\S*@", re.IGNORECASE)
_SECRET_NAME = re.compile(r"password|passwd|secret|api_?key|authorization|token", re.IGNORECASE)
MASK = "***"


def mask(text: str) -> str:
    """`text` with the password of every URL in it replaced; up to the last `@` of the word, since a
    password that was not quoted may hold one."""
    return _PASSWORD_IN_URL.sub(rf"\1:{MASK}@", text)


def mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor: hides values of fields named like secrets, and passwords in URLs anywhere."""
    return {name: MASK if _SECRET_NAME.search(name) else _masked(value) for name, value in event.items()}


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
        structlog.processors.format_exc_info,
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
    for name in ("asyncio", "httpcore", "httpx", "pymysqlreplication", "sqlglot", "uvicorn", "uvicorn.error"):
        library = logging.getLogger(name)
        library.setLevel(logging.WARNING)
        library.handlers.clear()
        library.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
