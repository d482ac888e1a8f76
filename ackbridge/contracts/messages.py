"""Messages of a provider about a call."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from .calls import masked_answer
from .limits import MAX_CODE_LENGTH, MAX_KEY_LENGTH, MAX_REASON_LENGTH, Identifier
from .wire import Duration, StrictModel


class MessageKind(StrEnum):
    """What a message says.

    Attributes:
        DOORBELL: only that there is something; the call asks the provider what it is.
    """

    RESPONSE = "response"
    FAILURE = "failure"
    EXTENSION = "extension"
    DOORBELL = "doorbell"


class MessageSource(StrEnum):
    """How a message was received."""

    SYNC = "sync"
    CALLBACK = "callback"
    STATUS = "status"
    OPERATOR = "operator"


class ProviderMessage(StrictModel):
    """A response, a failure, a request for more time, or a doorbell.

    Also the signal `provider_message`.

    Attributes:
        event_key: identifies the message; messages with the same key are duplicates.
        data: the response, as JSON.
        reason: why it failed; may be shown to operators.
        retryable: whether a new cycle may succeed after this failure.
        retry_after: how long to wait before that cycle.
        until: the new deadline of an extension.
        extend_by: the new deadline of an extension, counted from now; `until` wins.
        reference: the provider's own id of its work, if the message contains it; distinguishes the
            cycles of a call.
        code: the provider's own code of a failure.
        sensitive: the fields that only the caller is shown, such as `response.iban`.
    """

    kind: MessageKind
    event_key: Identifier
    data: Any = None
    reason: str | None = Field(default=None, max_length=MAX_REASON_LENGTH)
    code: str | None = Field(default=None, max_length=MAX_CODE_LENGTH)
    retryable: bool = False
    retry_after: Duration | None = None
    until: AwareDatetime | None = None
    extend_by: Duration | None = None
    reference: str | None = Field(default=None, max_length=MAX_KEY_LENGTH)
    received_at: AwareDatetime | None = None
    source: MessageSource = MessageSource.OPERATOR
    sensitive: tuple[str, ...] = ()

    def masked(self) -> ProviderMessage:
        """The message for everybody but the caller."""
        return self.model_copy(update={"data": masked_answer(self.data, self.sensitive)})

    @model_validator(mode="after")
    def _check_extension(self) -> ProviderMessage:
        if self.kind is MessageKind.EXTENSION and self.until is None and self.extend_by is None:
            raise ValueError("an extension needs until or extend_by")
        return self


class ProviderMessages(StrictModel):
    """Several messages in one signal, `provider_messages`.

    Attributes:
        messages: `ProviderMessage`s in the order of arrival. Each is validated by itself, so that
            an invalid one does not discard the others.
    """

    messages: tuple[Any, ...] = Field(min_length=1)


STORED: Final = "$stored"
"""The one key of a JSON object that refers to a stored body."""


class BodyRef(StrictModel):
    """Refers to a stored body.

    Attributes:
        bytes: the size of the body.
        sha256: its digest, in hexadecimal.
    """

    id: str
    bytes: int
    content_type: str
    sha256: str

    def as_data(self) -> dict[str, Any]:
        """The JSON value that replaces the body."""
        return {STORED: self.model_dump(mode="json")}

    @classmethod
    def of_data(cls, data: object) -> BodyRef | None:
        """The reference that a JSON value is; None if it is a value of its own."""
        if not isinstance(data, dict) or data.keys() != {STORED}:
            return None
        try:
            return cls.model_validate(data[STORED])
        except ValidationError:
            return None
