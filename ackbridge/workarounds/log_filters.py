"""Suppress one misleading error in OpenTelemetry's log; see the package for when this can go."""

from __future__ import annotations

import logging
from typing import Final

_LOGGER: Final = "opentelemetry.context"
_MESSAGE: Final = "Failed to detach context"
_OTHER_CONTEXT: Final = "was created in a different Context"


def filter_eviction_errors() -> None:
    """Suppress the error that OpenTelemetry logs for each open workflow that a worker evicts.

    A worker that shuts down, or whose cache is full, drops the coroutines of open workflows, and
    the garbage collector ends them in whatever context it runs. Nothing is left to detach there. A
    parked call would log it again and again, each time with a traceback. Other records of that
    logger pass.
    """
    logging.getLogger(_LOGGER).addFilter(_is_no_eviction)


def _is_no_eviction(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not (
        record.msg == _MESSAGE
        and isinstance(error, ValueError)
        and str(error).endswith(_OTHER_CONTEXT)
        # Code that keeps running ends its spans in its own context, or has a bug to be logged.
        and isinstance(error.__context__, GeneratorExit)
    )
