"""The console command `ackbridge`; `starter.py` is the same code.

The module of a command is imported when the command runs: all of them together take seconds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from ackbridge.workarounds.temporal_sdk import exit_process

_HELP: Final = ("--help", "-h")
_CONTEXT: Final = {"help_option_names": list(_HELP)}


@dataclass(frozen=True)
class Group:
    """A group of commands.

    Attributes:
        commands: `module:function` in this package, by name.
        callback: what runs without a command, in the same form.
        lists_by_default: `list` may be left out: `held sandbox` is `held list sandbox`.
    """

    help: str
    commands: dict[str, str]
    callback: str | None = None
    lists_by_default: bool = False


SECTIONS: Final[dict[str, dict[str, str | Group]]] = {
    "First steps": {
        "init": "project:init",
        "up": "processes:up",
        "demo": "processes:demo",
    },
    "Calls": {
        "call": "calls:call",
        "call-many": "call_many:call_many",
        "status": "calls:status",
        "list": "calls:list_calls",
        "cancel": "calls:cancel",
        "force-ack": "calls:force_ack",
        "reprocess": "batches:reprocess",
        "batches": "batches:list_batches",
        "batch": Group(
            "Show or control one batch.",
            {
                "status": "batches:status",
                "pause": "batches:pause",
                "resume": "batches:resume",
                "stop": "batches:stop",
            },
        ),
    },
    "What needs a person": {
        "unknown": "settlement:list_unknown",
        "resolve": "settlement:resolve",
        "held": Group(
            "List messages that need a person (`list`, which may be left out).",
            {
                "list": "settlement:list_held",
                "apply": "settlement:apply_held",
                "discard": "settlement:discard_held",
            },
            lists_by_default=True,
        ),
        "owed": Group(
            "List acknowledgements that providers have not accepted (`list`, which may be left"
            " out).",
            {"list": "settlement:list_owed", "write-off": "settlement:write_off"},
            lists_by_default=True,
        ),
        "inbox": Group(
            "List messages of providers that were not delivered (`list`, which may be left out).",
            {"list": "settlement:list_inbox", "replay": "settlement:replay_inbox"},
            lists_by_default=True,
        ),
        "outbox": Group(
            "List rows of a service's outbox (`list`, which may be left out), or retry them; print"
            " its table's definition.",
            {"list": "outbox:list_rows", "retry": "outbox:retry", "sql": "outbox:sql"},
            lists_by_default=True,
        ),
        "notices": Group(
            "List notices to subscribers.",
            {"replay": "notices:replay_notices"},
            callback="notices:list_notices",
        ),
    },
    "Providers": {
        "providers": "providers:providers",
        "queue": "queue:queue",
        "flag": "control:flag",
        "breaker": "control:breaker",
        "limit": "limits:limit",
        "schedules": Group(
            "List the schedules of batches (`list`, which may be left out), or remove one.",
            {"list": "schedules:list_batch_schedules", "remove": "schedules:remove"},
            lists_by_default=True,
        ),
        "catch-up": "events:catch_up",
    },
    "Integration files": {
        "check": "files:check",
        "schema": "files:schema",
        "try": "recording:try_operation",
        "record": "recording:record",
    },
    "Processes": {
        "worker": "processes:worker",
        "gateway": "processes:gateway",
        "api": "processes:api",
        "relay": "outbox:relay",
    },
    "Administration": {
        "deployment": Group(
            "Show or change which version of the workers gets tasks (deployment: "
            "`ACKBRIDGE_DEPLOYMENT`).",
            {"status": "deployment:status", "promote": "deployment:promote"},
        ),
        "api-key": Group(
            "List, create or remove keys of HTTP clients (`ACKBRIDGE_AUTH_API_KEYS`).",
            {"list": "api_keys:list_keys", "new": "api_keys:new", "remove": "api_keys:remove"},
            lists_by_default=True,
        ),
        "audit": Group(
            "List, check or export the audit log of operators' requests (`list`, which may be left"
            " out).",
            {
                "list": "audit:list_audit",
                "verify": "audit:verify",
                "export": "audit:export",
            },
            lists_by_default=True,
        ),
        "purge": "purge:purge",
        "encrypt-again": "encryption:encrypt_again",
    },
}
"""`module:function` in this package, or a group of them, by section of the help and by name."""

COMMANDS: Final = {
    name: command for commands in SECTIONS.values() for name, command in commands.items()
}


class _Commands(MutableMapping[str, Any]):
    """Commands of a group, each built when it is looked up."""

    def __init__(self, commands: dict[str, Any]) -> None:
        self._commands = commands

    def __getitem__(self, name: str) -> Any:
        found = self._commands[name]
        if isinstance(found, str | Group):
            found = self._commands[name] = _build(name, found)
        return found

    def __setitem__(self, name: str, command: Any) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


def _build(name: str, found: str | Group) -> Any:
    from ackbridge.terminal.exit_codes import exits_with_code

    if isinstance(found, str):
        single = typer.Typer(rich_markup_mode="markdown", add_completion=False)
        single.command(name, context_settings=_CONTEXT)(exits_with_code(_load(found)))
        return typer.main.get_command(single)
    has_callback = found.callback is not None
    group = typer.Typer(
        name=name,
        cls=_group_class(found.commands, found.lists_by_default),
        help=found.help,
        no_args_is_help=not has_callback,
        invoke_without_command=has_callback,
        add_completion=False,
        rich_markup_mode="markdown",
        context_settings=_CONTEXT,
    )
    group.callback()(_load(found.callback) if found.callback else _no_callback)
    return typer.main.get_command(group)


def _load(target: str) -> Any:
    module, function = target.split(":")
    return getattr(import_module(f"{__name__}.{module}"), function)


def _no_callback() -> None:
    pass


def _group_class(commands: dict[str, Any], lists_by_default: bool = False) -> type[TyperGroup]:
    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = _Commands(dict(commands))

        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            if lists_by_default and (not args or args[0] not in (*self.commands, *_HELP)):
                args = ["list", *args]
            return super().parse_args(ctx, args)

        def format_help(self, ctx: Any, formatter: Any) -> None:
            """Without importing every command for its line: together that takes seconds."""
            self.commands = {name: _listed(name, found) for name, found in commands.items()}
            super().format_help(ctx, formatter)

    return LazyGroup


def _listed(name: str, found: Any) -> TyperCommand:
    """What the help of its group shows of a command."""
    section = next((title for title, names in SECTIONS.items() if found is names.get(name)), None)
    summary = found.help if isinstance(found, Group) else _docstring(found).partition("\n\n")[0]
    return TyperCommand(name, help=summary, rich_help_panel=section, rich_markup_mode="markdown")


def _docstring(target: str) -> str:
    module, function = target.split(":")
    source = ast.parse(Path(__file__).with_name(f"{module}.py").read_text())
    functions = (node for node in source.body if isinstance(node, ast.FunctionDef))
    return next(ast.get_docstring(one) or "" for one in functions if one.name == function)


app = typer.Typer(
    name="ackbridge",
    cls=_group_class(COMMANDS),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings=_CONTEXT,
    help="""Third-party API calls that always end in a known state.

Start calls, inspect and control them; check integration files; run a local stack.

Temporal's own settings (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, ...) say which server to connect
to; settings of Ackbridge are `ACKBRIDGE_*`. Both can be set in `.env`.

**Exit codes**: 0 completed, 1 the call failed or was cancelled, 2 bad input or usage,
3 still pending, 4 a service that Ackbridge depends on does not answer, 5 a defect of Ackbridge.
""",
    epilog="""Try it: run `ackbridge up` in one shell, and in another
`ackbridge call sandbox create_order --key o-1 --payload '{"amount": 5, "currency": "EUR"}'`.""",
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"ackbridge {version('ackbridge')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        app(arguments)
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else 1
    return 0


def run() -> NoReturn:
    """The entry point of the console command."""
    exit_process(main())
