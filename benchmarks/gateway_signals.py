"""What the engine has taken: the signals in the histories of the calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from .gateway_mixes import Mix


@dataclass(frozen=True)
class Signals:
    """The signals that carry a mix.

    Attributes:
        count: of them.
        messages: by call, how often each event key came.
    """

    count: int
    messages: dict[str, Counter[str]]


async def signals_of(client: Client, mix: Mix) -> Signals:
    """Read them from the histories."""
    at_once = asyncio.Semaphore(32)
    messages: dict[str, Counter[str]] = {}

    async def read(call_id: str) -> int:
        async with at_once:
            signals = await _signals(client, call_id)
        ours = [[key for key in keys if key in mix.by_call[call_id]] for keys in signals]
        messages[call_id] = Counter(key for keys in ours for key in keys)
        return sum(bool(keys) for keys in ours)

    counts = await asyncio.gather(*map(read, mix.by_call))
    return Signals(sum(counts), messages)


async def _signals(client: Client, call_id: str) -> list[list[str]]:
    """The event keys in each signal of a call."""
    found = []
    async for event in client.get_workflow_handle(call_id).fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            payloads = event.workflow_execution_signaled_event_attributes.input.payloads
            found.append(_keys(*await client.data_converter.decode(payloads)))
    return found


def _keys(said: Any) -> list[str]:
    many = said.get("messages", [said])
    return [one["event_key"] for one in many if "event_key" in one]
