"""How the simulated provider behaves: for one order as the order says, or by chance."""

from __future__ import annotations

import random

from pydantic import BaseModel, ConfigDict, Field


class Behaviour(BaseModel):
    """What one order or shipment does; the field `behaviour` of its payload.

    Attributes:
        delay_ms: milliseconds between the receipt and the callback; unset, the provider's own.
        duplicates: how many more copies of each callback are sent at the same instant.
        early: the callback is sent, and answered, before the receipt is written.
        silent: the work is done, but there is no callback; the status request tells.
        stuck: the work is never done, and there is no callback.
        extend_ms: the provider asks for so many milliseconds more, and needs half of them.
        fail: so many orders of one call fail before one is completed.
        reason, retryable: what a failure says of itself.
        refuse: the HTTP status the request is refused with, for good; nothing is done.
        receipt_failures: so many requests are answered 503 before one is taken.
        lost_receipts: so many requests are answered 503 although the work is done.
        receipt_delay_ms: milliseconds before the first request is answered; its work is done,
            and the same request again is answered at once.
        acknowledgement_failures: so many acknowledgements are answered 503 before one is taken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    delay_ms: int | None = Field(default=None, ge=0)
    duplicates: int = Field(default=0, ge=0, le=100)
    early: bool = False
    silent: bool = False
    stuck: bool = False
    extend_ms: int = Field(default=0, ge=0)
    fail: int = Field(default=0, ge=0)
    reason: str = "out of stock"
    retryable: bool = False
    refuse: int | None = Field(default=None, ge=400, le=499)
    receipt_failures: int = Field(default=0, ge=0)
    lost_receipts: int = Field(default=0, ge=0)
    receipt_delay_ms: int = Field(default=0, ge=0)
    acknowledgement_failures: int = Field(default=0, ge=0)


class Rates(BaseModel):
    """What those do that say nothing themselves.

    Attributes:
        delay_ms: milliseconds between the receipt and the callback.
        duplicate_rate: the share of callbacks that are sent twice, from 0 to 1.
        early_rate: the share of callbacks that overtake their receipt, from 0 to 1.
        seed: what chance depends on, together with the idempotency key and nothing else: the
            same requests meet the same faults, in whatever order they come.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    delay_ms: int = Field(default=20, ge=0)
    duplicate_rate: float = Field(default=0, ge=0, le=1)
    early_rate: float = Field(default=0, ge=0, le=1)
    seed: int = 1

    def draw(self, idempotency_key: str) -> Behaviour:
        """The behaviour of a request that says nothing itself."""
        chance = random.Random(f"{self.seed}:{idempotency_key}")  # noqa: S311 -- repeatable faults, not secrets
        return Behaviour(
            duplicates=int(chance.random() < self.duplicate_rate),
            early=chance.random() < self.early_rate,
        )
