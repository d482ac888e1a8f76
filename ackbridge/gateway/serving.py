"""How the gateway is served: one place, for its command and for what it is measured against."""

from __future__ import annotations

from typing import Any

import uvicorn


def build_config(app: Any, **options: Any) -> uvicorn.Config:
    """Uvicorn with its compiled parser and loop, without an access log.

    Args:
        options: of `uvicorn.Config`, such as host and port.
    """
    return uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        ws="none",
        access_log=False,
        server_header=False,
        **options,
    )
