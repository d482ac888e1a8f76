"""Calls that name a subscriber, and the notices that it receives about them."""

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

from . import scenarios
from .records import PROVIDER, RecordSources
from .report import quote_notice
from .scenario_run import DemoCall, wait_until
from .subscriber import NAME, DemoSubscriber


@dataclass(frozen=True)
class NotifiedCall:
    """A call whose subscriber gets notices of these types, in order."""

    name: str
    operation: str
    behaviour: dict[str, Any]
    script: Callable[[DemoCall], Awaitable[None]]
    notices: tuple[str, ...]
    language: str | None = None

    def request(self, run: str) -> CallRequest:
        return CallRequest(
            provider=PROVIDER,
            operation=self.operation,
            key=f"demo-{run}-told-{self.name}",
            payload={**scenarios.PAYLOADS[self.operation], "behaviour": self.behaviour},
            reply_to=NAME,
            language=self.language,
        )


CALLS = (
    NotifiedCall("in-time", "create_order", {}, scenarios.await_outcome, ("call.completed",)),
    NotifiedCall(
        "late",
        "create_booking",
        {"resets": 5},
        scenarios.reprocess,
        ("call.delayed", "call.completed_late"),
    ),
    NotifiedCall(
        "failed",
        "create_booking",
        {"fail": 100, "reason": "ORA-00600 in table ROOMS"},
        scenarios.await_outcome,
        ("call.failed",),
    ),
    NotifiedCall(
        "refused",
        "create_order",
        {"refuse": 422},
        scenarios.await_outcome,
        ("call.failed",),
        language="de-AT",
    ),
    NotifiedCall(
        "cancelled",
        "create_order",
        {"stuck": True},
        scenarios.cancel,
        ("call.cancelled",),
        language="fr",
    ),
)


@dataclass(frozen=True)
class NotificationResult:
    call: NotifiedCall
    notices: Sequence[NoticeBody]
    problems: Sequence[str]


async def run_notifications(
    sources: RecordSources, subscriber: DemoSubscriber, run: str
) -> list[NotificationResult]:
    return list(await asyncio.gather(*(_run(sources, subscriber, call, run) for call in CALLS)))


async def _run(
    sources: RecordSources, subscriber: DemoSubscriber, call: NotifiedCall, run: str
) -> NotificationResult:
    demo_call = DemoCall(sources, call.request(run))
    call_id = demo_call.request.call_id
    problems = []

    async def is_notified() -> bool:
        return len(subscriber.notices_of(call_id)) >= len(call.notices)

    try:
        await call.script(demo_call)
        await wait_until(is_notified)
    except (AckbridgeError, TimeoutError) as error:
        problems.append(f"{call_id}: {error or type(error).__name__}")
    notices = subscriber.notices_of(call_id)
    found = tuple(notice.type for notice in notices)
    if found != call.notices:
        problems.append(f"{call_id}: expected the notices {call.notices}, received {found}")
    if [notice.call.sequence for notice in notices] != list(range(1, len(notices) + 1)):
        problems.append(f"{call_id}: its notices are not numbered 1, 2, ...")
    return NotificationResult(call, notices, problems)


def introduction() -> RenderableType:
    return Group(
        Text("\nNotices to a subscriber", style="bold"),
        Text(
            f"{len(CALLS)} calls name the subscriber “{NAME}”, a service that this demo runs. It"
            " receives signed notices about them (Standard Webhooks), each delivered by its own"
            " workflow, and accepts only notices that verify. It received:\n"
        ),
    )


def table(results: Sequence[NotificationResult], subscriber: DemoSubscriber) -> RenderableType:
    rows = [row for result in results for row in _rows(result)]
    columns = ("call", "notice", "at", "the user reads")
    rejected = f"; {subscriber.rejected} were rejected" if subscriber.rejected else ""
    return Group(
        output.table("", columns, rows),
        Text(f"{len(rows)} signatures verified{rejected}.", style="dim"),
    )


def _rows(result: NotificationResult) -> Iterator[tuple[str, ...]]:
    language = f" ({result.call.language})" if result.call.language else ""
    for notice in result.notices:
        yield (
            f"{result.call.operation} “{result.call.name}”{language}",
            f"{notice.call.sequence}. {notice.type}",
            f"{notice.timestamp:%H:%M:%S}",
            quote_notice(notice.call.notice) if notice.call.notice else "",
        )
