"""The documentation is true: links lead somewhere, commands can be typed, settings exist."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer.main
from typer.core import TyperGroup
from typer.exceptions import TyperException

from ackbridge.cli import app
from ackbridge.settings import Settings, setting_names

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "ackbridge/web/*.md", "benchmarks/**/*.md")
    for path in CHECKOUT.glob(pattern)
)
NAMES = [str(path.relative_to(CHECKOUT)) for path in PAGES]

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SETTING = re.compile(r"ACKBRIDGE_[A-Z][A-Z_]*[A-Z]\b(?![*_<…])")
_NOT_SETTINGS = {"ACKBRIDGE_MODEL_EXAMPLES"}
"""Of tests."""

pages = pytest.mark.parametrize("page", PAGES, ids=NAMES)


@pages
def test_links(page: Path) -> None:
    """Files exist, and have the headings that are named."""
    wrong = [link for link in _links(page.read_text()) if not _leads_somewhere(page, link)]
    assert wrong == []


@pages
def test_commands(page: Path) -> None:
    """Commands exist, with these arguments and options."""
    wrong = {
        words: problem for words in _commands(page.read_text()) if (problem := _problem_of(words))
    }
    assert wrong == {}


@pages
def test_settings(page: Path) -> None:
    """Settings exist."""
    known = setting_names() | {f"ACKBRIDGE_{name.upper()}" for name in Settings.model_fields}
    assert set(_SETTING.findall(page.read_text())) - known - _NOT_SETTINGS == set()


@pages
def test_python(page: Path) -> None:
    """Python is Python, and what it imports of ours is there."""
    for code in _blocks(page.read_text(), "python"):
        tree = ast.parse(code)
        imports = [one for one in ast.walk(tree) if isinstance(one, ast.Import | ast.ImportFrom)]
        ours = [one for one in imports if "ackbridge" in ast.unparse(one)]
        exec("\n".join(map(ast.unparse, ours)), {})  # noqa: S102 -- lines of our own pages


def _links(text: str) -> Iterator[str]:
    for link in _LINK.findall(_FENCE.sub("", text)):
        if "://" not in link and not link.startswith("mailto:"):
            yield link


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / unquote(path) if path else page
    if not target.exists():
        return False
    return not anchor or anchor in {_slug(title) for title in _HEADING.findall(target.read_text())}


def _slug(title: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def _blocks(text: str, *languages: str) -> Iterator[str]:
    for _, language, code in _FENCE.findall(text):
        if language in languages:
            yield textwrap.dedent(code)


def _commands(text: str) -> Iterator[tuple[str, ...]]:
    """Those behind a prompt, without the environment before them, and what follows a pipe."""
    for block in _blocks(text, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if not line.startswith("$ "):
                continue
            for part in re.split(r" (?:&&|\||>) ", line[2:]):
                words = shlex.split(part, comments=True)
                while words and "=" in words[0]:
                    words = words[1:]
                if words and Path(words[0]).name == "ackbridge":
                    yield tuple(words[1:])


def _problem_of(words: tuple[str, ...]) -> str | None:
    """What the command line says of these words, without running the command."""
    command: Any = typer.main.get_command(app)
    name, rest = "ackbridge", list(words)
    try:
        while True:
            context = command.make_context(name, rest)
            left = [*context._protected_args, *context.args]
            if not isinstance(command, TyperGroup) or not left:
                return None
            found, command, rest = command.resolve_command(context, left)
            name = found or left[0]
    except typer.Exit:
        return None
    except TyperException as error:
        return str(error)
