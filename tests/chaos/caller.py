"""What the callers of one call did, and which answers they got."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from temporalio.exceptions import TemporalError

from ackbridge.contracts.calls import CallOutcome, Stage
from ackbridge.errors import CallError, EngineUnavailableError

from .records import Answer, CallerRecord
from .workload import PlannedCall

PAUSE = 0.3
"""Seconds before a request to an unavailable engine is retried."""

T = TypeVar("T")


@dataclass
class Caller:
    """Collects what happens to the callers of one call; `record` is the result.

    Attributes:
        parked: how often it was found parked.
    """

    script: PlannedCall
    is_started: bool = False
    refusal: str | None = None
    gave_up: bool = False
    answers: list[Answer] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    parked: int = 0

    @property
    def record(self) -> CallerRecord:
        """The record that reconciliation compares."""
        return CallerRecord(
            is_started=self.is_started,
            is_refusable=self.script.is_refusable,
            refusal=self.refusal,
            gave_up=self.gave_up,
            answers=tuple(self.answers),
            orders=tuple(self.orders),
            errors=tuple(self.errors),
        )

    def answered(self, how: str, stage: Stage | str, outcome: CallOutcome | None) -> None:
        """Record an answer."""
        plain = outcome.model_dump(mode="json") if outcome else None
        self.answers.append(Answer(how, str(stage), plain))

    async def recording_errors(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it, and record an unexpected error instead of raising it."""
        try:
            await work
        except (CallError, TemporalError) as error:
            self.errors.append(f"{type(error).__name__}: {error}"[:500])


async def retry_while_unavailable(request: Callable[[], Awaitable[T]]) -> T:
    """Retry while the engine is unavailable, like a service with a queue."""
    while True:
        try:
            return await request()
        except EngineUnavailableError:
            await asyncio.sleep(PAUSE * (0.5 + random.random()))  # noqa: S311 -- only spreads retries
