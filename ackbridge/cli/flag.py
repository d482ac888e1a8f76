"""flag: whether calls may be sent to a provider; changed without a release, for everybody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from ackbridge.client.calls import AckbridgeClient
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
from ackbridge.terminal.exit_codes import Exit, exits_with_its_answer

from .calls import By, Json, with_client

LATEST = 20
"""Changes that are shown; `--json` has all that the control remembers."""
_STYLES = {FlagState.ON: "green", FlagState.OFF: "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(exits_with_its_answer(flag))


def flag(
    name: Annotated[str, typer.Argument(metavar="PROVIDER[.OPERATION]", help="Whose flag.")],
    by: By,
    setting: Annotated[
        str | None,
        typer.Argument(
            metavar="[on|off|internal|N%|default]",
            help="What it shall say; `default` is what the integration file says.",
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; everybody will read it.")] = None,
    environment: Annotated[
        str | None, typer.Option(help="Whose flag; ACKBRIDGE_ENVIRONMENT when left out.")
    ] = None,
    json_output: Json = False,
) -> int:
    """Show the flags of a provider and their latest changes, or set one.

    A call needs the flag of its provider and that of its operation. New calls that may not be
    sent are parked or refused, as their operation says (`when_off`); calls in flight finish.
    It takes effect within about two seconds, on every worker, and stays until the next word.
    """
    provider, _, operation = name.partition(".")
    if setting is None:
        return _show(provider, json_output)
    if reason is None:
        raise InvalidInputError("--reason: say why; it stays with the flag")
    order = parse_argument(
        SetFlag,
        (
            {
                "operation": operation or None,
                "environment": environment or load_settings().environment,
                **_parse(setting),
                "by": by,
                "reason": reason,
            },
        ),
    )
    return _set(provider, order, json_output)


def _parse(setting: str) -> dict[str, object]:
    if setting in ("on", "off", "internal", "default"):
        return {"state": setting}
    try:
        share = float(setting.removesuffix("%"))
    except ValueError:
        raise InvalidInputError(f"{setting}: must be on, off, internal, default, or N%") from None
    return {"state": "percentage", "percentage": share}


def _set(provider: str, order: SetFlag, json_output: bool) -> int:
    async def act(calls: AckbridgeClient) -> ControlChange | None:
        return await calls.control(provider).set_flag(order)

    return tell(provider, with_client(act), json_output)


def tell(provider: str, change: ControlChange | None, json_output: bool) -> int:
    """Say what was changed, from what to what; None: the order waits for a worker."""
    if change is None:
        output.console.print(
            "No worker answers. The order is left with the engine:"
            " it holds as soon as a worker runs."
        )
        return Exit.PENDING
    if json_output:
        output.as_json(change)
    else:
        output.console.print(
            f"{provider}: {change.subject}: {change.before} → {change.after}, by {change.by}",
            markup=False,
        )
    return Exit.COMPLETED


def _show(provider: str, json_output: bool) -> int:
    async def look(calls: AckbridgeClient) -> tuple[ControlStatus, bool]:
        control = calls.control(provider)
        try:
            return await control.status(), True
        except EngineUnavailableError:
            # No worker has to answer for the flags themselves.
            snapshot = await control.snapshot()
            if snapshot is None:
                raise
            return ControlStatus(snapshot=snapshot), False

    status, is_whole = with_client(look)
    if json_output:
        output.as_json(status)
        return Exit.COMPLETED
    output.console.print(
        output.table(
            f"flags of {provider}, version {status.snapshot.version}",
            ("environment", "of", "says", "by", "since", "why"),
            list(_flags(status.snapshot)),
        )
    )
    if not is_whole:
        output.console.print("No worker answers: the changes are in the control's history.")
        return Exit.COMPLETED
    rows = [
        (f"{c.at:%Y-%m-%d %H:%M:%S}", c.by, c.subject, c.before, c.after, c.reason)
        for c in status.changes[:LATEST]
    ]
    columns = ("when (UTC)", "who", "what", "from", "to", "why")
    output.console.print(output.table(f"{len(rows)} latest changes", columns, rows))
    return Exit.COMPLETED


def _flags(snapshot: ControlSnapshot) -> Iterator[tuple[str | Text, ...]]:
    """One row for every flag that anybody has said anything of."""
    configured = snapshot.configured.flags
    for environment in sorted({*snapshot.flags, *configured}):
        words = snapshot.flags.get(environment, {})
        for operation in sorted({*words, *configured.get(environment, {})}):
            word = words.get(operation)
            value = word or snapshot.configured.flag(environment, operation)
            yield (
                environment,
                "the provider" if operation == WHOLE_PROVIDER else operation,
                Text(str(value), style=_STYLES.get(value.state, "yellow")),
                word.by if word else "integration file",
                f"{word.at:%Y-%m-%d %H:%M:%S}" if word else "",
                word.reason if word else "",
            )
    if not snapshot.flags and not configured:
        yield ("every", "everything", Text("on", style="green"), "nobody", "", "")
