"""The people who wait: calls that name a subscriber, and what its service was told about them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.deliveries import NoticeBody
from ackbridge.errors import AckbridgeError
from ackbridge.terminal import output

from . import caller_scripts, narration
from .records import PROVIDER, Archive
from .scenario_run import DemoCall, until
from .subscriber import NAME, Mailbox

ORDER = {"amount": 4200, "currency": "EUR"}
BOOKING = {"room": "attic", "nights": 2}


@dataclass(frozen=True)
class Waiting:
    """A call whose user waits elsewhere.

    Attributes:
        name: for its key.
        told: the types of what the service has to be told, in order.
    """

    name: str
    operation: str
    payload: dict[str, Any]
    behaviour: dict[str, Any]
    script: Callable[[DemoCall], Awaitable[None]]
    told: tuple[str, ...]
    language: str | None = None

    def request(self, run: str) -> CallRequest:
        """The call, in one run of the demo."""
        return CallRequest(
            provider=PROVIDER,
            operation=self.operation,
            key=f"demo-{run}-told-{self.name}",
            payload={**self.payload, "behaviour": self.behaviour},
            reply_to=NAME,
            language=self.language,
        )


CALLS = (
    Waiting("in-time", "create_order", ORDER, {}, caller_scripts.await_it, ("call.completed",)),
    Waiting(
        "late",
        "create_booking",
        BOOKING,
        {"resets": 5},
        caller_scripts.take_it_up_again,
        ("call.delayed", "call.completed_late"),
    ),
    Waiting(
        "failed",
        "create_booking",
        BOOKING,
        {"fail": 100, "reason": "ORA-00600 in table ROOMS"},
        caller_scripts.see_it_parked,
        ("call.delayed", "call.failed"),
    ),
    Waiting(
        "refused",
        "create_order",
        ORDER,
        {"refuse": 422},
        caller_scripts.await_it,
        ("call.failed",),
        language="de-AT",
    ),
    Waiting(
        "cancelled",
        "create_order",
        ORDER,
        {"stuck": True},
        caller_scripts.change_ones_mind,
        ("call.cancelled",),
        language="fr",
    ),
)


@dataclass(frozen=True)
class Told:
    """One of them, and what the service got about it.

    Attributes:
        troubles: how that is not what it should be; none when it is.
    """

    waiting: Waiting
    notices: Sequence[NoticeBody]
    troubles: Sequence[str]


async def tell_people(archive: Archive, box: Mailbox, run: str) -> list[Told]:
    """Make the calls, all at the same time, and wait until the service has been told."""
    return list(await asyncio.gather(*(_tell(archive, box, one, run) for one in CALLS)))


async def _tell(archive: Archive, box: Mailbox, waiting: Waiting, run: str) -> Told:
    scene = DemoCall(archive, waiting.request(run))
    call_id = scene.request.call_id
    troubles = []

    async def is_told() -> bool:
        return len(box.about(call_id)) >= len(waiting.told)

    try:
        await waiting.script(scene)
        await until(is_told)
    except (AckbridgeError, TimeoutError) as error:
        troubles.append(f"{call_id}: {error or type(error).__name__}")
    notices = box.about(call_id)
    found = tuple(notice.type for notice in notices)
    if found != waiting.told:
        troubles.append(f"{call_id}: its service was told {found}, and not {waiting.told}")
    if [notice.data.sequence for notice in notices] != list(range(1, len(notices) + 1)):
        troubles.append(f"{call_id}: its notices do not say their order")
    return Told(waiting, notices, troubles)


def introduction() -> RenderableType:
    """What this part is."""
    return Group(
        Text("\nThe people who wait", style="bold"),
        Text(
            f"{len(CALLS)} calls name the subscriber “{NAME}”, a service that this demo runs. It is"
            " told what becomes of them by signed notices (Standard Webhooks), each delivered by a"
            " workflow of its own; it takes only what verifies. What it got:\n"
        ),
    )


def report(told: Sequence[Told], box: Mailbox) -> RenderableType:
    """What the service got, call by call."""
    rows = [row for one in told for row in _rows(one)]
    table = output.table("", ("call", "notice", "at", "what the user reads"), rows)
    refused = f"; {box.refused} were refused" if box.refused else ""
    return Group(table, Text(f"{len(rows)} signatures verified{refused}.", style="dim"))


def _rows(told: Told) -> Iterator[tuple[str, ...]]:
    for notice in told.notices:
        data = notice.data
        language = f" ({told.waiting.language})" if told.waiting.language else ""
        yield (
            f"{told.waiting.operation} “{told.waiting.name}”{language}",
            f"{data.sequence}. {notice.type}",
            f"{notice.timestamp:%H:%M:%S}",
            narration.quote(data.notice) if data.notice else "",
        )
