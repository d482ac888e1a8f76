"""Random faults of requests that have no behaviour of their own."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from .behaviour import Behaviour, Milliseconds

Probability = Annotated[float, Field(ge=0, le=1)]
"""A probability: 0 never, 1 always."""


class Rates(BaseModel):
    """The probability of each fault; faults are drawn independently.

    What is drawn depends only on the seed, the idempotency key and the fault's name: the same
    requests get the same faults, in any order. `docs/sandbox.md` says what each field does.
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

    refuse: Probability = 0
    throttle: Probability = 0
    receipt_failure: Probability = 0
    reset: Probability = 0
    slow_receipt: Probability = 0
    lost_receipt: Probability = 0
    closed_receipt: Probability = 0
    reset_receipt: Probability = 0
    hung_receipt: Probability = 0
    malformed_receipt: Probability = 0
    stuck: Probability = 0
    slow: Probability = 0
    fail_retryable: Probability = 0
    fail: Probability = 0
    late: Probability = 0
    silent: Probability = 0
    early: Probability = 0
    extend: Probability = 0
    forged: Probability = 0
    malformed: Probability = 0
    contradictory: Probability = 0
    duplicate: Probability = 0
    lost_callback: Probability = 0
    status_failure: Probability = 0
    acknowledgement_failure: Probability = 0
    acknowledgement_refuse: Probability = 0
    acknowledgement_down: Probability = 0
    lost_acknowledgement: Probability = 0

    def draw(self, idempotency_key: str) -> Behaviour:
        drawn: dict[str, Any] = {}
        for fault, fields_of in _FIELDS.items():
            probability = getattr(self, fault)
            if probability:
                chance = random.Random(f"{self.seed}:{idempotency_key}:{fault}")  # noqa: S311 -- repeatable faults, not secrets
                if chance.random() < probability:
                    drawn |= fields_of(self, chance)
        return Behaviour(**drawn)


_Fields = Callable[[Rates, random.Random], dict[str, Any]]


def _always(**fields: Any) -> _Fields:
    return lambda _rates, _chance: fields


def _times(field: str) -> _Fields:
    return lambda rates, chance: {field: chance.randint(1, rates.most)}


# Applied in this order: where two set the same field, the later one wins.
_FIELDS: dict[str, _Fields] = {
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
    "contradictory": lambda _, chance: {"contradictory": chance.choice(("completed", "failed"))},
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
"""A provider in a bad week, for chaos tests: most calls still complete.

Every fault happens except malformed receipts: without the provider's reference from the receipt,
some of its operations can be neither acknowledged nor asked for a status.
"""
