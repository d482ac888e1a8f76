"""Worker deployments: which version of our workers the engine gives its tasks to.

All workers of one installation are a deployment, and those of one build a version of it. The
engine sends every task to the current version, whichever other versions wait for some too. Calls
follow from version to version while they are open (auto-upgrade), as they may be parked for weeks.
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
from temporalio.api.enums.v1 import RoutingConfigUpdateState, WorkerDeploymentVersionStatus
from temporalio.api.workflowservice.v1 import (
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

from .rpc import RPC_TIMEOUT

Reply = TypeVar("Reply")

_LOOK_EVERY: Final = 0.2
"""Seconds between two looks at a deployment that changes."""

_STATES: Final = "WORKER_DEPLOYMENT_VERSION_STATUS_"
_SPREADING: Final = RoutingConfigUpdateState.ROUTING_CONFIG_UPDATE_STATE_IN_PROGRESS


@dataclass(frozen=True)
class Version:
    """One version of a deployment.

    Attributes:
        build_id: which.
        state: in the engine's words: current, ramping, inactive (never was current), draining or
            drained (was current; only pinned workflows drain, and calls are not pinned).
        queues: the task queues its workers have asked for tasks, ever.
    """

    build_id: str
    state: str
    queues: tuple[str, ...]


@dataclass(frozen=True)
class Deployment:
    """What the engine knows of a deployment.

    Attributes:
        name: which.
        current: the build id of the version that gets the tasks; None: unversioned workers do.
        ramping: the build id of a version that gets some of them already.
        ramp: how many, in percent.
        is_spreading: whether some task queues have not heard of the latest change.
        versions: every version that the engine remembers, the newest first.
    """

    name: str
    current: str | None
    ramping: str | None
    ramp: float
    is_spreading: bool
    versions: tuple[Version, ...]

    def queues(self, build_id: str | None) -> frozenset[str]:
        """The task queues of a version; none for one that the engine has not heard of."""
        return frozenset(
            queue for one in self.versions if one.build_id == build_id for queue in one.queues
        )

    def standing(self, build_id: str) -> str:
        """Whether a version gets tasks, and how to give them to it if not; a line for a log."""
        if build_id == self.current:
            return f"version {build_id} of deployment {self.name} is the current one"
        holder = f"version {self.current} is" if self.current else "unversioned workers are"
        share = f"{self.ramp:g} % of the calls" if build_id == self.ramping else "no tasks"
        return (
            f"version {build_id} of deployment {self.name} is not the current one, {holder}; it"
            f" gets {share} until somebody runs: ackbridge deployment promote {build_id}"
        )

    def lack(self, build_id: str, *, may_drop_queues: bool) -> str | None:
        """What a version lacks to become the current one, if anything; a line for an error."""
        served = self.queues(build_id)
        if not served:
            return f"no worker of version {build_id} of deployment {self.name} asks for tasks"
        unserved = self.queues(self.current) - served
        if not unserved or may_drop_queues:
            return None
        return (
            f"no worker of version {build_id} of deployment {self.name} serves"
            f" {', '.join(sorted(unserved))}, as version {self.current} does"
        )


def deployment_config(name: str | None, build_id: str | None) -> WorkerDeploymentConfig | None:
    """How a worker says which version it is; None: it belongs to no deployment.

    Args:
        name: of the deployment.
        build_id: of the version; None for that of the installed package.
    """
    if name is None:
        return None
    version = WorkerDeploymentVersion(name, build_id or installed_version("ackbridge"))
    return WorkerDeploymentConfig(
        version=version,
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.AUTO_UPGRADE,
    )


async def describe(client: Client, name: str) -> Deployment:
    """Ask the engine; a deployment that no worker has asked tasks for yet has no versions.

    Raises:
        EngineUnavailableError: it does not answer, or not us.
    """
    return (await _look(client, name))[0]


async def promote(
    client: Client,
    name: str,
    build_id: str,
    *,
    ramp: float | None = None,
    may_drop_queues: bool = False,
    within: timedelta = timedelta(seconds=30),
) -> Deployment:
    """Give the tasks to a version, and return when every task queue knows.

    Args:
        ramp: this percentage of the calls only, and not as the current version.
        may_drop_queues: even if it does not serve every task queue that the current one serves.
            The engine itself looks at the busy ones only.
        within: how long its workers may take to ask for tasks, and the queues to hear of it.

    Raises:
        UnavailableError: they took longer, or the engine refuses; says what is missing.
        EngineUnavailableError: it does not answer, or not us.
    """
    until = time.monotonic() + within.total_seconds()

    async def once(is_so: Callable[[Deployment], bool]) -> tuple[Deployment, bytes]:
        while True:
            found, token = await _look(client, name)
            if is_so(found) or time.monotonic() > until:
                return found, token
            await asyncio.sleep(_LOOK_EVERY)

    found, token = await once(
        lambda one: one.lack(build_id, may_drop_queues=may_drop_queues) is None
    )
    if lack := found.lack(build_id, may_drop_queues=may_drop_queues):
        raise UnavailableError(lack)
    await _route(
        client,
        ramp,
        namespace=client.namespace,
        deployment_name=name,
        build_id=build_id,
        conflict_token=token,
        identity=client.identity,
        ignore_missing_task_queues=may_drop_queues,
    )
    found, _ = await once(lambda one: not one.is_spreading)
    if found.is_spreading:
        raise UnavailableError(f"some task queues of deployment {name} have not heard of it by now")
    return found


async def _route(client: Client, ramp: float | None, **change: Any) -> None:
    service = client.workflow_service
    try:
        if ramp is None:
            await service.set_worker_deployment_current_version(
                SetWorkerDeploymentCurrentVersionRequest(**change), timeout=RPC_TIMEOUT
            )
        else:
            await service.set_worker_deployment_ramping_version(
                SetWorkerDeploymentRampingVersionRequest(**change, percentage=ramp),
                timeout=RPC_TIMEOUT,
            )
    except RPCError as error:
        raise UnavailableError(f"the engine refuses: {error.message}") from None


async def _look(client: Client, name: str) -> tuple[Deployment, bytes]:
    """A deployment, and the token of this state of it."""
    known = await _unless_unknown(
        client.workflow_service.describe_worker_deployment(
            DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=name),
            timeout=RPC_TIMEOUT,
        )
    )
    if known is None:
        return Deployment(name, None, None, 0.0, False, ()), b""
    info = known.worker_deployment_info
    routing = info.routing_config
    deployment = Deployment(
        name=name,
        current=routing.current_deployment_version.build_id or None,
        ramping=routing.ramping_deployment_version.build_id or None,
        ramp=routing.ramping_version_percentage,
        is_spreading=info.routing_config_update_state == _SPREADING,
        versions=tuple([await _version(client, summary) for summary in info.version_summaries]),
    )
    return deployment, known.conflict_token


async def _version(
    client: Client, summary: WorkerDeploymentInfo.WorkerDeploymentVersionSummary
) -> Version:
    known = await _unless_unknown(
        client.workflow_service.describe_worker_deployment_version(
            DescribeWorkerDeploymentVersionRequest(
                namespace=client.namespace, deployment_version=summary.deployment_version
            ),
            timeout=RPC_TIMEOUT,
        )
    )
    return Version(
        build_id=summary.deployment_version.build_id,
        state=WorkerDeploymentVersionStatus.Name(summary.status).removeprefix(_STATES).lower(),
        queues=tuple(sorted({one.name for one in known.version_task_queues} if known else ())),
    )


async def _unless_unknown(asking: Awaitable[Reply]) -> Reply | None:
    try:
        return await asking
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        message = f"the engine does not tell of its deployments: {error.message}"
        raise EngineUnavailableError(message) from None
