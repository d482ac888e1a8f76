"""What chance makes of those requests that say nothing of their behaviour."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from .behaviour import Behaviour, Milliseconds

Share = Annotated[float, Field(ge=0, le=1)]
"""From 0, never, to 1, always."""


class Rates(BaseModel):
    """How often which fault happens; each is drawn by itself.

    What is drawn depends on the seed, the idempotency key and the fault's name, and on nothing
    else: the same requests meet the same faults, in whatever order they come.

    Attributes:
        delay_ms: milliseconds before work is done that says nothing else.
        seed: of chance.
        most: what can happen several times happens 1 to so many times.
        slow_ms: how long `slow` and `slow_receipt` take.
        extend_ms, late_ms, retry_after, acknowledgement_down_ms: as in `Behaviour`, for those
            that meet the fault.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    delay_ms: Milliseconds = 20
    seed: int = 1
    most: int = Field(default=2, ge=1, le=100)
    slow_ms: Milliseconds = 2000
    extend_ms: Milliseconds = 2000
    late_ms: Milliseconds = 0
    retry_after: int = Field(default=1, ge=0)
    acknowledgement_down_ms: Milliseconds = 2000

    refuse: Share = 0
    throttle: Share = 0
    receipt_failure: Share = 0
    reset: Share = 0
    slow_receipt: Share = 0
    lost_receipt: Share = 0
    closed_receipt: Share = 0
    reset_receipt: Share = 0
    hung_receipt: Share = 0
    malformed_receipt: Share = 0
    stuck: Share = 0
    slow: Share = 0
    fail_retryable: Share = 0
    fail: Share = 0
    late: Share = 0
    silent: Share = 0
    early: Share = 0
    extend: Share = 0
    forged: Share = 0
    malformed: Share = 0
    contradictory: Share = 0
    duplicate: Share = 0
    lost_callback: Share = 0
    status_failure: Share = 0
    acknowledgement_failure: Share = 0
    acknowledgement_refuse: Share = 0
    acknowledgement_down: Share = 0
    lost_acknowledgement: Share = 0

    def draw(self, idempotency_key: str) -> Behaviour:
        """The behaviour of a request that says nothing itself."""
        drawn: dict[str, Any] = {}
        for fault, meaning in _MEANINGS.items():
            share = getattr(self, fault)
            if share:
                chance = random.Random(f"{self.seed}:{idempotency_key}:{fault}")  # noqa: S311 -- repeatable faults, not secrets
                if chance.random() < share:
                    drawn |= meaning(self, chance)
        return Behaviour(**drawn)


_Meaning = Callable[[Rates, random.Random], dict[str, Any]]


def _always(**fields: Any) -> _Meaning:
    return lambda _rates, _chance: fields


def _times(field: str) -> _Meaning:
    return lambda rates, chance: {field: chance.randint(1, rates.most)}


# In the order in which they are applied: of two that say the same thing the later one holds.
_MEANINGS: dict[str, _Meaning] = {
    "refuse": _always(refuse=422),
    "throttle": lambda rates, chance: {
        "throttle": chance.randint(1, rates.most),
        "retry_after": rates.retry_after,
        "retry_after_date": chance.random() < 0.5,
    },
    "receipt_failure": _times("receipt_failures"),
    "reset": _times("resets"),
    "slow_receipt": lambda rates, _: {"receipt_delay_ms": rates.slow_ms},
    "lost_receipt": _times("lost_receipts"),
    "closed_receipt": _times("closed_receipts"),
    "reset_receipt": _times("reset_receipts"),
    "hung_receipt": _times("hung_receipts"),
    "malformed_receipt": _always(malformed_receipts=1),
    "stuck": _always(stuck=True),
    "slow": lambda rates, _: {"delay_ms": rates.slow_ms},
    "fail_retryable": _always(fail=1, retryable=True),
    "fail": _always(fail=1, retryable=False),
    "late": lambda rates, _: {"late": True, "late_ms": rates.late_ms},
    "silent": _always(silent=True),
    "early": _always(early=True),
    "extend": lambda rates, chance: {
        "extend_ms": rates.extend_ms,
        "extensions": chance.randint(1, rates.most),
    },
    "forged": _always(forged=True),
    "malformed": _always(malformed=True),
    "contradictory": lambda _, chance: {
        "contradictory": chance.choice(("completed", "failed")),
    },
    "duplicate": lambda rates, chance: {"duplicates": chance.randint(1, rates.most)},
    "lost_callback": _times("lost_callbacks"),
    "status_failure": _times("status_failures"),
    "acknowledgement_failure": _times("acknowledgement_failures"),
    "acknowledgement_refuse": _always(acknowledgement_failures=1, acknowledgement_status=403),
    "acknowledgement_down": lambda rates, _: {
        "acknowledgement_down_ms": rates.acknowledgement_down_ms
    },
    "lost_acknowledgement": _times("lost_acknowledgements"),
}

REALISTIC = Rates(
    slow_ms=1500,
    refuse=0.005,
    throttle=0.03,
    receipt_failure=0.03,
    reset=0.02,
    slow_receipt=0.01,
    lost_receipt=0.02,
    closed_receipt=0.02,
    reset_receipt=0.02,
    hung_receipt=0.005,
    stuck=0.005,
    slow=0.03,
    fail=0.01,
    fail_retryable=0.02,
    late=0.01,
    silent=0.02,
    early=0.05,
    extend=0.02,
    forged=0.01,
    malformed=0.01,
    contradictory=0.005,
    duplicate=0.1,
    lost_callback=0.05,
    status_failure=0.05,
    acknowledgement_failure=0.05,
    acknowledgement_refuse=0.01,
    acknowledgement_down=0.02,
    lost_acknowledgement=0.03,
)
"""A bad week of a provider, for chaos: most calls still go well.

Everything happens but malformed receipts, after which a provider that is known by its own
reference cannot be told or asked anything.
"""
