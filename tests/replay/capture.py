"""Write golden histories: `python -m tests.replay.capture`.

It writes only those that are missing. They are frozen until the first release: a history is
recorded again only in a commit of its own, for a change of the protocol that is made on purpose
and named there, and never to turn a test green.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHandle

from ackbridge.contracts.calls import CallRequest
from tests.support.engine import running_engine
from tests.support.stage import Stage, edited_integrations, set_up
from tests.support.subscribers import configure, subscribing

from .batches import BATCHES
from .calls import CALLS, add_operations
from .controls import CONTROLS
from .hosts import HOSTS
from .notices import GONE, LISTS, NOTICES, SUBSCRIBER
from .playing import Run, Scenario
from .settlements import SETTLEMENTS

HISTORIES = Path(__file__).with_name("histories")

WORKER = re.compile(r"^\d+@[\w.-]+")
"""Process and host, as the names of sticky queues begin."""

SCENARIOS: list[Scenario] = [
    *CALLS,
    *NOTICES,
    *CONTROLS,
    *BATCHES,
    *SETTLEMENTS,
    *HOSTS,
]


async def main() -> None:
    """Run every scenario that has no history yet, and store its history."""
    HISTORIES.mkdir(exist_ok=True)
    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        engine = running.enter_context(running_engine(folder))
        integrations = edited_integrations(folder, add_operations)
        for name, replies in ((SUBSCRIBER, []), (GONE, [410] * 10)):
            subscriber = running.enter_context(subscribing())
            subscriber.replies += replies
            configure(integrations, name, subscriber.url)
            subscriber.pages += [[{"id": "e1"}, {"id": "e2"}], [{"no": "id"}]]
            lists = LISTS.replace("URL", subscriber.url.removesuffix("/notices"))
            (integrations / "feed.yaml").write_text(lists)
        async with set_up(engine, folder, integrations) as stage:
            for scenario in SCENARIOS:
                await _capture(stage, scenario)


async def _capture(stage: Stage, scenario: Scenario) -> None:
    path = HISTORIES / f"{scenario.__name__}.json"
    if path.exists():
        return
    history = await _handle(stage, await scenario(stage)).fetch_history()
    path.write_text(_without_traces_of_the_machine(history.to_json()))
    print(f"{path.name}: {len(history.events)} events")


def _handle(stage: Stage, played: CallRequest | Run) -> WorkflowHandle[Any, Any]:
    if isinstance(played, Run):
        return stage.client.get_workflow_handle(played.workflow_id, run_id=played.run_id)
    return stage.handle(played)


def _without_traces_of_the_machine(history: str) -> str:
    """Leave out stack traces and worker identities, which replay does not look at."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items() if k not in ("stackTrace", "identity")}
        if isinstance(value, str):
            return WORKER.sub("1@worker", value)
        return [clean(one) for one in value] if isinstance(value, list) else value

    return json.dumps(clean(json.loads(history)), indent=1)


if __name__ == "__main__":
    asyncio.run(main())
