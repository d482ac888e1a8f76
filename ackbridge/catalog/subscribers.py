"""What a subscriber file may say: who is told what becomes of calls, where, and for how long."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from ackbridge.contracts.deliveries import (
    DEFAULT_EVENTS,
    DEFAULT_TIMEOUT,
    DEFAULT_WITHIN,
    MAX_TIMEOUT,
    NoticeEvent,
)
from ackbridge.contracts.limits import Name
from ackbridge.security.specs import SecretRef

from .fields import FilePart, Positive, is_http_url

MOST_SECRETS = 2
"""The one in use, and the one that takes its place."""


class Subscriber(FilePart):
    """Who is told what becomes of calls: a file `integrations/subscribers/<name>.yaml`.

    A call names it in `reply_to`. Only operators say where notices go, never requests.
    """

    subscriber: Name
    """Its name, as in `reply_to`."""
    url: str
    """Where notices are posted to; redirects are not followed."""
    secrets: Annotated[tuple[SecretRef, ...], Field(min_length=1, max_length=MOST_SECRETS)]
    """Standard Webhooks secrets (`whsec_…`); with two, both sign, so that one can be replaced."""
    events: Annotated[tuple[NoticeEvent, ...], Field(min_length=1)] = DEFAULT_EVENTS
    """When it wants to be told; `completed` is the one that has to be asked for."""
    response: bool = False
    """Whether notices of completed calls carry the provider's response."""
    timeout: Annotated[Positive, Field(le=MAX_TIMEOUT)] = DEFAULT_TIMEOUT
    """Of one attempt."""
    within: Positive = DEFAULT_WITHIN
    """How long a notice is tried before it is kept as dead."""
    concurrent: int = Field(default=4, ge=1, le=100)
    """How many notices are on their way at the same time, from each worker."""

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        if not is_http_url(url):
            raise ValueError("must be an absolute http or https URL")
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not carry credentials; notices are signed with secrets")
        if parts.fragment:
            raise ValueError("must be a URL without a fragment")
        return url
