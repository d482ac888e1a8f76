"""The engine's record: every history, fetched, decoded without our converter, and replayed."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowHistory,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

from ackbridge.contracts import names
from ackbridge.temporal.connect import client_options
from ackbridge.workarounds.temporal_sdk import workflow_runner
from tests.support.replays import has_run
from workflows import WORKFLOWS

from .history_parser import read_run
from .host_parser import is_host, read_host
from .records import Run, RunState

AT_ONCE = 8
"""Histories fetched at the same time."""


TAKES_WITHIN = 5.0
"""Seconds in which a host answers that has news."""


@dataclass(frozen=True)
class Histories:
    """The engine's record.

    Attributes:
        calls: the runs of every call, oldest first; of a hosted one, its part in the host's run.
        hosts: the runs of hosts, by id.
    """

    calls: Mapping[str, Sequence[Run]]
    hosts: Mapping[str, Run]


async def read_histories(client: Client, started: Iterable[str]) -> Histories:
    """Every run of calls and of hosts, each replayed.

    Args:
        started: call ids that must be there, listed or not: visibility may lag.
    """
    types = f"'{names.INTEGRATION_CALL}', '{names.BULK_CALLS}'"
    listed = client.list_workflows(f"WorkflowType IN ({types})")
    found = []
    async for one in listed:
        found.append((one.start_time, one.id, one.run_id))
        if is_host(one.id) and one.status is WorkflowExecutionStatus.RUNNING:
            await _take_ends(client.get_workflow_handle(one.id))
    for call_id in set(started) - {call_id for _, call_id, _ in found}:
        found += await _described(client, call_id)
    turn = asyncio.Semaphore(AT_ONCE)

    async def fetch(call_id: str, run_id: str) -> WorkflowHistory:
        async with turn:
            return await client.get_workflow_handle(call_id, run_id=run_id).fetch_history()

    histories = await asyncio.gather(*(fetch(*one) for _, *one in sorted(found)))
    unreplayable = await _replay(histories)
    by_call: defaultdict[str, list[Run]] = defaultdict(list)
    hosts: dict[str, Run] = {}
    for history in histories:
        run = read_run(history.run_id, history.events)
        run = replace(run, unreplayable=unreplayable.get(run.id))
        if is_host(history.workflow_id):
            hosts[run.id] = run
            for call_id, part in read_host(run, history.events).items():
                by_call[call_id].append(part)
        else:
            by_call[history.workflow_id].append(run)
    return Histories({call_id: join_chains(runs) for call_id, runs in by_call.items()}, hosts)


def join_chains(runs: Sequence[Run]) -> list[Run]:
    """Let runs that go on with the call of a host be of the same chain as that.

    A host whose call did not move, and that another workflow had before, has followed that.
    """
    hosts = {run.chain: run.moved_from for run in runs if run.moved_from is not None}
    joined = [replace(run, chain=hosts.get(run.chain, run.chain)) for run in runs]
    moved = frozenset(hosts.values())
    return [
        replace(run, state=RunState.FOLLOWED) if run.is_hosted_elsewhere(moved) else run
        for run in joined
    ]


async def _take_ends(host: WorkflowHandle[Any, Any]) -> None:
    """Let an open host say how calls have left it: its history has what was asked for."""
    remaining, after = 1, 0
    with contextlib.suppress(TimeoutError, RPCError, WorkflowUpdateRPCTimeoutOrCancelledError):
        while remaining:
            async with asyncio.timeout(TAKES_WITHIN):
                taken = await host.execute_update(names.TAKE_ENDS, {"after": after})
            remaining, after = taken["remaining"], after + len(taken["ends"])
            if not taken["ends"]:
                return


async def _replay(histories: Sequence[WorkflowHistory]) -> dict[str, str]:
    """What does not replay, by run id, and why."""
    replayer = Replayer(
        workflows=WORKFLOWS,
        **client_options(),
        workflow_runner=workflow_runner(),
        # Two seconds without a word are a crowded machine here, and no deadlock.
        debug_mode=True,
    )

    async def each() -> AsyncIterator[WorkflowHistory]:
        for history in histories:
            if has_run(history.events):
                yield history

    results = await replayer.replay_workflows(each(), raise_on_replay_failure=False)
    return {run_id: _core(error) for run_id, error in results.replay_failures.items()}


def _core(error: Exception) -> str:
    """What a failure of a replay says, without what is wrapped around it."""
    told = re.search(r'message: "((?:[^"\\]|\\.)*)"', str(error))
    return (told[1] if told else str(error))[:300]


async def _described(client: Client, call_id: str) -> list[tuple[Any, str, str]]:
    try:
        described = await client.get_workflow_handle(call_id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return []
        raise
    return [(described.start_time, described.id, described.run_id)]
