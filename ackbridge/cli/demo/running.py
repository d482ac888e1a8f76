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

from ackbridge.catalog import load_catalog
from ackbridge.cli import show
from ackbridge.cli.stack import Stack
from ackbridge.cli.up import addresses, told_to_stop
from ackbridge.client import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.engine import connect
from ackbridge.errors import EngineUnavailable
from ackbridge.ledger import Ledger

from . import crowd, people, report
from .crowd import Tally
from .endings import Ending, play_all
from .holding import breaker_held
from .hurry import own_integrations, put_in_a_hurry
from .kinds import KINDS
from .mailbox import Mailbox, mailbox
from .outage import Outage, strike
from .reconciling import Books, open_books, suppressed_since
from .records import Archive
from .switching import Switching, switch

SANDBOX_OPTIONS = ("--rates", '{"duplicate": 0.1, "early": 0.05, "delay_ms": 20}')


@dataclass(frozen=True)
class Venue:
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
    with told_to_stop(), _venue(state) as venue:
        show.console.print(addresses(venue.stack, venue.state))
        command = f"engine: {venue.stack.engine_command}\n"
        show.console.print(command, style="dim", soft_wrap=True)
        return asyncio.run(_demonstrate(venue, calls, payments))


@contextmanager
def _venue(state: Path) -> Iterator[Venue]:
    """The stack on its usual state, or beside it when another stack is up on that."""
    with own_integrations(state) as integrations, mailbox(integrations) as box:
        stack = _stack(state, integrations)
        try:
            stack.start()
        except EngineUnavailable as error:
            if "another embedded engine" not in str(error):
                raise
            state = state.with_name(f"{state.name}-{os.getpid()}")
            stack = _stack(state, integrations)
            stack.start()
        try:
            yield Venue(stack, integrations, state, box)
        finally:
            stack.stop()


def _stack(state: Path, integrations: Path) -> Stack:
    return Stack(
        state, environ=os.environ, integrations=integrations, sandbox_options=SANDBOX_OPTIONS
    )


async def _demonstrate(venue: Venue, calls: int, payments: int) -> int:
    run = uuid.uuid4().hex[:6]
    tallies = [crowd.orders(run, calls), crowd.payments(run, payments)]
    async with _archive(venue.stack) as archive:
        before = (await archive.ledger.counts())["suppressed"]
        await crowd.make(archive.calls, tallies)
        show.console.print(report.what_happened(tallies))
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
    show.console.print(report.reconciliation(checks, early))
    troubles = [line for tally in tallies for line in tally.troubles]
    troubles += [*switched.troubles, *outage.troubles, *untold]
    show.console.print(report.troubles(troubles, endings))
    show.console.print(report.where_to_look(endings, venue.state), soft_wrap=True)
    return report.verdict(troubles, endings, checks)


async def _switch(venue: Venue, archive: Archive, run: str) -> Switching:
    """In the middle: a flag is switched off, and on again."""
    environment = venue.stack.environment.get("ACKBRIDGE_ENVIRONMENT", "dev")
    switched = await switch(archive, run, environment)
    show.console.print(report.switching(switched))
    return switched


async def _strike(archive: Archive, run: str) -> Outage:
    """Then the provider is away for a while, and a batch takes up what was parked."""
    show.console.print(report.outage_begins())
    outage = await strike(archive, run)
    show.console.print(report.outage_is_over(outage))
    return outage


async def _show_endings(venue: Venue, archive: Archive, run: str) -> list[Ending]:
    """The second part: one call of each kind of end, under deadlines that one can wait for."""
    changes = put_in_a_hurry(venue.integrations)
    show.console.print(report.introduction(changes, len(KINDS)))
    await _read_integrations_again(venue.stack)
    endings = await play_all(archive, KINDS, run)
    for number, ending in enumerate(endings, 1):
        show.console.print(report.ending(number, ending))
    return endings


async def _show_people(venue: Venue, archive: Archive, run: str) -> list[str]:
    """The people who wait; answers with how what they were told is not as it should be."""
    show.console.print(people.introduction())
    told = await people.tell_people(archive, venue.box, run)
    show.console.print(people.report(told, venue.box))
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
    archive: Archive, tallies: Sequence[Tally], endings: Sequence[Ending], suppressed: int
) -> Books:
    outcomes = [outcome for tally in tallies for outcome in tally.outcomes]
    outcomes += [ending.scene.outcome for ending in endings if ending.scene.outcome]
    call_ids = {request.call_id for tally in tallies for request in tally.requests}
    call_ids |= {ending.call_id for ending in endings}
    plain = {outcome.call_id for outcome in tallies[0].outcomes}
    return await open_books(archive, outcomes, plain, call_ids, suppressed)
