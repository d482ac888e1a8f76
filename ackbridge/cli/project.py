"""init: a folder with a first integration and a stub of its provider."""

from __future__ import annotations

import re
import secrets
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from ackbridge.contracts.wire import InvalidInputError
from ackbridge.terminal import output

from .options import Json

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FILES = {
    "env.template": ".env",
    "integration.template": "integrations/{name}.yaml",
    "provider.template": "provider.py",
}
_PRIVATE = 0o600


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new folder.")],
    name: Annotated[
        str | None,
        typer.Option(
            help="The provider's name: lowercase letters, digits, `_`; by default the folder's."
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Create a folder with a first integration, a stub of its provider, and their settings."""
    provider = name or folder.absolute().name.replace("-", "_").lower()
    if not _NAME.fullmatch(provider):
        raise InvalidInputError(
            f"--name: {provider!r} must begin with a lowercase letter,"
            " and have lowercase letters, digits and _ only"
        )
    values = {
        "@NAME@": provider,
        "@PREFIX@": provider.upper(),
        "@API_KEY@": secrets.token_urlsafe(24),
        "@WEBHOOK_SECRET@": secrets.token_urlsafe(24),
    }
    template = files("ackbridge.local") / "project"
    targets = {source: folder / made.format(name=provider) for source, made in _FILES.items()}
    if existing := [str(path) for path in targets.values() if path.exists()]:
        raise InvalidInputError(f"FOLDER: already there: {', '.join(existing)}")
    for source, path in targets.items():
        _write(template / source, path, values)
    (folder / ".env").chmod(_PRIVATE)
    if json_output:
        files_made = [str(path) for path in targets.values()]
        output.print_json({"folder": str(folder), "provider": provider, "files": files_made})
    else:
        _say_next(folder, provider)


def _write(source: Traversable, path: Path, values: dict[str, str]) -> None:
    text = source.read_text()
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise InvalidInputError(f"FOLDER: {path}: {error.strerror}") from None


def _say_next(folder: Path, provider: str) -> None:
    files = {
        f"{folder / '.env'}": "settings and secrets",
        f"{folder / 'integrations' / provider}.yaml": "the integration",
        f"{folder / 'provider.py'}": "a stub of the provider",
    }
    width = max(map(len, files)) + 2
    change = "" if folder == Path() else f"cd {folder} && "
    for line in (
        *(f"{path:{width}}{what}" for path, what in files.items()),
        "",
        f"  {change}ackbridge up",
        "",
        "and in another shell in that folder:",
        "",
        f'  ackbridge call {provider} create_order --key o-1 --payload \'{{"item": "book"}}\'',
    ):
        output.say(line)
