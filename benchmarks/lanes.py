"""A lane: one way of doing the work, measured against the others."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from temporalio.client import Client

PAYLOAD = {"amount": 5, "currency": "EUR"}
_RUN = uuid.uuid4().hex[:8]
_NUMBERS = count(1)


@dataclass(frozen=True)
class Lane:
    """One way of doing the work.

    Attributes:
        name: as on the command line and in the report.
        run: given a fresh key, does it once and to its end, and answers with the call's id.
        processes: what works for it, by role; beside the provider and the load.
        recorded: asked at the end, how often each call's response stands in the lane's database;
            None for a lane without provider and database.
        engine: whose histories have its calls; None for a lane without histories.
        host_type: the type of the workflows that host several calls each; None: a call is a
            workflow.
        history_only: its cost in history is all that is measured.
        calls: the ids of all its calls so far.
    """

    name: str
    run: Callable[[str], Awaitable[str]]
    processes: Mapping[str, Sequence[int]]
    recorded: Callable[[], Mapping[str, int]] | None = None
    engine: Client | None = None
    host_type: str | None = None
    history_only: bool = False
    calls: list[str] = field(default_factory=list)

    async def once(self) -> str:
        """Do it once under a key of its own, and remember that."""
        call = await self.run(f"{self.name}-{_RUN}-{next(_NUMBERS)}")
        self.calls.append(call)
        return call
