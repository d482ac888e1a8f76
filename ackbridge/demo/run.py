"""The demo from beginning to end."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from ackbridge.catalog.loading import load_catalog
from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.errors import EngineUnavailableError
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.foreground import interrupted_by_sigterm, print_stack
from ackbridge.local.stack import Stack
from ackbridge.temporal.connect import connect
from ackbridge.terminal import output

from . import load, notifications, report
from .breaker_hold import breaker_held
from .flag_switch import Switching, switch
from .load import LoadTally
from .outage import Outage, strike
from .outcomes import Ending, play_all
from .reconciliation import Reconciliation, open_books, suppressed_since
from .records import Archive
from .scenarios import KINDS
from .short_deadlines import own_integrations, put_in_a_hurry
from .subscriber import Mailbox, mailbox

SANDBOX_OPTIONS = ("--rates", '{"duplicate": 0.1, "early": 0.05, "delay_ms": 20}')


@dataclass(frozen=True)
class DemoStack:
    """Where the demo takes place.

    Attributes:
        integrations: the folder of the stack's integration files.
        state: the folder of its state.
        box: a user's service, which is told what becomes of calls.
    """

    stack: Stack
    integrations: Path
    state: Path
    box: Mailbox


def run_demo(state: Path, calls: int, payments: int) -> int:
    """Start the stack, make the calls, reconcile. Exit 1 if anything failed or does not add up."""
    with interrupted_by_sigterm(), _venue(state) as venue:
        print_stack(venue.stack, venue.state)
        output.console.print()
        return asyncio.run(_demonstrate(venue, calls, payments))


@contextmanager
def _venue(state: Path) -> Iterator[DemoStack]:
    """The stack on its usual state, or beside it when another stack is up on that."""
    with own_integrations(state) as integrations, mailbox(integrations) as box:
        stack = _stack(state, integrations)
        try:
            stack.start()
        except EngineUnavailableError as error:
            if "another embedded engine" not in str(error):
                raise
            state = state.with_name(f"{state.name}-{os.getpid()}")
            stack = _stack(state, integrations)
            stack.start()
        try:
            yield DemoStack(stack, integrations, state, box)
        finally:
            stack.stop()


def _stack(state: Path, integrations: Path) -> Stack:
    return Stack(
        state, environ=os.environ, integrations=integrations, sandbox_options=SANDBOX_OPTIONS
    )


async def _demonstrate(venue: DemoStack, calls: int, payments: int) -> int:
    run = uuid.uuid4().hex[:6]
    tallies = [load.orders(run, calls), load.payments(run, payments)]
    async with _archive(venue.stack) as archive:
        before = (await archive.ledger.counts())["suppressed"]
        await load.make(archive.calls, tallies)
        output.console.print(report.what_happened(tallies))
        switched = await _switch(venue, archive, run)
        async with breaker_held(archive):
            outage = await _strike(archive, run)
            await suppressed_since(archive, before)
            endings = await _show_endings(venue, archive, run)
        suppressed = await suppressed_since(archive, before)
        others = [switched.tally, outage.tally]
        books = await _books(archive, [*tallies, *others], endings, suppressed)
        early = (await archive.summary())["early"]
        untold = await _show_people(venue, archive, run)
    venue.stack.check()
    checks = list(books.checks(load_catalog(venue.integrations, venue.stack.environment)))
    output.console.print(report.reconciliation(checks, early))
    troubles = [line for tally in tallies for line in tally.troubles]
    troubles += [*switched.troubles, *outage.troubles, *untold]
    output.console.print(report.troubles(troubles, endings))
    output.console.print(report.where_to_look(endings, venue.state), soft_wrap=True)
    return report.verdict(troubles, endings, checks)


async def _switch(venue: DemoStack, archive: Archive, run: str) -> Switching:
    """In the middle: a flag is switched off, and on again."""
    environment = venue.stack.environment.get("ACKBRIDGE_ENVIRONMENT", "dev")
    switched = await switch(archive, run, environment)
    output.console.print(report.switching(switched))
    return switched


async def _strike(archive: Archive, run: str) -> Outage:
    """Then the provider is away for a while, and a batch takes up what was parked."""
    output.console.print(report.outage_begins())
    outage = await strike(archive, run)
    output.console.print(report.outage_is_over(outage))
    return outage


async def _show_endings(venue: DemoStack, archive: Archive, run: str) -> list[Ending]:
    """The second part: one call of each kind of end, under deadlines that one can wait for."""
    changes = put_in_a_hurry(venue.integrations)
    output.console.print(report.introduction(changes, len(KINDS)))
    await _read_integrations_again(venue.stack)
    endings = await play_all(archive, KINDS, run)
    for number, ending in enumerate(endings, 1):
        output.console.print(report.ending(number, ending))
    return endings


async def _show_people(venue: DemoStack, archive: Archive, run: str) -> list[str]:
    """The people who wait; answers with how what they were told is not as it should be."""
    output.console.print(notifications.introduction())
    told = await notifications.tell_people(archive, venue.box, run)
    output.console.print(notifications.report(told, venue.box))
    return [trouble for one in told for trouble in one.troubles]


@asynccontextmanager
async def _archive(stack: Stack) -> AsyncIterator[Archive]:
    ledger = Ledger.open(stack.environment["ACKBRIDGE_LEDGER_URL"], utc_now)
    try:
        engine = await connect(stack.environment)
        async with httpx.AsyncClient(trust_env=False) as http:
            yield Archive(AckbridgeClient(engine), engine, ledger, http, stack.addresses.sandbox)
    finally:
        await ledger.close()


async def _read_integrations_again(stack: Stack) -> None:
    """Worker and gateway read them when they start."""
    restarts = (asyncio.to_thread(stack.restart, part) for part in ("worker", "gateway"))
    await asyncio.gather(*restarts)


async def _books(
    archive: Archive, tallies: Sequence[LoadTally], endings: Sequence[Ending], suppressed: int
) -> Reconciliation:
    outcomes = [outcome for tally in tallies for outcome in tally.outcomes]
    outcomes += [ending.scene.outcome for ending in endings if ending.scene.outcome]
    call_ids = {request.call_id for tally in tallies for request in tally.requests}
    call_ids |= {ending.call_id for ending in endings}
    plain = {outcome.call_id for outcome in tallies[0].outcomes}
    return await open_books(archive, outcomes, plain, call_ids, suppressed)
