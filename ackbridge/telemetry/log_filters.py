"""One line of OpenTelemetry's log that tells operators of a trouble where there is none."""

from __future__ import annotations

import logging
from typing import Final

_LOGGER: Final = "opentelemetry.context"
_MESSAGE: Final = "Failed to detach context"
_ELSEWHERE: Final = "was created in a different Context"


def keep_evictions_quiet() -> None:
    """Leave out what OpenTelemetry logs for each open workflow that its worker evicts.

    A worker that stops, or whose cache is full, throws the coroutines of open workflows away, and
    the interpreter ends them wherever it comes across them. There is nothing to detach there, so
    nothing is lost; and of a parked call it would come again and again, each time with a
    traceback. Everything else of that logger is told.
    """
    logging.getLogger(_LOGGER).addFilter(_is_worth_telling)


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Whether it is anything but the end of a span in a coroutine that was thrown away."""
    error = record.exc_info[1] if record.exc_info else None
    return not (
        record.msg == _MESSAGE
        and isinstance(error, ValueError)
        and str(error).endswith(_ELSEWHERE)
        # A coroutine that runs on ends its spans where it began them, or has a fault to be told.
        and isinstance(error.__context__, GeneratorExit)
    )
