"""The console command `ackbridge`; `starter.py` is the same code."""

from __future__ import annotations

from typing import NoReturn

import typer

from ackbridge.terminal.exit_codes import Exit
from ackbridge.workarounds.process_exit import exit_process

from . import (
    batches,
    breaker,
    calls,
    deployment,
    files,
    flag,
    ledger,
    notices,
    processes,
    providers,
    purge,
)

app = typer.Typer(
    name="ackbridge",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Third-party API calls that always end in a known state.

Start a call, look at it, steer it; check integration files; run the stack to play with.

Where the engine is comes from Temporal's own settings (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`,
...); ours are `ACKBRIDGE_*`. Both may stand in `.env`.

**Exit status**: 0 completed, 1 the call failed or was cancelled, 2 bad input or usage,
3 still pending, 4 a part we depend on does not answer.
""",
    epilog="""Try it: `ackbridge up` in one shell, and in another
`ackbridge call sandbox create_order --key o-1 --payload '{"amount": 5, "currency": "EUR"}'`.""",
)
calls.register(app)
batches.register(app)
flag.register(app)
breaker.register(app)
files.register(app)
ledger.register(app)
notices.register(app)
processes.register(app)
deployment.register(app)
providers.register(app)
purge.register(app)


def main() -> int:
    """Run the command line. Returns the exit status (see `Exit`)."""
    try:
        app()
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else Exit.FAILED
    return Exit.COMPLETED


def run() -> NoReturn:
    """The entry point of the console command."""
    exit_process(main())
