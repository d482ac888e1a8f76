"""The demo from start to end."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console

from ackbridge.catalog.loading import load_catalog
from ackbridge.client.calls import AckbridgeClient
from ackbridge.clock import utc_now
from ackbridge.contracts.breaker import BreakerState, ForceBreaker
from ackbridge.errors import EngineUnavailableError
from ackbridge.ledger.ledger import Ledger
from ackbridge.local.foreground import interrupted_by_sigterm, print_stack
from ackbridge.local.stack import Stack
from ackbridge.security.encryption import load_encryption
from ackbridge.temporal.connect import connect
from ackbridge.terminal import output

from . import load, notifications, report
from .flag_switch import FlagSwitchResult, run_flag_switch
from .load import LoadResult
from .outage import OutageResult, run_outage
from .page import write_page
from .reconciliation import Reconciliation, read_reconciliation, wait_for_suppressed
from .records import OPERATOR, PROVIDER, RecordSources
from .scenarios import SCENARIOS, ScenarioResult, run_scenarios
from .short_deadlines import copy_integrations, shorten_deadlines
from .subscriber import DemoSubscriber, run_subscriber

SANDBOX_OPTIONS = ("--rates", '{"duplicate": 0.1, "early": 0.05, "delay_ms": 20}')


_SILENT = Console(quiet=True)
"""Where steps go that are not printed."""


@dataclass(frozen=True)
class DemoStack:
    """The stack, the folders of its integration files and its state, and the subscriber."""

    stack: Stack
    integrations: Path
    state: Path
    subscriber: DemoSubscriber


def run_demo(state: Path, calls: int, payments: int, *, is_verbose: bool = False) -> int:
    """Start the stack, make the calls, reconcile. Exit 1 if anything is not as expected.

    Args:
        is_verbose: print every step as it happens; otherwise what happened, in at most 60 lines.
    """
    with interrupted_by_sigterm(), _start(state) as demo_stack:
        print_stack(demo_stack.stack, demo_stack.state)
        output.console.print()
        steps = output.console if is_verbose else _SILENT
        return asyncio.run(_run(demo_stack, calls, payments, steps))


@contextmanager
def _start(state: Path) -> Iterator[DemoStack]:
    """The stack on its usual state, or on a state beside it while another stack uses that."""
    with copy_integrations(state) as integrations, run_subscriber(integrations) as subscriber:
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
            yield DemoStack(stack, integrations, state, subscriber)
        finally:
            stack.stop()


def _stack(state: Path, integrations: Path) -> Stack:
    return Stack(
        state, environ=os.environ, integrations=integrations, sandbox_options=SANDBOX_OPTIONS
    )


async def _run(demo_stack: DemoStack, calls: int, payments: int, steps: Console) -> int:
    run = uuid.uuid4().hex[:6]
    loads = [load.orders(run, calls), load.payments(run, payments)]
    async with _open_sources(demo_stack.stack) as sources:
        before = (await sources.ledger.counts())["suppressed"]
        await load.run_load(sources.calls, loads)
        output.console.print(report.load_table(loads))
        flag_switch = await _flag_switch(demo_stack, sources, run, steps)
        async with _hold_breaker(sources):
            outage = await _outage(sources, run, steps)
            await wait_for_suppressed(sources, before)
            results = await _scenarios(demo_stack, sources, run, steps)
        suppressed = await wait_for_suppressed(sources, before)
        others = [flag_switch.load, outage.load]
        reconciliation = await _reconciliation(sources, [*loads, *others], results, suppressed)
        early = (await sources.summary())["early"]
        notified = await _notifications(demo_stack, sources, run, steps)
    demo_stack.stack.check()
    catalog = load_catalog(demo_stack.integrations, demo_stack.stack.environment)
    checks = list(reconciliation.checks(catalog))
    steps.print(report.reconciliation(checks, early))
    if steps is _SILENT:
        output.console.print(report.scenario_table(results))
        output.console.print(report.in_short(flag_switch, outage, checks, len(notified)))
    page = demo_stack.state / "demo.html"
    write_page(page, results)
    notification_problems = [problem for one in notified for problem in one.problems]
    problems = [line for one in loads for line in one.errors]
    problems += [*flag_switch.problems, *outage.problems, *notification_problems]
    output.console.print(report.problems(problems, results))
    output.console.print(report.where_to_look(results, demo_stack.state, page), soft_wrap=True)
    return report.exit_code(problems, results, checks)


async def _flag_switch(
    demo_stack: DemoStack, sources: RecordSources, run: str, steps: Console
) -> FlagSwitchResult:
    environment = demo_stack.stack.environment.get("ACKBRIDGE_ENVIRONMENT", "dev")
    result = await run_flag_switch(sources, run, environment)
    steps.print(report.flag_switch(result))
    return result


async def _outage(sources: RecordSources, run: str, steps: Console) -> OutageResult:
    steps.print(report.outage_introduction())
    result = await run_outage(sources, run)
    steps.print(report.outage(result))
    return result


async def _scenarios(
    demo_stack: DemoStack, sources: RecordSources, run: str, steps: Console
) -> list[ScenarioResult]:
    changes = shorten_deadlines(demo_stack.integrations)
    steps.print(report.scenarios_introduction(changes, len(SCENARIOS)))
    # Worker and gateway read integration files when they start.
    restarts = (asyncio.to_thread(demo_stack.stack.restart, part) for part in ("worker", "gateway"))
    await asyncio.gather(*restarts)
    results = await run_scenarios(sources, SCENARIOS, run)
    for number, result in enumerate(results, 1):
        steps.print(report.scenario(number, result))
    return results


async def _notifications(
    demo_stack: DemoStack, sources: RecordSources, run: str, steps: Console
) -> Sequence[notifications.NotificationResult]:
    steps.print(notifications.introduction())
    results = await notifications.run_notifications(sources, demo_stack.subscriber, run)
    steps.print(notifications.table(results, demo_stack.subscriber))
    return results


@asynccontextmanager
async def _open_sources(stack: Stack) -> AsyncIterator[RecordSources]:
    ledger = Ledger.open(
        stack.environment["ACKBRIDGE_LEDGER_URL"],
        utc_now,
        encryption=load_encryption(stack.environment),
    )
    try:
        client = await connect(stack.environment)
        calls = AckbridgeClient(client)
        async with httpx.AsyncClient(trust_env=False) as http:
            yield RecordSources(calls, client, ledger, http, stack.addresses.sandbox)
    finally:
        await ledger.close()


@asynccontextmanager
async def _hold_breaker(sources: RecordSources) -> AsyncIterator[None]:
    """Hold the breaker closed: the faults that follow would open it, and stop the sends."""
    control = sources.calls.control(PROVIDER)
    reason = "the demo injects faults"
    await control.force_breaker(ForceBreaker(state=BreakerState.CLOSED, by=OPERATOR, reason=reason))
    try:
        yield
    finally:
        await control.force_breaker(
            ForceBreaker(state=None, by=OPERATOR, reason="the demo is over")
        )


async def _reconciliation(
    sources: RecordSources,
    loads: Sequence[LoadResult],
    results: Sequence[ScenarioResult],
    suppressed: int,
) -> Reconciliation:
    outcomes = [outcome for one in loads for outcome in one.outcomes]
    outcomes += [result.demo_call.outcome for result in results if result.demo_call.outcome]
    call_ids = {request.call_id for one in loads for request in one.requests}
    call_ids |= {result.call_id for result in results}
    plain = {outcome.call_id for outcome in loads[0].outcomes}
    return await read_reconciliation(sources, outcomes, plain, call_ids, suppressed)
