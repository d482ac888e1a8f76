"""`python -m ackbridge.cli.reference`: the reference of settings, commands and errors, as Markdown.

A test compares its output with docs/reference.md, and `.env.example` with the settings. With a
folder as its argument it writes the JSON Schemas of what goes over the wire there instead.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.main import get_command

from ackbridge import errors
from ackbridge.cli import app
from ackbridge.contracts.schemas import WIRE_SCHEMAS, wire_schema
from ackbridge.settings import Settings

_INTRODUCTION = """# Reference

Settings, commands, exit codes and errors. This page is made from the code: `make reference`.
"""
_ATTRIBUTE = re.compile(r"^        ((?:\w+, )*\w+): (.*(?:\n {12}.*)*)", re.MULTILINE)


def render() -> str:
    """The page, as Markdown."""
    lines = [_INTRODUCTION, *_settings(), *_exit_codes(), *_commands(), *_errors()]
    return "\n".join(lines).rstrip() + "\n"


def settings_of(
    model: type[BaseModel] = Settings, prefix: str = "ACKBRIDGE_"
) -> Iterator[tuple[str, str, str]]:
    """Each variable, its default and its meaning."""
    meanings = _meanings(model)
    for name, field in model.model_fields.items():
        kind, variable = field.annotation, f"{prefix}{name.upper()}"
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings_of(kind, f"{variable}_")
            continue
        default = field.get_default(call_default_factory=True)
        yield variable, _default(default), meanings.get(name, "")


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    return {
        name: " ".join(text.split())
        for names, text in _ATTRIBUTE.findall(model.__doc__ or "")
        for name in names.split(", ")
    }


def _default(value: Any) -> str:
    if value is None or value in ("", (), frozenset()):
        return ""
    return f"`{_duration(value) if isinstance(value, timedelta) else value}`"


def _duration(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _settings() -> Iterator[str]:
    yield "## Settings\n"
    yield "From the process environment and `.env`; the environment wins. Temporal's own are"
    yield "`TEMPORAL_*`, OpenTelemetry's `OTEL_*`. A name that is none of these is reported.\n"
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for variable, default, meaning in settings_of():
        yield f"| `{variable}` | {default} | {_cell(meaning)} |"
    yield ""


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "| code | meaning |"
    yield "|---|---|"
    yield from (
        "| 0 | done; of `call` and `status`: the call completed |",
        "| 1 | the call failed or was cancelled; a scenario of `check --conformance` failed, or"
        " `audit verify` found a change |",
        "| 2 | bad input or usage, or wrong settings or integration files; nothing was done |",
        "| 3 | still pending, or stored until a worker runs |",
        "| 4 | the engine, the ledger or the workers do not answer; the command can be repeated |",
        "| 5 | a defect of Ackbridge; `ACKBRIDGE_LOG_LEVEL=DEBUG` shows the traceback |",
        "| 130 | interrupted by Ctrl-C |",
        "| 141 | the reader of the output has gone, as with `head` |",
    )
    yield ""


def _commands() -> Iterator[str]:
    yield "## Commands\n"
    yield "`ackbridge --install-completion` installs completion for the shell.\n"
    root: Any = get_command(app)
    for name in sorted(root.commands):
        yield from _command(f"ackbridge {name}", root.commands[name])


def _command(name: str, command: Any) -> Iterator[str]:
    yield f"### `{name}`\n"
    yield from ((command.help or "").strip(), "")
    rows = [_parameter(one) for one in command.params if "--help" not in one.opts]
    if rows:
        yield from ("| argument or option | meaning |", "|---|---|", *rows, "")
    for inner in sorted(getattr(command, "commands", ())):
        yield from _command(f"{name} {inner}", command.commands[inner])


def _parameter(parameter: Any) -> str:
    is_option = parameter.param_type_name == "option"
    argument = parameter.metavar or parameter.name.upper()
    shown = ", ".join(parameter.opts) if is_option else argument
    required = " Required." if is_option and parameter.required else ""
    default = _default_of(parameter) if is_option else ""
    return f"| `{shown}` | {_cell(parameter.help or '')}{required}{default} |"


def _default_of(parameter: Any) -> str:
    default = parameter.default
    if default is None or callable(default) or default in (False, "", (), []):
        return ""
    return f" Default: `{default}`."


def _errors() -> Iterator[str]:
    yield "## Errors\n"
    yield "What the Python client raises; commands print the message and end with the exit code.\n"
    yield "```"
    tree = (errors.__doc__ or "").partition("\n\n")[2].partition("\n\nMessages")[0]
    yield from (line[4:] for line in tree.splitlines())
    yield "```"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write_schemas(folder: Path) -> None:
    """Write each wire schema into a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in WIRE_SCHEMAS:
        (folder / f"{name}.json").write_text(json.dumps(wire_schema(name), indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:]:
        write_schemas(Path(sys.argv[1]))
    else:
        sys.stdout.write(render())
