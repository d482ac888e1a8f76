"""The worker of the measurement, in a process of its own: batches as they are, and stand-ins."""

from __future__ import annotations

import asyncio
import os

from temporalio.worker import Worker

import worker
from ackbridge.catalog.loading import load_catalog
from ackbridge.clock import utc_now
from ackbridge.contracts import names
from ackbridge.control.snapshots import Snapshots
from ackbridge.http.client import build_client
from ackbridge.ledger.ledger import Ledger
from ackbridge.settings import WORKER_READY, integrations_folder, load_settings
from ackbridge.temporal.connect import connect
from ackbridge.workarounds.temporal_sdk import workflow_runner
from activities import main_activities
from workflows import ReprocessParked

from .simulated_calls import Answers, StandIn


async def main() -> None:
    """Serve until killed."""
    settings = load_settings()
    ledger = Ledger.open(settings.ledger_url, utc_now)
    catalog = load_catalog(integrations_folder(None), os.environ)
    async with build_client() as http:
        deps = worker.build_dependencies(
            settings, os.environ, catalog, ledger, http, Snapshots(), has_search_attributes=True
        )
        serving = Worker(
            await connect(os.environ),
            task_queue=names.TASK_QUEUE,
            workflows=[ReprocessParked, StandIn],
            activities=[*main_activities(deps), Answers(ledger).answer],
            workflow_runner=workflow_runner(),
            max_cached_workflows=200,
        )
        async with serving:
            print(WORKER_READY, flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
