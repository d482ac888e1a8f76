"""Validating a large payload does not stop everything else that the worker does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ackbridge.catalog.catalog import Catalog
from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.wire import InvalidInputError
from activities import Dependencies
from activities.prepare import Prepare
from activities.send import Send
from tests.support.catalog_files import acme


async def test_a_large_payload_is_validated_beside_the_loop(tmp_path: Path) -> None:
    """The loop goes on meanwhile, and the answer is the same."""
    schema = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    integration = acme(tmp_path, payload_schema=schema)
    deps: Any = SimpleNamespace(
        catalog=Catalog({"acme": integration}, {}), credentials={"acme": ()}
    )
    prepare = Prepare(cast("Dependencies", deps), cast("Send", None))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    good = CallRequest(provider="acme", operation="order", key="1", payload=[1] * 50_000)
    await prepare._check(good)
    assert ticks > 10
    bad = good.model_copy(update={"payload": [*good.payload, -1]})
    with pytest.raises(InvalidInputError, match=r"payload\.50000: is less than 0"):
        await prepare._check(bad)
    ticking.cancel()
