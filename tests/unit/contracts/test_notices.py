"""Languages: who gets which text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackbridge.contracts.notices import NOTICE_KINDS, best_language, default_notices


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("en-US", "en"),
        ("EN", "en"),
        ("de-CH-1996", "de-CH"),
        ("de-AT", "de"),
        ("zh-Hant-TW", None),
        ("d", None),
        ("", None),
        (None, None),
    ],
)
def test_the_nearest_language_is_found(wanted: str | None, found: str | None) -> None:
    """From the right, part by part, whatever the case."""
    assert best_language(wanted, ["en", "de", "de-CH"]) == found


@given(st.text(max_size=40) | st.none())
def test_everybody_is_told_something(language: str | None) -> None:
    """Whatever is asked for, there is a default text for every kind of notice."""
    assert set(default_notices(language)) == set(NOTICE_KINDS)


def test_default_texts_are_translated() -> None:
    """Each language has its own words for every kind, and an alternative where English has one."""
    english = default_notices("en-GB")
    for language in ("de", "fr", "es"):
        for kind, notice in default_notices(language).items():
            assert notice.title != english[kind].title
            assert (notice.alternative is None) is (english[kind].alternative is None)
    assert default_notices("tlh") == english
