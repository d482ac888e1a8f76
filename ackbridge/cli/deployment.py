"""deployment status, deployment promote: which version of the workers gets tasks."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Annotated, Any

import typer
from temporalio.client import Client

from ackbridge.errors import ConfigurationError
from ackbridge.settings import load_settings
from ackbridge.temporal.versions import Deployment, Version, describe
from ackbridge.temporal.versions import promote as promote_version
from ackbridge.terminal import output

from .connections import record_if_possible, with_temporal
from .options import Json, parse_duration


def status(json_output: Json = False) -> None:
    """Show the versions of the deployment, and which of them gets tasks."""
    _print(_with_deployment(describe), json_output)


def promote(
    build_id: Annotated[str, typer.Argument(help="The `ACKBRIDGE_BUILD_ID` of its workers.")],
    ramp: Annotated[
        float | None, typer.Option(min=0, max=100, help="Only this percentage of calls.")
    ] = None,
    drop_queues: Annotated[
        bool, typer.Option(help="Even if it serves fewer queues than the current version.")
    ] = False,
    wait: Annotated[
        str, typer.Option(help="How long to wait until its workers serve every queue: `60s`.")
    ] = "60s",
    json_output: Json = False,
) -> None:
    """Route tasks to a version, those of open calls included; returns when every queue has it.

    The workers of the version before can be stopped then.
    """
    timeout = parse_duration("wait", wait)

    async def route(client: Client, name: str) -> Deployment:
        return await promote_version(
            client, name, build_id, ramp=ramp, may_drop_queues=drop_queues, within=timeout
        )

    record_if_possible("promote", build_id, ramp=str(ramp), drop_queues=str(drop_queues))
    _print(_with_deployment(route), json_output)


def _with_deployment(act: Callable[[Client, str], Coroutine[Any, Any, Deployment]]) -> Deployment:
    name = load_settings().deployment
    if name is None:
        raise ConfigurationError("ACKBRIDGE_DEPLOYMENT: not set; the workers are unversioned")
    return with_temporal(lambda client: act(client, name))


def _print(deployment: Deployment, json_output: bool) -> None:
    if json_output:
        output.print_json(asdict(deployment))
        return
    title = f"deployment {deployment.name}" + (
        ", not on every queue yet" if deployment.is_spreading else ""
    )
    rows = [
        (version.build_id, _state(deployment, version), ", ".join(version.queues))
        for version in deployment.versions
    ]
    if deployment.current is None:
        rows.insert(0, ("(unversioned)", "current", ""))
    output.console.print(output.table(title, ("version", "state", "serves"), rows))


def _state(deployment: Deployment, version: Version) -> str:
    is_ramping = version.build_id == deployment.ramping
    return f"ramping, {deployment.ramp:g} %" if is_ramping else version.state
