"""The engine that tests share. Every stage gets a namespace of its own in it."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from ackbridge.local.dev_server import EmbeddedEngine, find_binary
from ackbridge.temporal.connect import register_search_attributes

EARLY = 60
"""History events after which an engine of short histories suggests to continue as new."""
TAKEOVER = timedelta(seconds=3)
"""Workflow task timeout of an engine on which tests kill workers."""
RETENTION = timedelta(days=1)
"""Of closed workflows, as in the engine's own default namespace."""


_ONE_PARTITION = {
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
}
"""Of each task queue, instead of four: a stage with many providers has hundreds of queues."""


@dataclass(frozen=True)
class Namespace:
    """A namespace of a running engine: workers of another namespace never see its tasks."""

    address: str
    name: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that connect any Temporal client to it."""
        return {"TEMPORAL_ADDRESS": self.address, "TEMPORAL_NAMESPACE": self.name}


@contextmanager
def running_engine(
    folder: Path,
    *,
    suggest_renewal_after: int | None = None,
    task_timeout: timedelta | None = None,
) -> Iterator[EmbeddedEngine]:
    """Start an engine with time skipping, and stop it at the end.

    Args:
        suggest_renewal_after: the number of history events after which the engine suggests to
            continue as new; None for its default.
        task_timeout: after which a workflow task whose worker has died is given to another one;
            None for its default of ten seconds.
    """
    limits = dict(_ONE_PARTITION)
    if suggest_renewal_after is not None:
        limits["limit.historyCount.suggestContinueAsNew"] = str(suggest_renewal_after)
    if task_timeout is not None:
        limits["history.defaultWorkflowTaskTimeout"] = f'"{task_timeout.total_seconds():.0f}s"'
    state = folder / "engine.db"
    with EmbeddedEngine(state, headless=True, time_skipping=True, dynamic_config=limits) as engine:
        yield engine


async def new_namespace(engine: EmbeddedEngine) -> Namespace:
    """Create a namespace with our search attributes, which takes some milliseconds."""
    name = f"test-{uuid.uuid4().hex}"
    client = await Client.connect(engine.address)
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(
            namespace=name,
            workflow_execution_retention_period=Duration(seconds=int(RETENTION.total_seconds())),
        )
    )
    advice = await register_search_attributes(await Client.connect(engine.address, namespace=name))
    assert advice is None, advice
    return Namespace(engine.address, name)


async def temporal_command(*arguments: str) -> str:
    """Run Temporal's own command; returns what it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [str(find_binary()), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)
