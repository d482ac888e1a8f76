"""What OpenTelemetry logs of spans that end elsewhere: of evicted workflows nothing, else all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextvars import copy_context

import pytest
from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import TracerProvider

from ackbridge.telemetry.log_filters import keep_evictions_quiet

MESSAGE = "Failed to detach context"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """OpenTelemetry's, as it is before any of our processes is traced."""
    logger = logging.getLogger("opentelemetry.context")
    before = list(logger.filters)
    logger.filters.clear()
    yield logger
    logger.filters[:] = before


async def _spanned(forgotten: asyncio.Future[None]) -> None:
    with TracerProvider(shutdown_on_exit=False).get_tracer("tests").start_as_current_span("run"):
        await forgotten


def _throw_away() -> None:
    """Begin a workflow's coroutine in a context of its own, and let go of it in another one."""
    loop = asyncio.new_event_loop()
    coroutine = _spanned(loop.create_future())
    copy_context().run(coroutine.send, None)
    coroutine.close()
    loop.close()


@pytest.mark.usefixtures("logger")
def test_a_workflow_that_is_thrown_away_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """OpenTelemetry would log a traceback for it; once the filter is there, it does not."""
    _throw_away()
    assert caplog.messages == [MESSAGE]
    caplog.clear()
    keep_evictions_quiet()
    _throw_away()
    assert caplog.messages == []


def test_a_span_that_ends_elsewhere_while_its_code_runs_on_is_told(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """That is somebody's fault, and so is whatever else OpenTelemetry complains of."""
    keep_evictions_quiet()
    detach(copy_context().run(attach, Context()))
    logger.error("Failed to load context")
    assert caplog.messages == [MESSAGE, "Failed to load context"]


def test_it_is_there_once_however_often_it_is_wanted(logger: logging.Logger) -> None:
    """Whoever traces this process again and again makes its log no slower."""
    keep_evictions_quiet()
    keep_evictions_quiet()
    assert len(logger.filters) == 1
