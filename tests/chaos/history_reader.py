"""The engine's record: every history, fetched, decoded without our converter, and replayed."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import Any

from temporalio.client import Client, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

from ackbridge.contracts import names
from ackbridge.temporal.connect import client_options
from ackbridge.workarounds.temporal_sdk import workflow_runner
from tests.support.replays import has_run
from workflows import WORKFLOWS

from .history_parser import read_run
from .records import Run

AT_ONCE = 8
"""Histories fetched at the same time."""


async def read_histories(client: Client, started: Iterable[str]) -> dict[str, list[Run]]:
    """The runs of every call, oldest first, each replayed.

    Args:
        started: call ids that must be there, listed or not: visibility may lag.
    """
    listed = client.list_workflows(f"WorkflowType = '{names.INTEGRATION_CALL}'")
    found = [(one.start_time, one.id, one.run_id) async for one in listed]
    for call_id in set(started) - {call_id for _, call_id, _ in found}:
        found += await _described(client, call_id)
    turn = asyncio.Semaphore(AT_ONCE)

    async def fetch(call_id: str, run_id: str) -> WorkflowHistory:
        async with turn:
            return await client.get_workflow_handle(call_id, run_id=run_id).fetch_history()

    histories = await asyncio.gather(*(fetch(*one) for _, *one in sorted(found)))
    unreplayable = await _replay(histories)
    by_call: defaultdict[str, list[Run]] = defaultdict(list)
    for history in histories:
        run = read_run(history.run_id, history.events)
        problem = unreplayable.get(run.id)
        by_call[history.workflow_id].append(replace(run, unreplayable=problem))
    return dict(by_call)


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
