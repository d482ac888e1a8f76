"""Built-in notices, and the choice of a language."""

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
def test_the_closest_language_is_found(wanted: str | None, found: str | None) -> None:
    """By removing subtags from the right, whatever the case."""
    assert best_language(wanted, ["en", "de", "de-CH"]) == found


@given(st.text(max_size=40) | st.none())
def test_every_language_has_every_notice(language: str | None) -> None:
    """English is the default."""
    assert set(default_notices(language)) == set(NOTICE_KINDS)


def test_built_in_texts_are_translated() -> None:
    """Each language has its own title for every kind, and an alternative where English has one."""
    english = default_notices("en-GB")
    for language in ("de", "fr", "es"):
        for kind, notice in default_notices(language).items():
            assert notice.title != english[kind].title
            assert (notice.alternative is None) is (english[kind].alternative is None)
    assert default_notices("tlh") == english
