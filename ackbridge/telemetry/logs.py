"""Logs: one line per record on standard error, without headers, bodies or secrets."""

from __future__ import annotations

import logging


def log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # httpx logs every URL at INFO, and URLs may carry personal data.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # The SDK logs a traceback for each failed attempt; the call's history has the reason.
    logging.getLogger("temporalio.activity").setLevel(logging.ERROR)
