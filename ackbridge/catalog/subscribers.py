"""The grammar of subscriber files: who is notified of calls, where, and for how long."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, field_validator

from ackbridge.contracts.deliveries import (
    DEFAULT_EVENTS,
    DEFAULT_TIMEOUT,
    DEFAULT_WITHIN,
    MAX_TIMEOUT,
    NoticeEvent,
)
from ackbridge.contracts.edge import CidrNetwork
from ackbridge.contracts.limits import Name
from ackbridge.security.specs import SecretRef, TlsSpec

from .fields import FilePart, Positive, check_http_url

MAX_SECRETS: Final = 2
"""The secret in use, and the one that replaces it."""


class Subscriber(FilePart):
    """A service that is notified of calls: a file `integrations/subscribers/<name>.yaml`.

    A call names it in `reply_to`. Only these files contain addresses; requests never do.
    """

    subscriber: Name
    """The subscriber's name, as in `reply_to`."""
    url: str
    """Where notices are posted; redirects are not followed."""
    secrets: Annotated[tuple[SecretRef, ...], Field(min_length=1, max_length=MAX_SECRETS)]
    """References to Standard Webhooks secrets (`whsec_…`). With two, notices carry both signatures,
    so that one secret can be replaced."""
    events: Annotated[tuple[NoticeEvent, ...], Field(min_length=1)] = DEFAULT_EVENTS
    """Which events are sent; by default all but `completed`."""
    response: bool = False
    """Whether notices of completed calls contain the provider's response."""
    timeout: Annotated[Positive, Field(le=MAX_TIMEOUT)] = DEFAULT_TIMEOUT
    """The timeout of one attempt."""
    within: Positive = DEFAULT_WITHIN
    """How long a notice is retried before it becomes a dead letter."""
    private_networks: tuple[CidrNetwork, ...] = ()
    """Where notices may go besides public addresses, such as `10.20.0.0/16`; checked against the
    address of every connection. Loopback needs no entry where `url` names it."""
    tls: TlsSpec | None = None
    """Own authorities, and a certificate of ours (mutual TLS)."""
    concurrent: int = Field(default=4, ge=1, le=100)
    """Notices in flight in each worker."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        check_http_url(url, "notices are signed with secrets")
        return url
