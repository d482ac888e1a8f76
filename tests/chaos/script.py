"""What a seed makes of a run: every call with what is done to it, and every kill.

Nothing here depends on anything but the seed and the number of a call or of a kill.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from ackbridge.contracts.calls import CallRequest
from ackbridge.sandbox.fault_rates import REALISTIC, Rates

Chosen = TypeVar("Chosen")


class Manner(StrEnum):
    """How a service makes its call: starting and waiting in one request, one after the other, or
    starting alone."""

    WAIT = "start and wait"
    FOLLOW = "start, then follow"
    LEAVE = "start"


class Act(StrEnum):
    """What is done to a call."""

    CANCEL = "cancel"
    CANCEL_NATIVELY = "cancel natively"
    FORCE = "force_ack with a response"
    FORCE_EMPTY = "force_ack without a response"
    REPROCESS = "reprocess"
    LEAVE = "leave"
    SAME_AGAIN = "the same key again"
    OTHER_PAYLOAD = "the same key with another payload"
    FOREIGN_REPEAT = "a foreign client's second start"


@dataclass(frozen=True)
class Order:
    """One act, so many seconds after the start of the call."""

    act: Act
    after: float


@dataclass(frozen=True)
class CallScript:
    """One call.

    Attributes:
        orders: what is done to it under way.
        when_parked: what is done when it is found parked, each time the next; then it is left.
        at_its_end: what is done once it is over.
        is_refusable: its payload is invalid.
    """

    number: int
    request: CallRequest
    manner: Manner
    orders: tuple[Order, ...] = ()
    when_parked: tuple[Act, ...] = ()
    at_its_end: tuple[Act, ...] = ()
    is_refusable: bool = False


@dataclass(frozen=True)
class Kill:
    """One `kill -9`.

    Attributes:
        after: how many calls have been begun by then.
        parts: which die at the same moment.
        down: seconds until they are started again.
    """

    number: int
    after: int
    parts: tuple[str, ...]
    down: float


OPERATIONS = {
    ("shop", "order_or_park"): 30,
    ("shop", "order_or_fail"): 18,
    ("shop", "booking"): 15,
    ("shop", "quote"): 7,
    ("shop", "report"): 10,
    ("depot", "delivery"): 12,
    ("depot", "shipment"): 8,
}
"""How often each is called, in percent."""

MANNERS = {Manner.WAIT: 50, Manner.FOLLOW: 40, Manner.LEAVE: 10}

STEERING: dict[Act | None, float] = {
    Act.CANCEL: 3,
    Act.CANCEL_NATIVELY: 1,
    Act.FORCE: 1.5,
    Act.FORCE_EMPTY: 0.5,
    Act.SAME_AGAIN: 3,
    Act.OTHER_PAYLOAD: 1,
    Act.REPROCESS: 0.5,
    None: 89.5,
}
"""In percent."""

SLOWNESS: tuple[dict[str, Any] | None, ...] = (
    None,
    None,
    {"delay_ms": 700},
    {"delay_ms": 1500},
    {"silent": True},
    {"stuck": True},
    {"receipt_delay_ms": 1200},
    {"receipt_failures": 2, "delay_ms": 300},
    {"late": True, "late_ms": 300},
    {"acknowledgement_failures": 3, "delay_ms": 500},
)
"""Behaviours that leave time for steering; None leaves it to the rates."""

LONGEST_WAIT = 2.5
"""Seconds between a start and an order."""

INVALID = 0.01
FOREIGN = 0.02
"""Shares of the calls."""

WHEN_PARKED = {
    Act.LEAVE: 40,
    Act.REPROCESS: 40,
    Act.CANCEL: 7,
    Act.CANCEL_NATIVELY: 3,
    Act.FORCE: 7,
    Act.FORCE_EMPTY: 3,
}
"""In percent."""

DOWN = (0.0, 3.0)
"""Seconds a part stays away at least and at most, before it is started again."""


def rates(seed: int, factor: float = 1.0) -> Rates:
    """What the provider does of its own accord, by cycle: a bad week.

    Args:
        factor: multiplies every share.
    """
    shares = {
        name: min(1.0, value * factor)
        for name, value in (REALISTIC.model_dump() | {"malformed_receipt": 0.005}).items()
        if isinstance(value, float)
    }
    return REALISTIC.model_copy(update={**shares, "seed": seed, "extend_ms": 1000, "late_ms": 300})


def draw_call(seed: int, number: int) -> CallScript:
    """The call of this number, from 0."""
    chance = random.Random(f"{seed}:call:{number}")  # noqa: S311 -- repeatable, not secret
    provider, operation = _pick(chance, OPERATIONS)
    payload = _payload(chance, operation)
    steering = _pick(chance, STEERING)
    orders = (Order(steering, chance.uniform(0, LONGEST_WAIT)),) if steering else ()
    if orders and (behaviour := chance.choice(SLOWNESS)):
        payload["behaviour"] = behaviour
    is_refusable = chance.random() < INVALID
    if is_refusable:
        payload["unheard_of"] = True
    request = CallRequest(
        provider=provider, operation=operation, key=f"{seed}-{number}", payload=payload
    )
    return CallScript(
        number=number,
        request=request,
        # Who only starts it would never learn that it is invalid.
        manner=Manner.FOLLOW if is_refusable else _pick(chance, MANNERS),
        orders=() if is_refusable else orders,
        when_parked=tuple(_pick(chance, WHEN_PARKED) for _ in range(2)),
        at_its_end=(Act.FOREIGN_REPEAT,) if chance.random() < FOREIGN and not is_refusable else (),
        is_refusable=is_refusable,
    )


def draw_kills(seed: int, every: int, workers: tuple[str, ...]) -> Iterator[Kill]:
    """All kills, without end.

    Args:
        every: calls between two kills, on the average.
    """
    chance = random.Random(f"{seed}:kills")  # noqa: S311 -- repeatable, not secret
    victims: dict[tuple[str, ...], float] = {
        **{(worker,): 8 / len(workers) for worker in workers},
        workers: 1,
        ("gateway",): 4,
        ("engine",): 4,
        ("engine", "gateway"): 1,
        ("engine", *workers): 1,
    }
    after, number = 0, 0
    while True:
        number += 1
        after += max(1, round(every * chance.uniform(0.5, 1.5)))
        yield Kill(number, after, _pick(chance, victims), round(chance.uniform(*DOWN), 2))


def _payload(chance: random.Random, operation: str) -> dict[str, Any]:
    match operation:
        case "booking":
            return {"room": f"room {chance.randint(1, 99)}", "nights": chance.randint(1, 9)}
        case "report":
            return {"subject": f"subject {chance.randint(1, 99)}"}
        case "shipment":
            return {"destination": chance.choice(["Bergen", "Lisboa", "Kyoto"])}
        case _:
            return {"amount": chance.randint(1, 9999), "currency": "EUR"}


def _pick(chance: random.Random, shares: Mapping[Chosen, float]) -> Chosen:
    return chance.choices(list(shares), list(shares.values()))[0]
