"""flag, breaker: the control of a provider, changed live on every worker."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from ackbridge.client.calls import AckbridgeClient
from ackbridge.client.control import ControlHandle
from ackbridge.contracts.breaker import BreakerState, BreakerStatus, ForceBreaker
from ackbridge.contracts.control import (
    WHOLE_PROVIDER,
    ControlChange,
    ControlSnapshot,
    ControlStatus,
    FlagState,
    SetFlag,
)
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.errors import EngineUnavailableError
from ackbridge.settings import load_settings
from ackbridge.terminal import output
from ackbridge.terminal.exit_codes import ExitCode

from .connections import with_client
from .options import By, Json

Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="The provider.")]
Reason = Annotated[
    str | None, typer.Option(help="Why; required for a change, and shown to every operator.")
]

Act = Callable[[ControlHandle], Coroutine[Any, Any, ControlChange | None]]

CHANGES_SHOWN = 20
"""The table shows this many changes; `--json` has all that the control has kept."""
_STYLES = {FlagState.ON: "green", FlagState.OFF: "red"}


def flag(
    name: Annotated[str, typer.Argument(metavar="PROVIDER[.OPERATION]", help="Which flag.")],
    by: By,
    setting: Annotated[
        str | None,
        typer.Argument(
            metavar="[on|off|internal|N%|default]",
            help="The new value; `default` returns to the integration file.",
        ),
    ] = None,
    reason: Reason = None,
    environment: Annotated[
        str | None,
        typer.Option(help="The environment of the flag; by default ACKBRIDGE_ENVIRONMENT."),
    ] = None,
    json_output: Json = False,
) -> int | None:
    """Show the flags of a provider and their latest changes, or set one.

    A call needs the flag of its provider and that of its operation. While one is off, new calls
    are parked or refused, as `when_off` of the operation says; calls in flight finish. A change
    reaches every worker within about two seconds, and holds until the next one.
    """
    provider, _, operation = name.partition(".")
    if setting is None:
        _show_flags(provider, json_output)
        return None
    fields = {
        "operation": operation or None,
        "environment": environment or load_settings().environment,
        **_parse_flag(setting),
        "by": by,
        "reason": required_reason(reason),
    }
    request = parse_argument(SetFlag, (fields,))
    return change_control(provider, lambda control: control.set_flag(request), json_output)


def breaker(
    name: Annotated[str, typer.Argument(metavar="PROVIDER[.OPERATION]", help="Which breaker.")],
    by: By,
    state: Annotated[
        str | None,
        typer.Argument(
            metavar="[open|closed|half_open|auto]",
            help="Hold it in this state; `auto` returns to the observed error rate.",
        ),
    ] = None,
    reason: Reason = None,
    json_output: Json = False,
) -> int | None:
    """Show the breakers and the send rate of a provider, or hold a breaker in a state.

    While it is open, nothing is sent, and new calls are parked or refused, as their operation says;
    half open, single calls are sent. It is held until `auto`.
    """
    provider, _, operation = name.partition(".")
    if state is None:
        _show_breaker(provider, json_output)
        return None
    known = (*BreakerState, "auto")
    if state not in known:
        raise InvalidInputError(f"{state}: must be one of {', '.join(known)}")
    forced = None if state == "auto" else state
    fields = {
        "operation": operation or None,
        "state": forced,
        "by": by,
        "reason": required_reason(reason),
    }
    request = parse_argument(ForceBreaker, (fields,))
    return change_control(provider, lambda control: control.force_breaker(request), json_output)


def _parse_flag(setting: str) -> dict[str, object]:
    if setting in ("on", "off", "internal", "default"):
        return {"state": setting}
    try:
        percentage = float(setting.removesuffix("%"))
    except ValueError:
        raise InvalidInputError(f"{setting}: must be on, off, internal, default, or N%") from None
    return {"state": "percentage", "percentage": percentage}


def required_reason(reason: str | None) -> str:
    if reason is None:
        raise InvalidInputError("--reason: required for a change; it is shown to every operator")
    return reason


def change_control(provider: str, act: Act, json_output: bool) -> int | None:
    """Print what has changed; pending while no worker can confirm it."""
    # Without a worker it becomes a signal, which waits for one.
    change = with_client(lambda client: act(client.control(provider)), waits_by_itself=True)
    if change is None:
        output.console.print(
            "No worker answers. The change is stored; it takes effect when a worker runs."
        )
        return ExitCode.PENDING
    if json_output:
        output.print_json(change)
    else:
        output.console.print(
            f"{provider}: {change.subject}: {change.before} → {change.after}, by {change.by}",
            markup=False,
        )
    return None


def _show_flags(provider: str, json_output: bool) -> None:
    async def fetch(client: AckbridgeClient) -> tuple[ControlStatus, bool]:
        control = client.control(provider)
        try:
            return await control.status(), True
        except EngineUnavailableError:
            # The snapshot needs no worker, and has the flags without their changes.
            snapshot = await control.snapshot()
            if snapshot is None:
                raise
            return ControlStatus(snapshot=snapshot), False

    status, has_changes = with_client(fetch)
    if json_output:
        output.print_json(status)
        return
    title = f"flags of {provider}, version {status.snapshot.version}"
    columns = ("environment", "flag", "value", "by", "since", "reason")
    output.console.print(output.table(title, columns, list(_flag_rows(status.snapshot))))
    if not has_changes:
        output.console.print("No worker answers: see the control's history for the changes.")
        return
    rows = [
        (f"{c.at:%Y-%m-%d %H:%M:%S}", c.by, c.subject, c.before, c.after, c.reason)
        for c in status.changes[:CHANGES_SHOWN]
    ]
    columns = ("when (UTC)", "by", "what", "from", "to", "reason")
    output.console.print(output.table(f"{len(rows)} latest changes", columns, rows))


def _flag_rows(snapshot: ControlSnapshot) -> Iterator[tuple[str | Text, ...]]:
    """One row for each flag that is set, in the integration file or by an operator."""
    configured = snapshot.configured.flags
    for environment in sorted({*snapshot.flags, *configured}):
        settings = snapshot.flags.get(environment, {})
        for operation in sorted({*settings, *configured.get(environment, {})}):
            setting = settings.get(operation)
            value = setting or snapshot.configured.flag(environment, operation)
            yield (
                environment,
                "the provider" if operation == WHOLE_PROVIDER else operation,
                Text(str(value), style=_STYLES.get(value.state, "yellow")),
                setting.by if setting else "integration file",
                f"{setting.at:%Y-%m-%d %H:%M:%S}" if setting else "",
                setting.reason if setting else "",
            )
    if not snapshot.flags and not configured:
        yield ("all", "all", Text("on", style="green"), "default", "", "")


def _show_breaker(provider: str, json_output: bool) -> None:
    async def fetch(client: AckbridgeClient) -> ControlSnapshot | None:
        return await client.control(provider).snapshot()

    snapshot = with_client(fetch)
    if snapshot is None:
        raise EngineUnavailableError(f"{provider}: its control has just started; try again")
    if json_output:
        output.print_json(snapshot)
        return
    limit = snapshot.limit
    limited = f" (limited to {limit.per_second:g}/s by {limit.by}: {limit.reason})" if limit else ""
    output.console.print(_describe(provider, snapshot.breaker), markup=False)
    output.console.print(f"sends: {snapshot.rate or 'not set yet'}{limited}", markup=False)
    for operation, own in sorted(snapshot.breakers.items()):
        if not own.is_unrestricted:
            output.console.print(_describe(f"{provider}.{operation}", own), markup=False)


def _describe(name: str, breaker: BreakerStatus) -> str:
    held = f", held by {breaker.forced_by}" if breaker.forced_by else ""
    since = f"{breaker.since:%Y-%m-%d %H:%M:%S} UTC"
    return f"breaker of {name}: {breaker.state}{held} since {since}: {breaker.reason}"
