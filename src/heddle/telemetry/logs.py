"""structlog, set up once per process: one line per batch at most, never a payload, never a secret."""

from __future__ import annotations

import logging
import sys
from typing import Any

import stamina
import stamina.instrumentation
import structlog

from heddle.secrets import redact
from heddle.settings import Settings


def configure_logs(settings: Settings, **bound: str) -> None:
    """Lines go to standard error; `bound` stands on every line (component, instance)."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redacted(renderer),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.log_level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # stamina's own lines, one per retry, show arguments and exceptions, and with them payload content.
    stamina.instrumentation.set_on_retry_hooks(())
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**bound)


def _redacted(render: structlog.typing.Processor) -> structlog.typing.Processor:
    """Over the whole line: a value may stand in an exception's text, a hint, a traceback."""

    def redacted(logger: Any, name: str, event: structlog.typing.EventDict) -> str:
        return redact(str(render(logger, name, event)))

    return redacted
