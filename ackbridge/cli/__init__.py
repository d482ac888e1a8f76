"""The console command `ackbridge`; `starter.py` is the same code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

import typer

from ackbridge.terminal.exit_codes import ExitCode, exits_with_code
from ackbridge.workarounds.temporal_sdk import exit_process

from . import batches, calls, control, deployment, files, ledger, notices, processes, providers

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


def _add_group(
    name: str, help_text: str, commands: Mapping[str, Callable[..., int | None]]
) -> None:
    group = typer.Typer(no_args_is_help=True, help=help_text)
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
        "reprocess": batches.reprocess,
        "batches": batches.list_batches,
        "flag": control.flag,
        "breaker": control.breaker,
        "limit": control.limit,
        "check": files.check,
        "schema": files.schema,
        "owed": ledger.owed,
        "held": ledger.held,
        "worker": processes.worker,
        "gateway": processes.gateway,
        "up": processes.up,
        "demo": processes.demo,
        "providers": providers.providers,
        "purge": ledger.purge,
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
