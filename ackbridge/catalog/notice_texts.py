"""The texts of notices in integration files, in one language or in several."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, RootModel

from ackbridge.contracts.languages import LANGUAGE_PATTERN, best_language

from .fields import FilePart
from .templates import TextTemplate

UNDETERMINED: Final = "und"
"""The language of texts of which the file does not say it."""

Language = Annotated[str, Field(pattern=LANGUAGE_PATTERN, max_length=35)]
"""A language tag, such as `de` or `en-US`."""


class NoticeText(FilePart):
    """What the caller can show a user; `{expressions}` over payload, metadata and call."""

    title: TextTemplate
    """A few words."""
    message: TextTemplate
    """A sentence or two."""
    alternative: TextTemplate | None = None
    """Another course the user may take."""


def _by_language(written: Any) -> Any:
    """One text stands for all languages."""
    if isinstance(written, dict) and written and all(_is_language(key) for key in written):
        return written
    return {UNDETERMINED: written}


def _is_language(key: object) -> bool:
    return isinstance(key, str) and re.match(LANGUAGE_PATTERN, key) is not None


class NoticeTexts(RootModel[dict[Language, NoticeText]]):
    """One notice: its text, or its texts by language; the first one is for everybody else."""

    def choose(self, language: str | None) -> NoticeText:
        """The text in the language that comes nearest, else the first one."""
        return self.root[best_language(language, self.root) or next(iter(self.root))]


Texts = Annotated[
    NoticeTexts,
    BeforeValidator(_by_language, json_schema_input_type=NoticeText | dict[Language, NoticeText]),
]
"""As `{title, message, alternative}`, or such texts by language: `{en: {…}, de: {…}}`."""


class NoticeCatalog(FilePart):
    """Texts for what users are told; there are defaults for all, in several languages."""

    delayed: Texts | None = None
    """It takes longer than usual."""
    failed: Texts | None = None
    """The provider failed or stayed silent."""
    refused: Texts | None = None
    """The provider did not take the request."""
    cancelled: Texts | None = None
    """Somebody cancelled the call."""
    completed: Texts | None = None
    """It is done; told to subscribers only, because whoever waits has the response itself."""
    completed_late: Texts | None = None
    """It is done, late; told to subscribers only."""
