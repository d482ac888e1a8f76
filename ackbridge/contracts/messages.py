"""What a provider says about a call."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, Field, model_validator

from .limits import MAX_KEY_LENGTH, MAX_REASON_LENGTH, Identifier
from .wire import Duration, StrictModel


class MessageKind(StrEnum):
    RESPONSE = "response"
    FAILURE = "failure"
    EXTENSION = "extension"


class MessageSource(StrEnum):
    """How the message reached us."""

    SYNC = "sync"
    CALLBACK = "callback"
    STATUS = "status"
    OPERATOR = "operator"


class ProviderMessage(StrictModel):
    """A response, a failure, or a request for more time; also the signal `provider_message`.

    Attributes:
        kind: what it is.
        event_key: the provider's own id of this message; two with the same key are one.
        data: what the provider said, as JSON.
        reason: for a failure, why; for people.
        retryable: for a failure, whether a new cycle may succeed.
        until: for an extension, the new deadline.
        extend_by: for an extension, how much later than now; `until` wins.
        reference: the provider's own id of the work it speaks about, where it says one; it tells
            the cycles of a call apart.
        received_at: when we got it.
        source: how we got it.
    """

    kind: MessageKind
    event_key: Identifier
    data: Any = None
    reason: str | None = Field(default=None, max_length=MAX_REASON_LENGTH)
    retryable: bool = False
    until: AwareDatetime | None = None
    extend_by: Duration | None = None
    reference: str | None = Field(default=None, max_length=MAX_KEY_LENGTH)
    received_at: AwareDatetime | None = None
    source: MessageSource = MessageSource.OPERATOR

    @model_validator(mode="after")
    def _an_extension_says_how_long(self) -> ProviderMessage:
        if self.kind is MessageKind.EXTENSION and self.until is None and self.extend_by is None:
            raise ValueError("an extension needs until or extend_by")
        return self


class ProviderMessages(StrictModel):
    """Several messages that travel together; the signal `provider_messages`.

    Attributes:
        messages: each a `ProviderMessage`, in the order they came. Each is validated by itself, so
            that one that does not read takes no other with it.
    """

    messages: tuple[Any, ...] = Field(min_length=1)
