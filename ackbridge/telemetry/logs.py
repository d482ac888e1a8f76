"""Logs. They go to standard error, one line each, and carry no headers, bodies or secrets."""

from __future__ import annotations

import logging


def log_to_stderr(level: str) -> None:
    """Set up the logging of one of our processes."""
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # httpx logs every URL at INFO, and URLs may carry personal data.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # The SDK logs a traceback for every attempt that fails; the call's history says why it did.
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)
