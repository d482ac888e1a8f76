"""One run from the first process to the report."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import count, islice
from pathlib import Path

import yaml
from temporalio.client import Client

from ackbridge.catalog.catalog import Catalog
from ackbridge.catalog.loading import load_catalog
from ackbridge.local.stack import Stack, worker_names
from ackbridge.temporal.connect import connect
from ackbridge.terminal import output

from .caller import Caller
from .callers import BulkLane, Callers
from .cases import Case, Operation, Totals
from .history_reader import read_histories
from .ledger_reader import StageWatch, read_ledger
from .many_client import CALLER, ManyClient
from .process_killer import Parts, ProcessKiller, StartedCalls
from .provider_reader import read_provider
from .quiescence import read_activity, wait_until_quiet
from .reconciliation import reconcile
from .records import LedgerRecord, ProviderRecord
from .report import Report
from .workload import Lane, draw_call, draw_kills, rates

INTEGRATIONS = Path(__file__).with_name("integrations")
OUTLIVES = timedelta(hours=1)
"""A parked call that may stay longer than this counts as quiet; others end during the run."""


@dataclass(frozen=True)
class Options:
    """Options of a run.

    Attributes:
        calls: how many; None for as many as the time allows.
        lasts: how long calls are started; None until all are.
        seed: of everything that is drawn.
        rate: calls begun in a second.
        at_once: callers that may be under way at the same time.
        workers: worker processes.
        kill_every: calls between two kills, on the average.
        kills: how many at the most; None for as many as come.
        faults: multiplies the provider's rates.
        lane: of the calls.
        queries: whether callers ask by query, too.
        settles_within: how long the calls may take to become quiet after the last kill.
    """

    calls: int | None
    lasts: timedelta | None
    seed: int
    rate: float = 12.0
    at_once: int = 80
    workers: int = 2
    kill_every: int = 60
    kills: int | None = None
    faults: float = 1.0
    lane: Lane = Lane.SINGLE
    queries: bool = False
    settles_within: timedelta = timedelta(seconds=150)

    @property
    def gives_up_after(self) -> timedelta:
        """How long a caller waits for anything."""
        return self.settles_within


def run(options: Options, state: Path) -> Report:
    """Run the stack, the callers and the kills; wait; reconcile.

    Args:
        state: an empty folder for the engine's and the ledger's files, and the logs.

    Raises:
        AckbridgeError: the stack does not start, or a part does not come back.
    """
    began = time.monotonic()
    integrations = write_integrations(state / "integrations", options.lane)
    stack = Stack(
        state,
        environ=os.environ,
        integrations=integrations,
        sandbox_options=(
            *("--rates", rates(options.seed, options.faults).model_dump_json()),
            *("--keep", "10000000"),
        ),
        parts=("sandbox", "worker", "gateway"),
        workers=options.workers,
    )
    with stack:
        return asyncio.run(_Run(options, stack, state, integrations, began).conduct())


def write_integrations(folder: Path, lane: Lane) -> Path:
    """The integration files of a run, with the lane of each operation; gives the folder."""
    folder.mkdir(parents=True)
    for path in sorted(INTEGRATIONS.glob("*.yaml")):
        integration = yaml.safe_load(path.read_text())
        for number, operation in enumerate(integration["operations"].values()):
            is_bulk = lane is Lane.BULK or (lane is Lane.BOTH and number % 2)
            operation["lane"] = "bulk" if is_bulk else "single"
        (folder / path.name).write_text(yaml.safe_dump(integration, sort_keys=False))
    return folder


class _Run:
    """The asynchronous part of a run."""

    def __init__(
        self, options: Options, stack: Stack, state: Path, integrations: Path, began: float
    ) -> None:
        self._options = options
        self._stack = stack
        self._state = state
        self._began = began
        self._begun = StartedCalls()
        self._catalog: Catalog = load_catalog(integrations, stack.environment)

    async def conduct(self) -> Report:
        """Start calls, kill processes, wait until all is quiet, and reconcile."""
        if self._options.lane is Lane.SINGLE:
            return await self._conduct_with(None)
        folder = self._state / CALLER
        folder.mkdir()
        many = ManyClient(folder, self._stack.log(CALLER), self._stack.environment)
        try:
            await asyncio.to_thread(many.process.start)
            return await self._conduct_with(many)
        finally:
            if many.process.is_running:
                many.process.kill(signal.SIGKILL)

    async def _conduct_with(self, many: ManyClient | None) -> Report:
        client = await connect(self._stack.environment)
        workers = worker_names(self._options.workers)
        callers = (many.process.name,) if many is not None else ()
        parts = Parts(self._stack, *((many.process,) if many is not None else ()))
        killer = ProcessKiller(parts, (*workers, *callers, "gateway", "engine"))
        kills = draw_kills(self._options.seed, self._options.kill_every, workers, callers)
        kills = islice(kills, self._options.kills)
        async with asyncio.TaskGroup() as beside:
            bulk = self._bulk_lane(many) if many is not None else None
            watching = [beside.create_task(killer.supervise())]
            if bulk is not None:
                watching.append(beside.create_task(bulk.stages.run()))
                watching.append(beside.create_task(bulk.client.take_answers()))
            killing = beside.create_task(killer.run(kills, self._begun))
            making = await self._begin_calls(client, bulk)
            await self._begun.close()
            await killing
            await killer.everything_back()
            made = await self._finish(making)
            await self._wait_until_quiet(client)
            for task in watching:
                task.cancel()
        # The provider is a record: a run without it could not be judged.
        self._stack.check()
        (self._state / "kills.txt").write_text("\n".join(killer.log) + "\n")
        return await self._reconcile(client, made, killer)

    def _bulk_lane(self, many: ManyClient) -> BulkLane:
        return BulkLane(
            many,
            StageWatch(self._ledger),
            frozenset(
                (provider, operation)
                for provider, integration in self._catalog.integrations.items()
                for operation, described in integration.operations.items()
                if described.lane == "bulk"
            ),
        )

    async def _begin_calls(
        self, client: Client, bulk: BulkLane | None
    ) -> list[asyncio.Task[Caller]]:
        """Start the calls at the rate, or more slowly when too many are in progress."""
        options = self._options
        callers = Callers(client, options.gives_up_after, queries=options.queries, bulk=bulk)
        places = asyncio.Semaphore(options.at_once)
        until = options.lasts and time.monotonic() + options.lasts.total_seconds()
        tasks: list[asyncio.Task[Caller]] = []
        numbers: Iterator[int] = count() if options.calls is None else iter(range(options.calls))
        for number in numbers:
            if until and time.monotonic() > until:
                break
            await places.acquire()
            task = asyncio.create_task(
                callers.make(draw_call(options.seed, number, options.lane), self._begun.one_more)
            )
            task.add_done_callback(lambda _: places.release())
            tasks.append(task)
            await asyncio.sleep(1 / options.rate)
            if number % 100 == 99:
                self._say(f"{number + 1} calls started")
        return tasks

    async def _finish(self, making: list[asyncio.Task[Caller]]) -> list[Caller]:
        self._say("no more kills; waiting for the callers")
        return await asyncio.gather(*making)

    async def _wait_until_quiet(self, client: Client) -> None:
        self._say("waiting until everything is quiet")
        rest = await wait_until_quiet(
            lambda: read_activity(client, self._ledger, self._provider, self._stays_parked),
            self._options.settles_within,
        )
        if rest.moving or rest.pending:
            self._say(f"{len(rest.moving)} calls and {rest.pending} messages are in progress")

    async def _reconcile(
        self, client: Client, callers: list[Caller], killer: ProcessKiller
    ) -> Report:
        self._say("reading the three records")
        seen, summary = await read_provider(self._provider)
        kept, ledgered = await asyncio.to_thread(read_ledger, self._ledger)
        by_id = {caller.script.request.call_id: caller for caller in callers}
        histories = await read_histories(client, [i for i, c in by_id.items() if c.is_started])
        runs = histories.calls
        strangers = (seen.keys() | kept.keys() | runs.keys()) - by_id.keys()
        if strangers:
            raise AssertionError(f"no caller has made these calls: {', '.join(sorted(strangers))}")
        cases = [
            Case(
                call_id=call_id,
                operation=self._operation(call_id),
                caller=caller.record,
                provider=seen.get(call_id, ProviderRecord()),
                ledger=kept.get(call_id, LedgerRecord()),
                runs=tuple(runs.get(call_id, ())),
            )
            for call_id, caller in by_id.items()
        ]
        return Report(
            seed=self._options.seed,
            took=timedelta(seconds=time.monotonic() - self._began),
            cases=cases,
            ledgered=ledgered,
            totals=Totals(killer.kills, tuple(killer.deaths), summary),
            findings=reconcile(cases, ledgered, histories.hosts.values()),
            hosts=tuple(histories.hosts.values()),
        )

    @property
    def _ledger(self) -> Path:
        return Path(self._stack.environment["ACKBRIDGE_LEDGER_URL"].removeprefix("sqlite:///"))

    @property
    def _provider(self) -> str:
        return self._stack.addresses.sandbox

    def _operation(self, call_id: str) -> Operation:
        provider, operation, _ = call_id.split(".", 2)
        described = self._catalog.operation(provider, operation)
        return Operation(described.acknowledge is not None, described.request.is_repeatable)

    def _stays_parked(self, call_id: str) -> bool:
        provider, operation, _ = call_id.split(".", 2)
        described = self._catalog.operation(provider, operation)
        return described.on_failure == "park" and described.parked_for > OUTLIVES

    def _say(self, what: str) -> None:
        output.console.print(f"{time.monotonic() - self._began:5.0f} s  {what}", style="dim")
