"""Logs: one line an event on stderr, for people on a terminal and for machines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

import orjson
import structlog

from milvine.settings import LogFormat, Settings


def configure_logs(settings: Settings, *, with_pid: bool = False) -> None:
    """Set up the logs of this process; `with_pid` for one of several that log to one place."""
    level = logging.getLevelNamesMapping()[settings.log_level.name]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([_add_pid] if with_pid else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _renderer(settings.log_format),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write a line: several processes share stderr.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def _add_pid(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    event["pid"] = os.getpid()
    return event


def _renderer(log_format: LogFormat) -> structlog.typing.Processor:
    is_console = log_format is LogFormat.CONSOLE
    if is_console or (log_format is LogFormat.AUTO and sys.stderr.isatty()):
        return structlog.dev.ConsoleRenderer()
    return structlog.processors.JSONRenderer(_dumps)


def _dumps(event: object, default: Callable[[object], object]) -> str:
    return orjson.dumps(event, default).decode()
