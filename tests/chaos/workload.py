"""The workload that a seed determines: every call, the actions on it, and every kill.

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


class Lane(StrEnum):
    """The lane of the calls of a run. In `both`, every second operation has `lane: bulk`, and
    `call_many` is used for all of them."""

    SINGLE = "single"
    BULK = "bulk"
    BOTH = "both"


class CallStyle(StrEnum):
    """How a service makes its call: starting and waiting in one request, one after the other,
    starting alone, or with `call_many` in a process that is killed now and then."""

    WAIT = "start and wait"
    FOLLOW = "start, then follow"
    LEAVE = "start"
    MANY = "call_many"


class Action(StrEnum):
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
class ScheduledAction:
    """One act, so many seconds after the start of the call."""

    act: Action
    after: float


@dataclass(frozen=True)
class PlannedCall:
    """One call.

    Attributes:
        orders: actions while it runs.
        when_parked: one action for each time it is found parked; then it stays parked.
        at_its_end: actions once it has ended.
        is_refusable: its payload is invalid.
    """

    number: int
    request: CallRequest
    manner: CallStyle
    orders: tuple[ScheduledAction, ...] = ()
    when_parked: tuple[Action, ...] = ()
    at_its_end: tuple[Action, ...] = ()
    is_refusable: bool = False


@dataclass(frozen=True)
class Kill:
    """One `kill -9`.

    Attributes:
        after: how many calls have been begun by then.
        parts: the processes to kill at the same moment.
        down: seconds until they are started again.
    """

    number: int
    after: int
    parts: tuple[str, ...]
    down: float


OPERATIONS = {
    ("shop", "order_or_park"): 22,
    ("shop", "transfer"): 8,
    ("shop", "order_or_fail"): 18,
    ("shop", "booking"): 15,
    ("shop", "quote"): 7,
    ("shop", "report"): 10,
    ("depot", "delivery"): 12,
    ("depot", "shipment"): 8,
}
"""How often each is called, in percent."""

BULK_OPERATIONS = OPERATIONS | {("shop", "charter"): 12}
"""Those of runs with the bulk lane: one waits for longer than a call stays in its host."""

MANY = {Lane.SINGLE: 0.0, Lane.BULK: 0.6, Lane.BOTH: 0.4}
"""Share of the calls that `call_many` makes."""

LONG_DELAYS: tuple[int | None, ...] = (None, 9_000, 10_500, 12_000, 60_000)
"""Milliseconds until the provider answers a charter; the last one is after its deadline."""

MANNERS = {CallStyle.WAIT: 50, CallStyle.FOLLOW: 40, CallStyle.LEAVE: 10}

STEERING: dict[Action | None, float] = {
    Action.CANCEL: 3,
    Action.CANCEL_NATIVELY: 1,
    Action.FORCE: 1.5,
    Action.FORCE_EMPTY: 0.5,
    Action.SAME_AGAIN: 3,
    Action.OTHER_PAYLOAD: 1,
    Action.REPROCESS: 0.5,
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
    {"delay_ms": 2500, "acknowledgement_down_ms": 4000},
)
"""Behaviours that leave time for an action; None leaves it to the fault rates."""

LONGEST_WAIT = 2.5
"""Seconds between a start and an action."""

INVALID = 0.01
FOREIGN = 0.02
"""Shares of the calls."""

WHEN_PARKED = {
    Action.LEAVE: 40,
    Action.REPROCESS: 40,
    Action.CANCEL: 7,
    Action.CANCEL_NATIVELY: 3,
    Action.FORCE: 7,
    Action.FORCE_EMPTY: 3,
}
"""In percent."""

DOWN = (0.0, 3.0)
"""Seconds a part stays away at least and at most, before it is started again."""


def rates(seed: int, factor: float = 1.0) -> Rates:
    """The fault rates of the provider.

    Args:
        factor: multiplies every share.
    """
    shares = {
        name: min(1.0, value * factor)
        for name, value in (REALISTIC.model_dump() | {"malformed_receipt": 0.005}).items()
        if isinstance(value, float)
    }
    return REALISTIC.model_copy(update={**shares, "seed": seed, "extend_ms": 1000, "late_ms": 300})


def operations(lane: Lane) -> Mapping[tuple[str, str], int]:
    """How often each is called in a run."""
    return OPERATIONS if lane is Lane.SINGLE else BULK_OPERATIONS


def draw_call(seed: int, number: int, lane: Lane = Lane.SINGLE) -> PlannedCall:
    """The call of this number, from 0."""
    chance = random.Random(f"{seed}:call:{number}")  # noqa: S311 -- repeatable, not secret
    provider, operation = _pick(chance, operations(lane))
    payload = _payload(chance, operation)
    steering = _pick(chance, STEERING)
    orders = (ScheduledAction(steering, chance.uniform(0, LONGEST_WAIT)),) if steering else ()
    if orders and (behaviour := chance.choice(SLOWNESS)):
        payload["behaviour"] = behaviour
    elif operation == "charter" and (delay := chance.choice(LONG_DELAYS)):
        payload["behaviour"] = {"delay_ms": delay}
    is_refusable = chance.random() < INVALID
    if is_refusable:
        payload["unheard_of"] = True
    request = CallRequest(
        provider=provider, operation=operation, key=f"{seed}-{number}", payload=payload
    )
    # Who only starts it would never learn that it is invalid.
    manner = CallStyle.FOLLOW if is_refusable else _pick(chance, MANNERS)
    is_many = random.Random(f"{seed}:many:{number}").random() < MANY[lane]  # noqa: S311 -- as above
    return PlannedCall(
        number=number,
        request=request,
        manner=CallStyle.MANY if is_many else manner,
        orders=() if is_refusable else orders,
        when_parked=tuple(_pick(chance, WHEN_PARKED) for _ in range(2)),
        at_its_end=(Action.FOREIGN_REPEAT,)
        if chance.random() < FOREIGN and not is_refusable
        else (),
        is_refusable=is_refusable,
    )


def draw_kills(
    seed: int, every: int, workers: tuple[str, ...], callers: tuple[str, ...] = ()
) -> Iterator[Kill]:
    """All kills, without end.

    Args:
        every: calls between two kills, on the average.
        callers: processes that make calls, and are killed, too.
    """
    chance = random.Random(f"{seed}:kills")  # noqa: S311 -- repeatable, not secret
    victims: dict[tuple[str, ...], float] = {
        **{(worker,): 8 / len(workers) for worker in workers},
        workers: 1,
        ("gateway",): 4,
        ("engine",): 4,
        ("engine", "gateway"): 1,
        ("engine", *workers): 1,
        **{(caller,): 5 for caller in callers},
        **{(caller, *workers): 1 for caller in callers},
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
