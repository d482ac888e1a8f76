"""What an integration file may say: one provider, its callbacks, its operations."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    WithJsonSchema,
    field_validator,
)

from ackbridge.contracts import Duration
from ackbridge.contracts.names import NAME_PATTERN
from ackbridge.security import AuthSpec, VerifySpec

from .payloads import compile_schema
from .templates import compile_expression, compile_template, texts_of


def _expression(text: str) -> str:
    compile_expression(text)
    return text


def _template(text: str) -> str:
    compile_template(text)
    return text


def _path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("a path starts with /")
    return _template(text)


def _tree(tree: dict[str, Any]) -> dict[str, Any]:
    for text in texts_of(tree):
        compile_template(text)
    return tree


def _flag(value: object) -> object:
    # YAML 1.1 reads the words on and off as booleans.
    if value is True:
        return "on"
    return "off" if value is False else value


Expression = Annotated[str, AfterValidator(_expression)]
"""A JMESPath expression."""

Template = Annotated[str, AfterValidator(_template)]
"""A text with `{expressions}`."""

PathTemplate = Annotated[str, AfterValidator(_path)]
"""A path, from `/`, with `{expressions}`."""

Tree = Annotated[dict[str, Any], AfterValidator(_tree)]
"""A mapping whose texts are templates."""

Body = Expression | Tree
"""A body: one expression for the whole, or a mapping."""

Percentage = Annotated[float, Field(ge=0, le=100)]
Flag = Annotated[
    Literal["on", "off", "internal"] | Percentage,
    BeforeValidator(_flag),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["on", "off", "internal", True, False]},
                {"type": "number", "minimum": 0, "maximum": 100},
            ]
        }
    ),
]
"""on, off, internal (only calls of the audience `internal`), or a percentage of keys."""

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
StatusCode = Annotated[int, Field(ge=200, le=599)]
Positive = Annotated[Duration, Field(gt=timedelta(0))]


class Part(BaseModel):
    """The base of every part of an integration file: frozen, strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Replies(Part):
    """Which status codes this provider gets, because providers differ."""

    accepted: StatusCode = 200
    duplicate: StatusCode = 200
    unmatched: StatusCode = 202
    forged: StatusCode = 401
    unreadable: StatusCode = 400


class Callbacks(Part):
    """How this provider calls back.

    Attributes:
        verify: how a callback proves that it is the provider's.
        event_key: what makes two callbacks the same one; over the callback's document.
        max_bytes: larger bodies are refused unread.
    """

    verify: VerifySpec
    event_key: Expression
    replies: Replies = Replies()
    max_bytes: int = Field(default=1024 * 1024, gt=0)


class Limits(Part):
    """What this provider tolerates; with limits, everything goes through its own queues."""

    requests_per_second: float | None = Field(default=None, gt=0)
    concurrent: int | None = Field(default=None, gt=0)


class Health(Part):
    """A request that tells whether the provider is up."""

    path: PathTemplate
    every: Positive = timedelta(seconds=30)


class Request(Part):
    """What is sent.

    Attributes:
        body: with `GET`, leave it out.
        idempotency_header: the header that carries the idempotency key; null for none.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    path: PathTemplate
    query: dict[str, Template] = Field(default_factory=dict)
    headers: dict[str, Template] = Field(default_factory=dict)
    encoding: Literal["json", "form"] = "json"
    body: Body | None = None
    idempotency_header: str | None = "Idempotency-Key"


class Receipt(Part):
    """The provider says: I have your request.

    Attributes:
        timeout: of one attempt.
        attempts, within: retries end at whichever comes first.
        reference: the provider's own id of its work; over the answer's document.
        accept: what counts as a receipt besides 2xx; over the answer's document.
    """

    timeout: Positive = timedelta(seconds=5)
    attempts: int = Field(default=5, ge=1, le=1000)
    within: Positive = timedelta(minutes=2)
    reference: Expression | None = None
    accept: Expression | None = None


class MatchBy(Part):
    """Where a callback says which call it is about; one of the two, or both."""

    call_id: Expression | None = None
    reference: Expression | None = None


class FailureRule(Part):
    """When a message is a failure, whether a new cycle may help, and why it failed."""

    when: Expression
    retryable: bool | Expression = False
    reason: Expression | None = None


class ExtensionRule(Part):
    """When a message asks for more time: until a moment (ISO 8601 or Unix seconds), or by."""

    when: Expression
    until: Expression | None = None
    by: Expression | None = None


class Learn(Part):
    """How the deadline is learned from this provider's own response times."""

    quantile: float = Field(default=0.99, gt=0, lt=1)
    factor: float = Field(default=1.5, ge=1)
    min_samples: int = Field(default=50, ge=1)


class Deadline(Part):
    """How long to wait for the response, from the moment of sending."""

    initial: Positive = timedelta(seconds=30)
    learn: Learn | None = None
    floor: Positive = timedelta(seconds=1)
    ceiling: Positive = timedelta(minutes=10)


class Status(Part):
    """How to ask the provider; rules that are left out are the response's own."""

    method: Literal["GET", "POST"] = "GET"
    path: PathTemplate
    query: dict[str, Template] = Field(default_factory=dict)
    headers: dict[str, Template] = Field(default_factory=dict)
    success: Expression | None = None
    failure: FailureRule | None = None
    extension: ExtensionRule | None = None
    data: Expression | None = None


class Response(Part):
    """The provider's answer.

    Attributes:
        mode: in the HTTP response (`sync`), or by callback.
        match: which call a callback is about.
        success, failure, extension: what a message is; a message that is none of them is not
            waited for. `sync` without `success` takes every 2xx as one.
        data: which part of a message is the response; the whole body by default.
        status: how to ask before giving up.
        cycles: rounds of sending and waiting, at the most.
        late: what becomes of a response that comes after we have given up.
    """

    mode: Literal["sync", "callback"]
    match: MatchBy = MatchBy()
    success: Expression | None = None
    failure: FailureRule | None = None
    extension: ExtensionRule | None = None
    data: Expression | None = None
    deadline: Deadline = Deadline()
    status: Status | None = None
    cycles: int = Field(default=1, ge=1, le=100)
    late: Literal["accept", "ignore", "hold"] = "accept"
    late_window: Positive | None = None


class Acknowledgement(Part):
    """How the provider's acknowledgement API is told; a body that is left out is not sent."""

    method: Literal["POST", "PUT", "PATCH", "DELETE"] = "POST"
    path: PathTemplate
    headers: dict[str, Template] = Field(default_factory=dict)
    encoding: Literal["json", "form"] = "json"
    success: Body | None = None
    failed: Body | None = None
    timeout: Positive = timedelta(seconds=5)
    within: Positive = timedelta(hours=24)


class NoticeText(Part):
    """What a user can be shown; templates over the call's context."""

    title: Template
    message: Template
    alternative: Template | None = None


class Notices(Part):
    """One text for each way a caller can be left without the response."""

    delayed: NoticeText | None = None
    failed: NoticeText | None = None
    refused: NoticeText | None = None
    cancelled: NoticeText | None = None


class Operation(Part):
    """One thing the provider does for us.

    Attributes:
        payload_schema: JSON Schema (draft 2020-12) of a call's payload.
        on_failure: what becomes of a call that could not finish.
        parked_for: how long it waits then.
        queue_within: how long a request may wait for a worker of the provider's queue.
    """

    request: Request
    payload_schema: dict[str, Any] | None = None
    receipt: Receipt = Receipt()
    response: Response
    acknowledge: Acknowledgement | None = None
    on_failure: Literal["park", "fail"] = "fail"
    parked_for: Positive = timedelta(days=7)
    notices: Notices = Notices()
    queue_within: Positive = timedelta(hours=1)

    _validator: Draft202012Validator | None = PrivateAttr(default=None)

    @field_validator("payload_schema")
    @classmethod
    def _is_a_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is not None:
            compile_schema(schema)
        return schema

    def model_post_init(self, _context: object) -> None:
        """Compile the schema once."""
        if self.payload_schema is not None:
            self._validator = compile_schema(self.payload_schema)

    @property
    def payload_validator(self) -> Draft202012Validator | None:
        """The compiled `payload_schema`."""
        return self._validator


class Integration(Part):
    """One provider: a file `integrations/<provider>.yaml`.

    Attributes:
        provider: its name, as in call ids.
        base_url: where its API is.
        egress: `dedicated` when only certain workers may reach it.
        flag: by environment; an environment that is not named is on.
    """

    provider: Name
    base_url: str
    auth: AuthSpec | None = None
    callbacks: Callbacks | None = None
    limits: Limits | None = None
    egress: Literal["shared", "dedicated"] = "shared"
    health: Health | None = None
    flag: dict[str, Flag] = Field(default_factory=dict)
    operations: dict[Name, Operation] = Field(min_length=1)

    @field_validator("base_url")
    @classmethod
    def _is_absolute(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an absolute http or https URL")
        if parts.username or parts.password:
            raise ValueError("must not carry credentials; use auth")
        return url.rstrip("/")
