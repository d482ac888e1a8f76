"""The server of gateway and API says that it is ready, or why it is not."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvicorn

from ackbridge.errors import ConfigurationError
from ackbridge.gateway.app import _Server, build_config, serve_until_stopped


async def app(_scope: Any, _receive: Any, _send: Any) -> None:
    """An application that nobody asks anything."""


def config_at(port: int) -> uvicorn.Config:
    """A server on loopback."""
    return build_config(app, host="127.0.0.1", port=port, log_config=None, lifespan="off")


async def test_a_taken_port_is_an_error_of_the_settings() -> None:
    """And not uvicorn's exit status, which means that a call is pending."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = config_at(taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match=r"cannot serve at 127\.0\.0\.1:\d+"):
            await serve_until_stopped(config)


async def test_it_says_when_it_is_ready() -> None:
    """Once connections are accepted."""
    ready = asyncio.Event()
    server = _Server(config_at(0), None, ready.set)
    serving = asyncio.create_task(server.serve())
    await asyncio.wait_for(ready.wait(), 10)
    server.should_exit = True
    await serving
