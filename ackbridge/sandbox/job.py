"""One piece of the simulated provider's work, from its request to its acknowledgements."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from .behaviour import Behaviour

Mode = Literal["callback", "poll", "sync"]
"""How a piece of work is answered: by callback, when asked, or in the HTTP response itself."""

Verdict = Literal["success", "failed"]
"""What an acknowledgement says of our answer."""


@dataclass(frozen=True)
class JobAcknowledgement:
    """One acknowledgement that was taken.

    Attributes:
        at: when the first of this key came.
        key: its own idempotency key.
        body: as the speech read it.
    """

    at: datetime
    verdict: Verdict
    key: str | None
    body: Any = None


@dataclass
class Job:
    """What a request has set going; one for each idempotency key.

    Attributes:
        number: 1, 2, 3: the provider's works in order.
        id: the provider's own id of it, the caller's reference.
        key: the idempotency key.
        call_id: the caller's own id, where the provider is told one.
        content: the request's body, as the speech read it.
        fails: whether it will fail.
        is_begun: whether a late one is under way.
        until: when it is promised for, after an extension.
        acknowledgements: those that were taken, in order.
    """

    number: int
    id: str
    operation: str
    mode: Mode
    key: str
    call_id: str | None
    callback_url: str | None
    content: Any
    behaviour: Behaviour
    fails: bool = False
    is_begun: bool = False
    status: Literal["processing", "completed", "failed"] = "processing"
    until: datetime | None = None
    acknowledgements: list[JobAcknowledgement] = field(default_factory=list)

    @property
    def acknowledged(self) -> Verdict | None:
        """What was said last of its answer."""
        return self.acknowledgements[-1].verdict if self.acknowledgements else None
