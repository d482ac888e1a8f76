"""The errors of evicted workflows are not logged; all others are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextvars import copy_context

import pytest
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import TracerProvider

from ackbridge.workarounds.log_filters import filter_eviction_errors

MESSAGE = "Failed to detach context"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """OpenTelemetry's logger without our filter."""
    logger = logging.getLogger("opentelemetry.context")
    before = list(logger.filters)
    logger.filters.clear()
    yield logger
    logger.filters[:] = before


async def _in_span(pending: asyncio.Future[None]) -> None:
    with TracerProvider(shutdown_on_exit=False).get_tracer("tests").start_as_current_span("run"):
        await pending


def _evict() -> None:
    """Start a workflow's coroutine in one context, and close it in another."""
    loop = asyncio.new_event_loop()
    coroutine = _in_span(loop.create_future())
    copy_context().run(coroutine.send, None)
    coroutine.close()
    loop.close()


@pytest.mark.usefixtures("logger")
def test_evicted_workflow_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """OpenTelemetry logs a traceback for it, but not once the filter is set."""
    _evict()
    assert caplog.messages == [MESSAGE]
    caplog.clear()
    filter_eviction_errors()
    _evict()
    assert caplog.messages == []


def test_other_errors_are_logged(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """A span that running code ends in the wrong context is a bug, and so are other errors."""
    filter_eviction_errors()
    detach(copy_context().run(attach, Context()))
    logger.error("Failed to load context")
    assert caplog.messages == [MESSAGE, "Failed to load context"]


def test_filter_is_added_once(logger: logging.Logger) -> None:
    """Setting it again adds no second filter."""
    filter_eviction_errors()
    filter_eviction_errors()
    assert len(logger.filters) == 1
