"""Notices: what a user reads, filled in from the call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.rendering import render_notice
from ackbridge.contracts.calls import Notice
from tests.support.catalog_files import CONTEXT, acme


def rendered(folder: Path, **text: Any) -> Notice | None:
    """A notice of a failure, over the usual context and a long payload."""
    text = {"title": "T", "message": "M", **text}
    failed = acme(folder, notices={"failed": text}).operations["order"].notices.failed
    assert failed is not None
    payload = {**CONTEXT["payload"], "long": "x" * 5000, "lines": "a\n\n## b"}
    return render_notice("failed", failed, {**CONTEXT, "payload": payload})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain {{text}}", "plain {text}"),
        ("for {payload.name}: {payload.amount}", "for Zoë & co: 5"),
        ("{payload.amount}", "5"),
        ("gift: {payload.gift}, {metadata.tenant}, {call.key}", "gift: true, t-1, k1"),
        ("for {payload.nobody.name}.", "for ."),
        ("said {payload.lines}", "said a ## b"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_notices_are_templates(tmp_path: Path, template: str, text: str) -> None:
    """Values stand in the text as they are, and what is not there leaves a gap."""
    notice = rendered(tmp_path, message=template, alternative=template)

    assert Notice(kind="failed", title="T", message=text, alternative=text) == notice


@pytest.mark.parametrize("template", ["{payload.tags}", "{length(payload.amount)}", "{payload.no}"])
@pytest.mark.parametrize("field", ["title", "message"])
def test_what_cannot_be_said_is_no_notice(tmp_path: Path, template: str, field: str) -> None:
    """A list, a function that does not fit, nothing at all: another text has to do."""
    assert rendered(tmp_path, **{field: template}) is None


def test_an_empty_alternative_is_none(tmp_path: Path) -> None:
    """The rest of the notice stands without it."""
    assert Notice(kind="failed", title="T", message="M") == rendered(
        tmp_path, alternative=" {payload.no} "
    )


def test_notices_are_bounded(tmp_path: Path) -> None:
    """Every call carries its notices; a payload shall not blow them up."""
    notice = rendered(tmp_path, title="{payload.long}", message="{payload.long}")

    assert notice is not None
    assert (len(notice.title), len(notice.message)) == (120, 600)
    assert notice.message.endswith("x…")
