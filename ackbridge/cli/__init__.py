"""The console command `ackbridge`; `starter.py` is the same code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from ackbridge.terminal.exit_codes import ExitCode, exits_with_code
from ackbridge.workarounds.temporal_sdk import exit_process

from . import (
    batches,
    calls,
    control,
    deployment,
    files,
    notices,
    processes,
    providers,
    purge,
    settlement,
)

app = typer.Typer(
    name="ackbridge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Third-party API calls that always end in a known state.

Start calls, inspect and control them; check integration files; run a local stack.

Temporal's own settings (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, ...) say which server to connect
to; settings of Ackbridge are `ACKBRIDGE_*`. Both can be set in `.env`.

**Exit codes**: 0 completed, 1 the call failed or was cancelled, 2 bad input or usage,
3 still pending, 4 a service that Ackbridge depends on does not answer.
""",
    epilog="""Try it: run `ackbridge up` in one shell, and in another
`ackbridge call sandbox create_order --key o-1 --payload '{"amount": 5, "currency": "EUR"}'`.""",
)


Commands = Mapping[str, Callable[..., int | None]]


def _add_commands(target: typer.Typer, commands: Commands) -> None:
    for name, command in commands.items():
        target.command(name)(exits_with_code(command))


class _ListByDefault(TyperGroup):
    """A group whose command `list` may be left out: `held sandbox` is `held list sandbox`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def _add_group(
    name: str, help_text: str, commands: Commands, kind: type[TyperGroup] = TyperGroup
) -> None:
    group = typer.Typer(cls=kind, no_args_is_help=True, help=help_text)
    _add_commands(group, commands)
    app.add_typer(group, name=name)


_add_commands(
    app,
    {
        "call": calls.call,
        "status": calls.status,
        "list": calls.list_calls,
        "cancel": calls.cancel,
        "force-ack": calls.force_ack,
        "resolve": settlement.resolve,
        "unknown": settlement.list_unknown,
        "reprocess": batches.reprocess,
        "batches": batches.list_batches,
        "flag": control.flag,
        "breaker": control.breaker,
        "limit": control.limit,
        "check": files.check,
        "schema": files.schema,
        "worker": processes.worker,
        "gateway": processes.gateway,
        "up": processes.up,
        "demo": processes.demo,
        "providers": providers.providers,
        "purge": purge.purge,
    },
)
_add_group(
    "batch",
    "Show or control one batch.",
    {
        "status": batches.status,
        "pause": batches.pause,
        "resume": batches.resume,
        "stop": batches.stop,
    },
)
_add_group(
    "owed",
    "List acknowledgements that providers have not accepted (`list`, which may be left out).",
    {"list": settlement.list_owed, "write-off": settlement.write_off},
    _ListByDefault,
)
_add_group(
    "held",
    "List messages that need a person (`list`, which may be left out).",
    {
        "list": settlement.list_held,
        "apply": settlement.apply_held,
        "discard": settlement.discard_held,
    },
    _ListByDefault,
)
_add_group(
    "inbox",
    "List messages of providers that were not delivered (`list`, which may be left out).",
    {"list": settlement.list_inbox, "replay": settlement.replay_inbox},
    _ListByDefault,
)
_notices = typer.Typer(help="List notices to subscribers.", invoke_without_command=True)
_notices.callback()(notices.list_notices)
_add_commands(_notices, {"replay": notices.replay_notices})
app.add_typer(_notices, name="notices")
_add_group(
    "deployment",
    "Show or change which version of the workers gets tasks (deployment: `ACKBRIDGE_DEPLOYMENT`).",
    {"status": deployment.status, "promote": deployment.promote},
)


def main() -> int:
    """Run the command line; returns the exit code."""
    try:
        app()
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else ExitCode.FAILED
    return ExitCode.COMPLETED


def run() -> NoReturn:
    """The entry point of the console command."""
    exit_process(main())
