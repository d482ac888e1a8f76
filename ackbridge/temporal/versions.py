"""Worker deployments: which version of our workers gets the tasks.

All workers of one installation are a deployment, and those of one build a version of it. The
engine sends every task to the current version. Open calls move to the new current version
(auto-upgrade), because they may be parked for weeks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version as installed_version
from typing import Any, Final, TypeVar

from temporalio.api.deployment.v1 import WorkerDeploymentInfo
from temporalio.api.enums.v1 import (
    RoutingConfigUpdateState,
    TaskQueueType,
    WorkerDeploymentVersionStatus,
)
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeWorkerDeploymentRequest,
    DescribeWorkerDeploymentVersionRequest,
    SetWorkerDeploymentCurrentVersionRequest,
    SetWorkerDeploymentRampingVersionRequest,
)
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig

from ackbridge.errors import EngineUnavailableError, UnavailableError

from .connect import RPC_TIMEOUT, rpc_errors

Reply = TypeVar("Reply")

PROMOTE_TIMEOUT: Final = timedelta(seconds=60)
"""How long workers may take to poll every queue, and then the queues to route to them."""

_POLL_INTERVAL: Final = 0.2
"""Seconds."""

_QUEUE_TYPES: Final = (
    TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
)
_TEMPORARY: Final = frozenset(
    {RPCStatusCode.ABORTED, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.UNAVAILABLE}
)
_STATUS_PREFIX: Final = "WORKER_DEPLOYMENT_VERSION_STATUS_"
_PROPAGATING: Final = RoutingConfigUpdateState.ROUTING_CONFIG_UPDATE_STATE_IN_PROGRESS


@dataclass(frozen=True)
class Version:
    build_id: str
    # As the engine has it: current, ramping, inactive (never was current), draining or drained (was
    # current; only pinned workflows drain, and calls are not pinned).
    state: str
    queues: tuple[str, ...]  # the task queues that its workers have ever polled


@dataclass(frozen=True)
class Deployment:
    name: str
    # The build id of the version that gets the tasks; None: unversioned workers do.
    current: str | None
    ramping: str | None  # the build id of the version that gets `ramp` percent of the calls
    ramp: float
    is_spreading: bool  # whether the latest change has not reached every task queue
    versions: tuple[Version, ...]  # every version that the engine remembers, the newest first

    def queues(self, build_id: str | None) -> frozenset[str]:
        return frozenset(
            queue for one in self.versions if one.build_id == build_id for queue in one.queues
        )

    def routing(self, build_id: str) -> str:
        """Whether a version gets tasks, and the command that changes it; a line for a log."""
        if build_id == self.current:
            return f"version {build_id} of deployment {self.name} is the current one"
        other = f"version {self.current} is" if self.current else "unversioned workers are"
        share = f"{self.ramp:g} % of the calls" if build_id == self.ramping else "no tasks"
        return (
            f"version {build_id} of deployment {self.name} is not the current one, {other}; it gets"
            f" {share} until you run: ackbridge deployment promote {build_id}"
        )

    def unserved_queues(self, build_id: str) -> frozenset[str]:
        """The queues that the current version serves and this one does not."""
        return self.queues(self.current) - self.queues(build_id)


def deployment_config(name: str | None, build_id: str | None) -> WorkerDeploymentConfig | None:
    """The config of a worker; None for an unversioned one. The default build id is our version."""
    if name is None:
        return None
    version = WorkerDeploymentVersion(name, build_id or installed_version("ackbridge"))
    return WorkerDeploymentConfig(
        version=version,
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


async def describe(client: Client, name: str) -> Deployment:
    """Describe a deployment; unpolled, it has no versions. Raises `EngineUnavailableError`."""
    return (await _describe(client, name))[0]


async def promote(
    client: Client,
    name: str,
    build_id: str,
    *,
    ramp: float | None = None,
    may_drop_queues: bool = False,
    within: timedelta = PROMOTE_TIMEOUT,
) -> Deployment:
    """Route tasks to a version, and return when every task queue does.

    Args:
        ramp: route this percentage of the calls only; the current version stays current.
        may_drop_queues: also if it does not serve every queue that the current version serves. The
            engine itself checks only queues with tasks.
        within: how long its workers may take to poll every queue, and then the queues to route.

    Raises:
        UnavailableError: they took longer, naming the queues; or the engine refuses.
        EngineUnavailableError: the engine does not answer, or refuses to describe a deployment.
    """
    await _route_when_served(
        client, name, build_id, ramp=ramp, may_drop_queues=may_drop_queues, within=within
    )
    found, _ = await _poll(client, name, lambda found: not found.is_spreading, within)
    if found.is_spreading:
        behind = await _queues_behind(client, found, build_id, is_ramp=ramp is not None)
        raise UnavailableError(
            f"queues that do not route to version {build_id} after {_seconds(within)}:"
            f" {', '.join(behind) or 'unknown'}. The engine goes on with it; check with: ackbridge"
            " deployment status"
        )
    return found


async def _route_when_served(
    client: Client,
    name: str,
    build_id: str,
    *,
    ramp: float | None,
    may_drop_queues: bool,
    within: timedelta,
) -> None:
    def is_served(found: Deployment) -> bool:
        if not found.queues(build_id):
            return False
        return may_drop_queues or not found.unserved_queues(build_id)

    end = time.monotonic() + within.total_seconds()
    while True:
        found, token = await _poll(client, name, is_served, within)
        if not is_served(found):
            raise UnavailableError(_missing(found, build_id, within))
        try:
            return await _route(
                client,
                ramp,
                namespace=client.namespace,
                deployment_name=name,
                build_id=build_id,
                conflict_token=token,
                identity=client.identity,
                ignore_missing_task_queues=may_drop_queues,
            )
        except RPCError as error:
            # A request that timed out may have succeeded; repeating it changes nothing.
            if error.status not in _TEMPORARY or time.monotonic() > end:
                message = f"the engine refuses the version: {error.message}"
                raise UnavailableError(message) from None


def _missing(found: Deployment, build_id: str, within: timedelta) -> str:
    if not found.queues(build_id):
        return (
            f"no worker of version {build_id} of deployment {found.name} has polled after"
            f" {_seconds(within)}. Start its workers, or check the build id"
        )
    unserved = ", ".join(sorted(found.unserved_queues(build_id)))
    return (
        f"queues still without version {build_id} after {_seconds(within)}: {unserved}."
        " Start its workers, or use --drop-queues"
    )


def _seconds(span: timedelta) -> str:
    return f"{span.total_seconds():g} s"


async def _poll(
    client: Client, name: str, is_done: Callable[[Deployment], bool], within: timedelta
) -> tuple[Deployment, bytes]:
    end = time.monotonic() + within.total_seconds()
    while True:
        found, token = await _describe(client, name)
        if is_done(found) or time.monotonic() > end:
            return found, token
        await asyncio.sleep(_POLL_INTERVAL)


async def _queues_behind(
    client: Client, found: Deployment, build_id: str, *, is_ramp: bool
) -> list[str]:
    """The queues of a version whose own routing does not name it yet."""
    behind = set()
    for queue in found.queues(build_id):
        for kind in _QUEUE_TYPES:
            with rpc_errors():
                described = await client.workflow_service.describe_task_queue(
                    DescribeTaskQueueRequest(
                        namespace=client.namespace,
                        task_queue=TaskQueue(name=queue),
                        task_queue_type=kind,
                    ),
                    timeout=RPC_TIMEOUT,
                )
            routing = described.versioning_info
            current, ramping = (
                routing.current_deployment_version,
                routing.ramping_deployment_version,
            )
            version = ramping if is_ramp else current
            # A queue of activities only has no pollers, and no routing, for workflows.
            if described.pollers and version.build_id != build_id:
                behind.add(queue)
    return sorted(behind)


async def _route(client: Client, ramp: float | None, **change: Any) -> None:
    service = client.workflow_service
    if ramp is None:
        await service.set_worker_deployment_current_version(
            SetWorkerDeploymentCurrentVersionRequest(**change), timeout=RPC_TIMEOUT
        )
    else:
        await service.set_worker_deployment_ramping_version(
            SetWorkerDeploymentRampingVersionRequest(**change, percentage=ramp), timeout=RPC_TIMEOUT
        )


async def _describe(client: Client, name: str) -> tuple[Deployment, bytes]:
    reply = await _unless_unknown(
        client.workflow_service.describe_worker_deployment(
            DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=name),
            timeout=RPC_TIMEOUT,
        )
    )
    if reply is None:
        return Deployment(name, None, None, 0.0, False, ()), b""
    info = reply.worker_deployment_info
    routing = info.routing_config
    deployment = Deployment(
        name=name,
        current=routing.current_deployment_version.build_id or None,
        ramping=routing.ramping_deployment_version.build_id or None,
        ramp=routing.ramping_version_percentage,
        is_spreading=info.routing_config_update_state == _PROPAGATING,
        versions=tuple([await _version(client, summary) for summary in info.version_summaries]),
    )
    return deployment, reply.conflict_token


async def _version(
    client: Client, summary: WorkerDeploymentInfo.WorkerDeploymentVersionSummary
) -> Version:
    reply = await _unless_unknown(
        client.workflow_service.describe_worker_deployment_version(
            DescribeWorkerDeploymentVersionRequest(
                namespace=client.namespace, deployment_version=summary.deployment_version
            ),
            timeout=RPC_TIMEOUT,
        )
    )
    return Version(
        build_id=summary.deployment_version.build_id,
        state=WorkerDeploymentVersionStatus.Name(summary.status)
        .removeprefix(_STATUS_PREFIX)
        .lower(),
        queues=tuple(sorted({one.name for one in reply.version_task_queues} if reply else ())),
    )


async def _unless_unknown(request: Awaitable[Reply]) -> Reply | None:
    try:
        return await request
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        message = f"the engine does not describe its deployments: {error.message}"
        raise EngineUnavailableError(message) from None
