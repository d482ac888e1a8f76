"""The reference and `.env.example` say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from ackbridge.cli.reference import render, settings_of
from ackbridge.settings import setting_names

CHECKOUT = Path(__file__).resolve().parents[2]
RENEW = "docs/reference.md has fallen behind: make reference"


def test_reference_matches_the_code() -> None:
    """Settings, commands with their options, and errors."""
    assert (CHECKOUT / "docs" / "reference.md").read_text() == render(), RENEW


def test_every_setting_has_a_meaning() -> None:
    """The docstring of its model describes it."""
    assert {name for name, _, _ in settings_of()} == setting_names()
    assert not [name for name, _, meaning in settings_of() if not meaning]


def test_env_example_has_every_setting_and_no_other() -> None:
    """So that it can be copied and edited."""
    text = (CHECKOUT / ".env.example").read_text()
    named = set(re.findall(r"^#? ?(ACKBRIDGE_\w+)=", text, re.MULTILINE))
    assert named == setting_names()
