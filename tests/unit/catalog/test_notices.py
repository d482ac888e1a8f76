"""Rendering of notices: languages, values of any kind, limits."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ackbridge.catalog.model import NoticeTexts, OperationNotices
from ackbridge.catalog.rendering import MAX_TEXT_LENGTH, MAX_TITLE_LENGTH, render_notice
from ackbridge.contracts.calls import CallRequest, Notice
from ackbridge.contracts.notices import NOTICE_KINDS
from ackbridge.security.redaction import Redactor
from tests.support.catalog_files import CONTEXT, acme, problems

GERMAN = {"title": "Fehler", "message": "Für {payload.name}."}
ENGLISH = {"title": "Failed", "message": "For {payload.name}.", "alternative": "Call us."}


def texts(message: str) -> NoticeTexts:
    """A notice with this message in one language."""
    return NoticeTexts.model_validate({"und": {"title": "T", "message": message}})


@pytest.mark.parametrize(
    ("language", "title"),
    [("de-CH", "Fehler"), ("en-US", "Failed"), ("fr", "Failed"), (None, "Failed")],
)
def test_the_closest_language_is_chosen(tmp_path: Path, language: str | None, title: str) -> None:
    """The first text of the file is used for all other languages."""
    operation = acme(tmp_path, notices={"failed": {"en": ENGLISH, "de": GERMAN}}).operations[
        "order"
    ]
    assert operation.notices.failed is not None
    notice = render_notice("failed", operation.notices.failed, CONTEXT, language)
    assert notice is not None
    assert notice.title == title
    assert "Zoë" in notice.message


def test_a_file_can_replace_every_notice() -> None:
    """The fields of a file are the kinds of notices."""
    assert set(OperationNotices.model_fields) == set(NOTICE_KINDS)


def test_problems_have_line_and_field(tmp_path: Path) -> None:
    """With one text and with texts by language."""
    text = """\
provider: acme
base_url: https://acme.example
operations:
  order:
    request: {path: /orders}
    response: {mode: sync}
    notices:
      failed: {titel: Failed, message: It failed.}
      delayed:
        en: {title: Late, message: "{payload.", alternativ: none}
        de: {title: "Spät {reference}"}
      cancelled: {}
"""
    found = {(p.line, p.field): p.message for p in problems(tmp_path, text)}
    assert set(found) == {
        (8, "operations.order.notices.failed.titel"),
        (8, "operations.order.notices.failed.title"),
        (10, "operations.order.notices.delayed.en.message"),
        (10, "operations.order.notices.delayed.en.alternativ"),
        (11, "operations.order.notices.delayed.de.message"),
        (11, "operations.order.notices.delayed.de.title"),
        (12, "operations.order.notices.cancelled.title"),
        (12, "operations.order.notices.cancelled.message"),
    }
    assert "Did you mean 'title'?" in found[8, "operations.order.notices.failed.titel"]
    assert (
        "reference is not available here" in found[11, "operations.order.notices.delayed.de.title"]
    )


@given(st.text())
@example("{payload.secret}")
@example("}} {{ {call.id}")
@example("a\u202eb\x00c\x1b[31m\r\nSubject: x")
def test_no_value_breaks_a_notice(value: str) -> None:
    """Values are not parsed as templates, add no lines or invisible characters, and are bounded."""
    context = {**CONTEXT, "payload": {"value": value, "secret": "TOP-SECRET"}}
    notice = render_notice("failed", texts("a {payload.value} b {payload.value}"), context)
    if notice is None:
        assert any("\ud800" <= c <= "\udfff" for c in value)
        return
    assert "TOP-SECRET" not in notice.message
    assert len(notice.message) <= MAX_TEXT_LENGTH
    assert notice.message.startswith("a ")
    assert not any(unicodedata.category(c) == "Cc" for c in notice.message)
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069") & set(notice.message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["name", "amount", "tags"]), JSON))
def test_rendering_never_fails(payload: dict[str, Any]) -> None:
    """Any payload gives a notice with a bounded title, or none."""
    written = {"title": "For {payload.name}", "message": "{payload.amount} {payload.tags}."}
    texts = NoticeTexts.model_validate({"und": written})
    notice = render_notice("failed", texts, {**CONTEXT, "payload": payload})
    assert notice is None or 0 < len(notice.title) <= MAX_TITLE_LENGTH


def test_secrets_in_values_are_redacted(tmp_path: Path) -> None:
    """Credentials and card numbers are removed from values, not from the file's own text."""
    written = {
        "title": "sk_live_in_the_file",
        "message": "Paid with {payload.card}, {payload.key}.",
    }
    integration = acme(tmp_path, notices={"failed": written})
    request = CallRequest(provider="acme", operation="order", key="k1")
    payload = {"card": "4111 1111 1111 1111", "key": "sk_live_0123456789abcdef"}
    failed = integration.operations["order"].notices.failed
    assert failed is not None
    notice = render_notice(
        "failed", failed, {**CONTEXT, "payload": payload}, request.language, Redactor().clean_value
    )
    assert notice is not None
    assert notice.title == "sk_live_in_the_file"
    assert notice.message == "Paid with ***, ***."


def rendered(folder: Path, **text: Any) -> Notice | None:
    """The notice of a failure, rendered over a long payload."""
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
    """Null values are empty."""
    notice = rendered(tmp_path, message=template, alternative=template)

    assert Notice(kind="failed", title="T", message=text, alternative=text) == notice


@pytest.mark.parametrize("template", ["{payload.tags}", "{length(payload.amount)}", "{payload.no}"])
@pytest.mark.parametrize("field", ["title", "message"])
def test_a_template_without_a_usable_value_gives_no_notice(
    tmp_path: Path, template: str, field: str
) -> None:
    """A list, a function on the wrong type, nothing at all."""
    assert rendered(tmp_path, **{field: template}) is None


def test_an_empty_alternative_is_left_out(tmp_path: Path) -> None:
    """The notice itself is rendered."""
    assert Notice(kind="failed", title="T", message="M") == rendered(
        tmp_path, alternative=" {payload.no} "
    )


def test_notices_are_bounded(tmp_path: Path) -> None:
    """Every call's history carries its notices."""
    notice = rendered(tmp_path, title="{payload.long}", message="{payload.long}")

    assert notice is not None
    assert (len(notice.title), len(notice.message)) == (120, 600)
    assert notice.message.endswith("x…")
