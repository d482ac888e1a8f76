"""Notices from templates, in several languages, whatever the values are."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ackbridge.catalog.model import NoticeTexts
from ackbridge.catalog.rendering import MAX_TEXT_LENGTH, MAX_TITLE_LENGTH, render_notice
from ackbridge.contracts.calls import CallRequest
from ackbridge.security.redaction import Redactor
from tests.support.catalog_files import CONTEXT, acme, problems

GERMAN = {"title": "Fehler", "message": "Für {payload.name}."}
ENGLISH = {"title": "Failed", "message": "For {payload.name}.", "alternative": "Call us."}


def texts(message: str) -> NoticeTexts:
    """One text with this message."""
    return NoticeTexts.model_validate({"und": {"title": "T", "message": message}})


@pytest.mark.parametrize(
    ("language", "title"),
    [("de-CH", "Fehler"), ("en-US", "Failed"), ("fr", "Failed"), (None, "Failed")],
)
def test_the_users_language_is_spoken(tmp_path: Path, language: str | None, title: str) -> None:
    """The nearest of the texts; the first one in the file is for everybody else."""
    operation = acme(tmp_path, notices={"failed": {"en": ENGLISH, "de": GERMAN}}).operations[
        "order"
    ]
    assert operation.notices.failed is not None
    notice = render_notice("failed", operation.notices.failed, CONTEXT, language)
    assert notice is not None
    assert notice.title == title
    assert "Zoë" in notice.message


def test_mistakes_are_told_where_they_are(tmp_path: Path) -> None:
    """In either form, each with its line and field."""
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
    assert "did you mean title?" in found[8, "operations.order.notices.failed.titel"]
    assert "there is no reference here" in found[11, "operations.order.notices.delayed.de.title"]


@given(st.text())
@example("{payload.secret}")
@example("}} {{ {call.id}")
@example("a\u202eb\x00c\x1b[31m\r\nSubject: x")
def test_no_value_breaks_a_notice(value: str) -> None:
    """Values are never read as templates, add no lines and nothing unseen, and are bounded."""
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
def test_any_payload_gives_a_notice_or_none(payload: dict[str, Any]) -> None:
    """Rendering never fails, and a title that is there is bounded."""
    written = {"title": "For {payload.name}", "message": "{payload.amount} {payload.tags}."}
    texts = NoticeTexts.model_validate({"und": written})
    notice = render_notice("failed", texts, {**CONTEXT, "payload": payload})
    assert notice is None or 0 < len(notice.title) <= MAX_TITLE_LENGTH


def test_secrets_in_values_are_not_shown(tmp_path: Path) -> None:
    """What looks like a credential or a card is taken out of values, and out of nothing else."""
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
