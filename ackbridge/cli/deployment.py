"""deployment status, deployment promote: which version of the workers gets the tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated

import typer
from temporalio.client import Client

from ackbridge.errors import ConfigurationError
from ackbridge.settings import environment, load_settings
from ackbridge.temporal.connect import connect
from ackbridge.temporal.versions import Deployment, Version, describe
from ackbridge.temporal.versions import promote as promote_version
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

from .calls import Json, duration


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Which version of the workers gets the tasks (`ACKBRIDGE_DEPLOYMENT` says of what).",
    )
    group.command()(exits_with_its_answer(status))
    group.command()(exits_with_its_answer(promote))
    app.add_typer(group, name="deployment")


def status(json_output: Json = False) -> int:
    """Show the versions of the deployment, and which of them gets the tasks."""
    return _print(_with_deployment(describe), json_output)


def promote(
    build_id: Annotated[str, typer.Argument(help="The `ACKBRIDGE_BUILD_ID` of its workers.")],
    ramp: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Only this percentage of the calls, for a start."),
    ] = None,
    drop_queues: Annotated[
        bool,
        typer.Option(help="Even if it does not serve every queue that the current version does."),
    ] = False,
    wait: Annotated[
        str, typer.Option(help="How long its workers may take to serve every queue: `60s`.")
    ] = "60s",
    json_output: Json = False,
) -> int:
    """Give the tasks to a version, open calls included; returns when every queue knows.

    The workers of the version before may be stopped then.
    """
    patience = duration("wait", wait)

    async def route(client: Client, name: str) -> Deployment:
        return await promote_version(
            client, name, build_id, ramp=ramp, may_drop_queues=drop_queues, within=patience
        )

    return _print(_with_deployment(route), json_output)


def _with_deployment(act: Callable[[Client, str], Awaitable[Deployment]]) -> Deployment:
    name = load_settings().deployment
    if name is None:
        raise ConfigurationError("ACKBRIDGE_DEPLOYMENT: not set; the workers are unversioned")

    async def run() -> Deployment:
        return await act(await connect(environment()), name)

    return asyncio.run(run())


def _print(seen: Deployment, json_output: bool) -> int:
    if json_output:
        output.as_json(asdict(seen))
        return Exit.COMPLETED
    title = f"deployment {seen.name}" + (", still spreading" if seen.is_spreading else "")
    rows = [(one.build_id, _state(seen, one), ", ".join(one.queues)) for one in seen.versions]
    if seen.current is None:
        rows.insert(0, ("(unversioned)", "current", ""))
    output.console.print(output.table(title, ("version", "state", "serves"), rows))
    return Exit.COMPLETED


def _state(seen: Deployment, one: Version) -> str:
    return f"ramping, {seen.ramp:g} %" if one.build_id == seen.ramping else one.state
