"""Recorded messages of a provider, each in a JSON file that says what the message means.

An integration file names its examples: `examples: examples/acme/*.json`. `ackbridge check`
evaluates the file over them; the conformance kit and the simulated provider send them, with ids,
times and signatures replaced. Docstrings become descriptions in the published JSON Schema.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ackbridge.contracts.limits import Name
from ackbridge.contracts.wire import Duration
from ackbridge.errors import Problem

from .fields import FilePart, Method
from .yaml_document import FieldProblem, YamlDocument


class ExampleKind(StrEnum):
    """What a message is."""

    RECEIPT = "receipt"
    REFUSED = "refused"
    RETRY = "retry"
    SUCCESS = "success"
    FAILURE = "failure"
    EXTENSION = "extension"
    PENDING = "pending"
    ACCEPTED = "accepted"
    IGNORED = "ignored"
    HANDSHAKE = "handshake"
    DOORBELL = "doorbell"
    EVENT = "event"
    UNMATCHED = "unmatched"


_K = ExampleKind

KINDS_OF_ANSWERS: Final[Mapping[str, frozenset[ExampleKind]]] = {
    "request": frozenset({_K.RECEIPT, _K.REFUSED, _K.RETRY, _K.SUCCESS, _K.FAILURE, _K.EXTENSION}),
    "status": frozenset({_K.SUCCESS, _K.FAILURE, _K.EXTENSION, _K.PENDING, _K.RETRY}),
    "result": frozenset({_K.SUCCESS, _K.RETRY, _K.REFUSED}),
    "success": frozenset({_K.ACCEPTED, _K.REFUSED, _K.RETRY}),
    "failed": frozenset({_K.ACCEPTED, _K.REFUSED, _K.RETRY}),
}
"""By what is answered, what an answer can be."""

KINDS_OF_DELIVERIES: Final = frozenset(
    {_K.SUCCESS, _K.FAILURE, _K.EXTENSION, _K.PENDING, _K.UNMATCHED}
    | {_K.IGNORED, _K.HANDSHAKE, _K.DOORBELL, _K.EVENT}
)


class Meaning(FilePart):
    """What a message means. Fields that are left out are not compared."""

    kind: ExampleKind
    """Of answers to the request: `receipt`, `refused` (for good), `retry` (the same request again),
    `failure`, and `success` or `extension` where the answer is the response. Of answers to status
    requests: `success`, `failure`, `extension`, `pending` (no response yet), `retry`. Of answers to
    the request for the result: `success`, `retry`, `refused`. Of answers to acknowledgements:
    `accepted`, `refused`, `retry`. Of deliveries: `success`, `failure`,
    `extension`, `pending` (about a call, and none of these), `unmatched` (about no call),
    `ignored`, `handshake`, `doorbell`, `event` (nobody asked for it)."""
    operation: Name | None = None
    """The operation, where it is not the example's."""
    call_id: str | None = None
    """The call id that a delivery contains."""
    reference: str | None = None
    """The provider's own id of its work."""
    event_key: str | None = None
    """The event key of a delivery."""
    response: Any = None
    """Of a success: the response that the caller gets."""
    data: Any = None
    """Of a receipt: what the caller gets of it at once."""
    reason: str | None = None
    """Of a failure or a refusal: why."""
    code: str | None = None
    """Of a failure or a refusal: the provider's own code."""
    retryable: bool | None = None
    """Of a failure: whether the operation may be sent again, in a new cycle."""
    until: datetime | None = None
    """Of an extension: the new deadline."""
    by: Duration | None = None
    """Of an extension: the new deadline, counted from when it arrives."""
    event: Name | None = None
    """Of an event: its name in `callbacks.events`."""
    reply: str | None = None
    """Of a handshake: the body of the reply."""


Meanings = Annotated[
    tuple[Meaning, ...],
    Field(min_length=1),
    BeforeValidator(
        lambda written: [written] if isinstance(written, dict) else written,
        json_schema_input_type=Meaning | Annotated[tuple[Meaning, ...], Field(min_length=1)],
    ),
]
"""One meaning, or one for each event of a delivery."""


class Content(FilePart):
    """Headers and a body, in one of three forms."""

    headers: dict[str, str] = Field(default_factory=dict)
    """By name, in any case. Without credentials."""
    body: Any = None
    """A JSON body, as a document."""
    text: str | None = None
    """A body of any other kind, or one whose exact characters matter, such as a signed one."""
    base64: str | None = None
    """A body that is not a text."""

    @model_validator(mode="after")
    def _check_body(self) -> Self:
        if len(self.model_fields_set & {"body", "text", "base64"}) > 1:
            raise ValueError("has more than one body: give body, text or base64")
        try:
            base64.b64decode(self.base64 or "", validate=True)
        except binascii.Error:
            raise ValueError("base64 is not base64") from None
        return self

    @property
    def raw(self) -> bytes:
        """The bytes of the body."""
        if self.text is not None:
            return self.text.encode()
        if self.base64 is not None:
            return base64.b64decode(self.base64)
        if "body" in self.model_fields_set:
            return json.dumps(self.body, ensure_ascii=False, separators=(",", ":")).encode()
        return b""

    @property
    def lower_headers(self) -> dict[str, str]:
        """The headers by lower-case name."""
        return {name.lower(): value for name, value in self.headers.items()}


class RequestExample(Content):
    """A request of ours, as the provider received it. It is compared with the one that the file
    makes of the example's `call`; headers that are not given here are not compared."""

    method: Method = "POST"
    path: str = Field(pattern=r"^/")
    """The path, with the query, below the host."""


class AnswerExample(Content):
    """A provider's answer to one of our requests."""

    to: Literal["request", "status", "result", "success", "failed"] = "request"
    """What is answered: the request, a status request, the request for the result, or an
    acknowledgement of either kind."""
    status: int = Field(ge=100, le=599)
    """The HTTP status."""


class Verification(FilePart):
    """What verifies a delivery's signature: published test vectors, or secrets made for this."""

    secrets: dict[str, str] = Field(min_length=1)
    """By the references of the file, such as `env:STRIPE_WEBHOOK_SECRET`. Never a secret in use."""
    at: datetime
    """When it was delivered; timestamps are compared with this."""


class DeliveryExample(Content):
    """A callback of the provider. Its signature is verified only where `verify` says how."""

    method: Literal["GET", "POST", "PUT"] = "POST"
    query: str = ""
    """The raw query of its URL, without the `?`."""
    url: str | None = None
    """The whole URL that it was sent to, where that is signed."""
    verify: Verification | None = None


class CallExample(FilePart):
    """The call that an example is about."""

    key: str = Field(min_length=1)
    """The caller's key; the call id is `<provider>.<operation>.<key>`."""
    payload: Any = None
    metadata: dict[str, str] = Field(default_factory=dict)
    reference: str | None = None
    """The provider's own id of its work, for `request` where it is not the first one."""
    kept: dict[str, Any] = Field(default_factory=dict)
    """As `reference`: the values of `receipt.keep`."""
    response: Any = None
    """As `reference`: the response, for a success acknowledgement."""
    reason: str | None = None
    """As `reference`: why the call was given up, for a failed acknowledgement."""


class Example(FilePart):
    """One recorded message of a provider, and what it means."""

    json_schema: str | None = Field(default=None, alias="$schema")
    """The address of this schema, for editors."""
    source: str = Field(min_length=1)
    """Where it is from: the address of a public document, or how it was recorded."""
    about: str | None = None
    """What it shows, in a few words."""
    operation: Name | None = None
    """The operation that it is about. Required for answers."""
    call: CallExample | None = None
    """The call that it is about."""
    request: RequestExample | None = None
    """The request of `call` that was answered."""
    answer: AnswerExample | None = None
    """A provider's answer."""
    delivery: DeliveryExample | None = None
    """A callback."""
    means: Meanings
    """What the message means; for a delivery of several events, a list in their order."""

    @model_validator(mode="after")
    def _check_message(self) -> Self:
        if (self.answer is None) == (self.delivery is None):
            raise ValueError("needs either answer or delivery: the recorded message")
        if self.request is not None and (self.call is None or self.answer is None):
            raise ValueError("request needs call, whose request it is, and answer")
        if self.answer is not None and (self.operation is None or len(self.means) != 1):
            raise ValueError("an answer needs operation, and has one meaning")
        if self.call is not None and self.operation is None:
            raise ValueError("call needs operation")
        known = KINDS_OF_ANSWERS[self.answer.to] if self.answer is not None else KINDS_OF_DELIVERIES
        wrong = next((one.kind for one in self.means if one.kind not in known), None)
        if wrong is not None:
            what = f"an answer to {self.answer.to}" if self.answer else "a delivery"
            raise ValueError(f"{what} cannot be {wrong}; it can be {', '.join(sorted(known))}")
        return self

    @property
    def content(self) -> AnswerExample | DeliveryExample:
        """The recorded message."""
        content = self.answer or self.delivery
        if content is None:
            raise ValueError("an example without a message")
        return content

    def operation_of(self, meaning: Meaning) -> str | None:
        """The operation that one of its meanings is about."""
        return meaning.operation or self.operation


@dataclass(frozen=True)
class RecordedExample:
    """An example, and the file that it is in."""

    path: Path
    example: Example
    document: YamlDocument

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    def problem(self, problem: FieldProblem) -> Problem:
        """A problem of this example, with its line and column."""
        path = problem.path
        if path[:1] == ("means",) and isinstance(self.document.value.get("means"), dict):
            path = (path[0], *path[2:])
        at = self.document.position(path)
        field = ".".join(map(str, path)) or "(file)"
        return Problem(str(self.path), at.line, at.column, field, problem.message)
