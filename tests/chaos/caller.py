"""Everybody who has to do with one call, what they did, and what they were told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from temporalio.exceptions import TemporalError

from ackbridge.contracts.calls import CallOutcome, Stage
from ackbridge.errors import CallError, EngineUnavailableError

from .records import Answer, Told
from .script import CallScript

PAUSE = 0.3
"""Seconds before an engine that is away is tried again."""

T = TypeVar("T")


@dataclass
class Caller:
    """Everybody who has to do with one call; `told` at the end.

    Attributes:
        parked: how often it was found parked.
    """

    script: CallScript
    is_started: bool = False
    refusal: str | None = None
    gave_up: bool = False
    answers: list[Answer] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    parked: int = 0

    @property
    def told(self) -> Told:
        """For the reconciliation."""
        return Told(
            is_started=self.is_started,
            is_refusable=self.script.is_refusable,
            refusal=self.refusal,
            gave_up=self.gave_up,
            answers=tuple(self.answers),
            orders=tuple(self.orders),
            troubles=tuple(self.troubles),
        )

    def answered(self, how: str, stage: Stage | str, outcome: CallOutcome | None) -> None:
        """Keep what was told."""
        plain = outcome.model_dump(mode="json") if outcome else None
        self.answers.append(Answer(how, str(stage), plain))

    async def keeping_troubles(self, work: Coroutine[Any, Any, None]) -> None:
        """Let what should not have happened to a caller be told, and the others go on."""
        try:
            await work
        except (CallError, TemporalError) as error:
            self.troubles.append(f"{type(error).__name__}: {error}"[:500])


async def insist(request: Callable[[], Awaitable[T]]) -> T:
    """Try again for as long as the engine is away, like a service with a queue would."""
    while True:
        try:
            return await request()
        except EngineUnavailableError:
            await asyncio.sleep(PAUSE * (0.5 + random.random()))  # noqa: S311 -- only spreads retries
