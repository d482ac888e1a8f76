"""The simulated provider's work: taken once for each idempotency key, done, told, acknowledged."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ackbridge.clock import Clock

from .behaviour import Behaviour, Rates
from .courier import Courier, Letter
from .journal import Journal


class OrderRequest(BaseModel):
    """The body of `POST /v1/orders`."""

    model_config = ConfigDict(extra="forbid")

    amount: int = Field(gt=0)
    currency: str
    behaviour: Behaviour | None = None
    call_id: str | None = None
    callback_url: str | None = None


class ShipmentRequest(BaseModel):
    """The body of `POST /v1/shipments`. It has no field for an id of the caller's."""

    model_config = ConfigDict(extra="forbid")

    destination: str
    behaviour: Behaviour | None = None
    callback_url: str | None = None


@dataclass(frozen=True)
class Answer:
    """What an HTTP request is answered with."""

    status: int
    document: dict[str, Any]


TRY_AGAIN = Answer(503, {"error": "try again"})


@dataclass
class Work:
    """One order or shipment.

    Attributes:
        fails: whether it will fail.
        acknowledged: what we were told last about its response.
    """

    kind: Literal["order", "shipment"]
    id: str
    idempotency_key: str
    request: OrderRequest | ShipmentRequest
    behaviour: Behaviour
    fails: bool
    status: str = "processing"
    acknowledged: Literal["success", "failed"] | None = None

    @property
    def call_id(self) -> str | None:
        """The caller's own id, where the provider has a field for it."""
        return self.request.call_id if isinstance(self.request, OrderRequest) else None

    def public(self) -> dict[str, Any]:
        """What the provider tells about it."""
        asked = self.request.model_dump(exclude={"behaviour", "call_id", "callback_url"})
        told = {"id": self.id, "status": self.status, **asked}
        if self.status == "failed":
            told |= {"reason": self.behaviour.reason, "retryable": self.behaviour.retryable}
        return told

    def event(self, name: str) -> dict[str, Any]:
        """The body of a callback."""
        call = {} if self.call_id is None else {"call_id": self.call_id}
        about = {"event_id": f"evt_{self.id}_{name}", "type": f"{self.kind}.{name}"}
        return {**about, **call, self.kind: self.public()}


class Desk:
    """Takes requests and does the work."""

    def __init__(self, rates: Rates, journal: Journal, courier: Courier, clock: Clock) -> None:
        self._rates = rates
        self._journal = journal
        self._courier = courier
        self._clock = clock
        # Ids are never given twice, not even by the next process: their users keep them.
        self._run = secrets.token_hex(3)
        self._answers: dict[str, asyncio.Task[Answer]] = {}
        self._works: dict[str, Work] = {}
        self._seen: Counter[tuple[str, str]] = Counter()

    async def take(
        self, kind: Literal["order", "shipment"], key: str, request: OrderRequest | ShipmentRequest
    ) -> Answer:
        """Answer a request. The same idempotency key has one effect and one answer."""
        behaviour = request.behaviour or self._rates.draw(key)
        if self._is_among_first("receipt", key, behaviour.receipt_failures):
            return TRY_AGAIN
        is_first = key not in self._answers
        if is_first:
            self._answers[key] = asyncio.create_task(self._accept(kind, key, request, behaviour))
        # Who hangs up must not take the answer from those who ask again.
        answer = await asyncio.shield(self._answers[key])
        if is_first:
            await asyncio.sleep(behaviour.receipt_delay_ms / 1000)
        if self._is_among_first("lost", key, behaviour.lost_receipts):
            return TRY_AGAIN
        return answer

    def find(self, kind: Literal["order", "shipment"], work_id: str) -> Work | None:
        """A piece of work by its id."""
        work = self._works.get(work_id)
        return work if work is not None and work.kind == kind else None

    def acknowledge(self, work: Work, status: Literal["success", "failed"]) -> Answer:
        """Be told what became of our response; the same again changes nothing."""
        if self._is_among_first(
            "acknowledgement", work.id, work.behaviour.acknowledgement_failures
        ):
            return TRY_AGAIN
        work.acknowledged = status
        return Answer(200, {"id": work.id, "acknowledged": status})

    def summary(self) -> dict[str, Any]:
        """Everything so far, in numbers."""
        kinds = Counter(work.kind for work in self._works.values())
        orders = [work for work in self._works.values() if work.kind == "order"]
        acknowledged = Counter(work.acknowledged for work in orders)
        counts = self._journal.counts
        return {
            "orders": kinds["order"],
            "shipments": kinds["shipment"],
            "effects": len(self._works),
            "requests": counts["request"],
            "callbacks_sent": counts["callback"],
            "callbacks_given_up": counts["callback_given_up"],
            "duplicates_sent": counts["duplicates"],
            "early": counts["early"],
            "acknowledged": {kind: acknowledged[kind] for kind in ("success", "failed")},
            "unacknowledged": acknowledged[None],
        }

    async def _accept(
        self,
        kind: Literal["order", "shipment"],
        key: str,
        request: OrderRequest | ShipmentRequest,
        behaviour: Behaviour,
    ) -> Answer:
        if behaviour.refuse is not None:
            return Answer(behaviour.refuse, {"error": behaviour.reason})
        work_id = f"{kind[:4]}_{self._run}_{len(self._works) + 1}"
        whose = getattr(request, "call_id", None) or key
        fails = self._is_among_first("fail", whose, behaviour.fail)
        work = self._works[work_id] = Work(kind, work_id, key, request, behaviour, fails)
        if behaviour.early:
            self._journal.counts["early"] += 1
            await self._finish(work)
        elif not behaviour.stuck:
            self._courier.later(self._work(work))
        return Answer(202, {"id": work.id, "status": "processing"})

    async def _work(self, work: Work) -> None:
        delay = work.behaviour.delay_ms
        await asyncio.sleep((self._rates.delay_ms if delay is None else delay) / 1000)
        if work.behaviour.extend_ms:
            longer = timedelta(milliseconds=work.behaviour.extend_ms)
            until = (self._clock() + longer).isoformat()
            await self._tell(work, {**work.event("extended"), "until": until})
            await asyncio.sleep(longer.total_seconds() / 2)
        await self._finish(work)

    async def _finish(self, work: Work) -> None:
        work.status = "failed" if work.fails else "completed"
        await self._tell(work, work.event(work.status))

    async def _tell(self, work: Work, event: dict[str, Any]) -> None:
        if work.behaviour.silent or work.request.callback_url is None:
            return
        self._journal.counts["duplicates"] += work.behaviour.duplicates
        about = {
            "order": work.id,
            "call_id": work.call_id,
            "idempotency_key": work.idempotency_key,
            "event_id": event["event_id"],
            "type": event["type"],
        }
        letter = Letter(work.request.callback_url, event, about)
        await self._courier.deliver(letter, 1 + work.behaviour.duplicates)

    def _is_among_first(self, what: str, whose: str, times: int) -> bool:
        """Whether this is one of the first so many times that something happens to somebody."""
        self._seen[what, whose] += 1
        return self._seen[what, whose] <= times
