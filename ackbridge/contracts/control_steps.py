"""The control loop of a provider: what it is handed, what it decides, and what follows from it."""

from __future__ import annotations

from pydantic import Field

from .breaker import BreakerSetting
from .breaker_policy import LimitSetting, SendRate, Watch
from .control import LearnedDeadline
from .wire import Wire


class ObserveStep(Wire):
    """Watch a provider until there is something to decide.

    Attributes:
        deadlines: what has been learned, by operation.
        limit: an operator's word about its rate.
        applied: what its send queue is set to; None: nobody knows.
    """

    provider: str
    breaker: BreakerSetting
    deadlines: dict[str, LearnedDeadline] = Field(default_factory=dict)
    limit: LimitSetting | None = None
    applied: SendRate | None = None
    watch: Watch = Watch()


class ThrottleStep(Wire):
    """Set how fast a provider's send queue is dispatched.

    Attributes:
        reason: kept by the engine, for whoever looks at the queue there.
    """

    provider: str
    rate: SendRate
    reason: str


class DrainStep(Wire):
    """Take up what was parked while a provider was away.

    Attributes:
        version: of the snapshot in which it was closed again; a repeat starts nothing twice.
    """

    provider: str
    version: int
    reason: str


class Drained(Wire):
    """The ids of the batches that take it up."""

    batches: tuple[str, ...] = ()
