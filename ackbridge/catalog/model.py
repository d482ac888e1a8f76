"""The grammar of integration files: notices, operations, callbacks, then the integration itself.

Docstrings become descriptions in the published JSON Schema, which editors show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    PrivateAttr,
    RootModel,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from ackbridge.contracts.batches import BatchRequest, ParkedSelection, Ramp
from ackbridge.contracts.breaker import BreakerPolicy
from ackbridge.contracts.calls import OutcomeCode
from ackbridge.contracts.control import WithoutControl
from ackbridge.contracts.edge import CidrNetwork
from ackbridge.contracts.limits import LANGUAGE_PATTERN, MAX_KEY_LENGTH, Language, Name
from ackbridge.contracts.notices import best_language
from ackbridge.contracts.plan import LatePolicy, OnFailure, WhenOff
from ackbridge.contracts.wire import Duration
from ackbridge.control.deadlines import LONGEST_WINDOW, DeadlineRules
from ackbridge.errors import did_you_mean
from ackbridge.http.egress import is_loopback_host
from ackbridge.security.specs import AuthSpec, HmacVerify, TlsSpec

from .callbacks import CallbackSpec
from .cron import next_interval
from .expressions import Expression
from .fields import (
    HEADER_PATTERN,
    Condition,
    CronSchedule,
    Encoding,
    FilePart,
    Flag,
    Headers,
    HookFile,
    HostPattern,
    Method,
    Positive,
    Query,
    TimeZone,
    check_http_url,
)
from .hooks import Hook
from .payload_schema import PayloadSchema
from .templates import (
    BodyTemplate,
    PathTemplate,
    Template,
    TextTemplate,
    reads_idempotency_key,
)

UNDETERMINED: Final = "und"
"""The language of a text for which the file names none (BCP 47)."""

BATCH_ACTOR: Final = "schedule"
"""The `by` of a scheduled batch."""


# Notices


class NoticeText(FilePart):
    """What the caller can show a user. Templates over `payload`, `metadata` and `call`."""

    title: TextTemplate
    """A few words; cut off after 120 characters."""
    message: TextTemplate
    """One or two sentences; cut off after 600 characters."""
    alternative: TextTemplate | None = None
    """What the user can do instead; cut off after 600 characters."""


def _by_language(written: Any) -> Any:
    if isinstance(written, dict) and written and all(map(_is_language, written)):
        return written
    return {UNDETERMINED: written}


def _is_language(key: object) -> bool:
    return isinstance(key, str) and re.match(LANGUAGE_PATTERN, key) is not None


class NoticeTexts(RootModel[dict[Language, NoticeText]]):
    """One notice by language; the first text is used for all other languages."""

    def choose(self, language: str | None) -> NoticeText:
        """The text in the closest language, else the first one."""
        return self.root[best_language(language, self.root) or next(iter(self.root))]


Texts = Annotated[
    NoticeTexts,
    BeforeValidator(_by_language, json_schema_input_type=NoticeText | dict[Language, NoticeText]),
]
"""`{title, message, alternative}`, or such texts by language: `{en: {…}, de: {…}}`."""


class OperationNotices(FilePart):
    """Texts for users. Each notice that is left out has a built-in text in four languages."""

    delayed: Texts | None = None
    """The call is parked; its response will come later than expected."""
    failed: Texts | None = None
    """The provider failed or did not respond."""
    refused: Texts | None = None
    """The provider refused the request."""
    cancelled: Texts | None = None
    """The call was cancelled."""
    unknown: Texts | None = None
    """The call ended, and whether the provider did the work is not known. Must not claim either."""
    unavailable: Texts | None = None
    """Nothing was sent: switched off, an open breaker, or no worker in time."""
    expired: Texts | None = None
    """Nothing was sent before `expires_at`."""
    completed: Texts | None = None
    """The call is completed. Sent to subscribers only; callers get the response itself."""
    completed_late: Texts | None = None
    """The call is completed, later than expected. Sent to subscribers only."""


# An operation


def _as_list(written: Any) -> Any:
    if written is None:
        return ()
    return written if isinstance(written, list | tuple) else (written,)


Auths = Annotated[
    tuple[AuthSpec, ...],
    BeforeValidator(_as_list, json_schema_input_type=AuthSpec | list[AuthSpec] | None),
]
"""One authentication, or several that are used together."""

IDEMPOTENCY_HEADER: Final = "Idempotency-Key"


class Repeat(StrEnum):
    """Whether a request may be sent again after an attempt that may have arrived."""

    ALWAYS = "always"
    UNLESS_REACHED = "unless_reached"


class IdempotencySpec(FilePart):
    """The key by which the provider recognises a repeated request."""

    header: str | None = Field(default=IDEMPOTENCY_HEADER, pattern=HEADER_PATTERN)
    """The header that carries the key; null: none, because a template carries it."""
    key: Template | None = None
    """The key, a template that contains `{call.idempotency_key}`; left out: just that."""
    retention: Positive | None = None
    """How long the provider remembers a key. A request is not repeated later than this without
    asking first. Left out: for ever."""
    max_length: int | None = Field(default=None, ge=1)
    """The longest key that the provider takes, in characters. A longer one is refused before
    anything is sent; shorten it with `key: "{sha256(call.idempotency_key)}"`."""


class HttpRequest(FilePart):
    """One HTTP request: either `path` or `url`, and what is sent with it."""

    method: Method = "POST"
    path: PathTemplate | None = None
    """Starts with `/` and is appended to `base_url`. A template: values are percent-encoded, and
    none may be null or empty."""
    url: Expression | None = None
    """Instead of `path`: an expression whose value is the whole URL, for instance a link that the
    provider has sent: kept.poll. Its host must be that of `base_url` or one of `hosts`."""
    query: Query = Field(default_factory=dict)
    """Query parameters, as templates. A null leaves the parameter out, a list repeats it."""
    headers: Headers = Field(default_factory=dict)
    """Headers, as templates. A null leaves the header out."""
    encoding: Encoding = "json"
    """How the body is encoded."""
    body: BodyTemplate | None = None
    """A mapping (or list) whose texts are templates, or a text that is one JMESPath expression for
    the whole body. Left out: no body."""

    @cached_property
    def expressions(self) -> list[Expression]:
        """All expressions of the request, those of its templates included."""
        templates = (self.path, *self.query.values(), *self.headers.values(), self.body)
        expressions = [self.url] if self.url is not None else []
        return expressions + [e for one in templates if one is not None for e in one.expressions]


class RequestSpec(HttpRequest):
    """The HTTP request that an operation sends."""

    idempotency_header: str | None = Field(default=IDEMPOTENCY_HEADER, pattern=HEADER_PATTERN)
    """Short form of `idempotency.header`."""
    idempotency: IdempotencySpec | None = None
    """The idempotency key; null: none is sent. Left out: as `idempotency_header` says."""
    repeat: Repeat | None = None
    """Whether the request may be sent again after an attempt that may have arrived. Required where
    it carries no idempotency key and is no GET. `unless_reached`: only where nothing can have
    arrived (not connected, 429). `always`: although the provider may do the work again. Left out:
    with a key, it is."""

    @cached_property
    def key(self) -> IdempotencySpec | None:
        """The idempotency key; None where the request sends none in a header."""
        if "idempotency" in self.model_fields_set:
            return self.idempotency
        if self.idempotency_header is None:
            return None
        return IdempotencySpec(header=self.idempotency_header)

    @property
    def carries_key(self) -> bool:
        """Whether a header or a template carries the idempotency key."""
        if self.key is not None and self.key.header is not None:
            return True
        return any(map(reads_idempotency_key, self.expressions))

    @cached_property
    def is_repeatable(self) -> bool:
        """Whether the request may be sent again after an attempt that may have arrived."""
        if self.repeat is not None:
            return self.repeat is Repeat.ALWAYS
        return self.method == "GET" or self.carries_key


class ReceiptFailureRule(FilePart):
    """When the answer to the request reports that the provider failed, and why it refused."""

    when: Expression | None = None
    """True for an answer, of any status, that reports a failure: nothing took effect, and the
    request is not sent again. Left out: no answer is a failure."""
    reason: Expression | None = None
    """Why, of a failure or of an ordinary refusal; for operators and in the outcome. Left out:
    `detail` or `title` of a problem (RFC 9457), the usual fields (`error.message`, `message`,
    `error`, the first of `errors`), or a plain text."""
    code: Expression | None = None
    """The provider's own code, of a failure or of an ordinary refusal: the outcome's
    `provider_code`."""


class ReceiptSpec(FilePart):
    """When the provider has received the request, and how it is retried until then.

    Any 2xx answer is a receipt. Network errors, 408, 425, 429 and 5xx are retried with the same
    idempotency key; every other answer refuses the request.
    """

    timeout: Positive = timedelta(seconds=5)
    """The timeout of one attempt."""
    attempts: int = Field(default=5, ge=1, le=1000)
    """The maximum number of attempts in one cycle."""
    within: Positive = timedelta(minutes=2)
    """No attempt starts later than this after the first attempt of the cycle."""
    reference: Expression | None = None
    """Where the answer contains the provider's own id of its work."""
    accept: Expression | None = None
    """Answers for which this is true are receipts too, for instance status == `409`."""
    retry: Expression | None = None
    """Answers for which this is true, of any status, say "not now": the request is sent again with
    the same idempotency key. Takes precedence over all other rules."""
    pause: Expression | None = None
    """How long to wait before the next attempt, where the answer has no Retry-After: seconds, a
    duration such as 5m, Unix time (seconds), ISO 8601 or an HTTP date."""
    keep: dict[Name, Expression] = Field(default_factory=dict)
    """Values of the receipt, and of answers to status requests, for later requests: `keep: {poll:
    headers.location}` is `{kept.poll}` there. Later values that are not null win. Texts, numbers
    and booleans; longer than 4096 characters is as null."""
    data: Expression | None = None
    """Which part of the receipt the caller gets, at once in the status, and in the outcome."""
    success: Expression | None = None
    """True for a receipt that is the response already; in modes `callback` and `poll`. Its data are
    `response.data` or, where that is null, the body. Left out: no receipt is the response."""
    failure: ReceiptFailureRule | None = None
    """When an answer reports a failure, and why the provider refused."""


class MatchSpec(FilePart):
    """How a callback is matched to its call. If both fields are given, `call_id` decides."""

    call_id: Expression | None = None
    """Where the callback contains the call id, if the provider repeats it."""
    reference: Expression | None = None
    """Where the callback contains the provider's own id; needs `receipt.reference`."""


class FailureRule(FilePart):
    """When a message reports that the provider failed."""

    when: Expression
    """True for a failure; takes precedence over `extension` and `success`."""
    retryable: Condition = Expression("`false`")
    """Whether the operation may be sent again, in a new cycle."""
    reason: Expression | None = None
    """Why it failed, shown to operators and in the outcome."""
    code: Expression | None = None
    """The provider's own code of the failure: the outcome's `provider_code`."""


class ExtensionRule(FilePart):
    """When a message asks for more time. With neither `until` nor `by`, it gets
    `deadline.initial` once more."""

    when: Expression
    """True for an extension; takes precedence over `success`."""
    until: Expression | None = None
    """The new deadline: ISO 8601 (UTC unless it names an offset) or Unix time, in seconds or
    milliseconds."""
    by: Expression | None = None
    """The new deadline, counted from now: seconds, or a duration such as 5m."""


class LearningSpec(FilePart):
    """How the deadline is learned from the provider's response times."""

    quantile: float = Field(default=0.99, gt=0, lt=1)
    """The quantile of the response times that is taken."""
    factor: float = Field(default=1.5, ge=1)
    """What the quantile is multiplied by."""
    min_samples: int = Field(default=50, ge=1)
    """With fewer calls in the window, the deadline stays as it is."""
    window: Annotated[Positive, Field(le=LONGEST_WINDOW)] = timedelta(hours=1)
    """The period whose response times count; at most a day."""
    scouts: float = Field(default=0.1, ge=0, le=1)
    """The share of calls that wait longer than the deadline, for `initial` or twice the deadline,
    so that learning notices when the provider has become slower."""


class DeadlineSpec(FilePart):
    """How long a call waits for the response, counted from the moment of sending."""

    initial: Positive = timedelta(seconds=30)
    """The deadline until one is learned."""
    learn: LearningSpec | None = None
    """How it is learned; left out: `initial` stays, but after an outage in which responses were
    missing it is learned, and never shorter than `initial`."""
    floor: Positive = timedelta(seconds=1)
    """The shortest learned deadline."""
    ceiling: Positive = timedelta(minutes=10)
    """The longest deadline, extensions included."""

    @property
    def before_learning(self) -> timedelta:
        """The deadline until one is learned."""
        return min(self.initial, self.ceiling)

    @cached_property
    def rules(self) -> DeadlineRules:
        """How it is learned."""
        learn = self.learn or LearningSpec(scouts=0)
        floor = self.initial if self.learn is None else self.floor
        return DeadlineRules(
            initial=self.before_learning,
            quantile=learn.quantile,
            factor=learn.factor,
            min_samples=learn.min_samples,
            window=learn.window,
            floor=min(floor, self.ceiling),
            ceiling=self.ceiling,
            sample=learn.scouts,
            is_fixed=self.learn is None,
        )


class StatusSpec(HttpRequest):
    """The status request: how to ask the provider for its response.

    `success`, `failure`, `extension` and `data` that are left out are those of `response`; but an
    answer with an error status (from 400) is judged by the status request's own rules only.
    """

    method: Method = "GET"
    success: Expression | None = None
    """True for an answer that is the response."""
    failure: FailureRule | None = None
    """When an answer reports a failure."""
    extension: ExtensionRule | None = None
    """When an answer asks for more time."""
    data: Expression | None = None
    """Which part of the answer is the response."""


class ResultSpec(HttpRequest):
    """One more request after a success, for providers that say "done" and have the result
    elsewhere. `response.data` reads its answer."""

    method: Method = "GET"
    timeout: Positive = timedelta(seconds=10)
    """The timeout of one attempt."""
    within: Positive = timedelta(hours=24)
    """How long it is retried; after that the call ends with code `unreadable`."""


class PollSpec(FilePart):
    """How often the status request is sent, until a response or the deadline."""

    every: Positive = timedelta(seconds=5)
    """The pause between two requests; a longer `Retry-After` is honoured."""


class ResponseSpec(FilePart):
    """How the provider's response arrives and what it means."""

    mode: Literal["sync", "callback", "poll"]
    """`sync`: in the answer to the request. `callback`: by callback. `poll`: by status requests."""
    match: MatchSpec = MatchSpec()
    """How a callback is matched to its call."""
    fetch: bool = False
    """Whether a callback is a doorbell: it says only that there is something, and the call asks
    what it is. `success`, `failure` and `extension` then read the answer to `status`."""
    success: Expression | None = None
    """True for a message that is the response. Required in mode `callback`; in mode `poll`, here or
    in `status`. In mode `sync` it defaults to any receipt."""
    failure: FailureRule | None = None
    """When a message reports a failure."""
    extension: ExtensionRule | None = None
    """When a message asks for more time."""
    data: Expression | None = None
    """Which part of the message is the response that the caller gets; defaults to the body."""
    deadline: DeadlineSpec = DeadlineSpec()
    """How long to wait for the response."""
    status: StatusSpec | None = None
    """The status request: sent once before giving up, and repeatedly in mode `poll`."""
    poll: PollSpec | None = None
    """How often to ask: in mode `poll`, and in mode `callback` where a callback may get lost."""
    result: ResultSpec | None = None
    """One more request after a success; `data` reads its answer."""
    cycles: int = Field(default=1, ge=1, le=100)
    """The maximum number of cycles, that is rounds of sending and waiting."""
    late: LatePolicy = LatePolicy.ACCEPT
    """What happens to a response that arrives after its deadline, while the call is still open:
    `accept` completes the call, `ignore` only logs it, `hold` keeps it for an operator."""
    late_window: Positive | None = None
    """How long a call that would fail without a response stays open, parked, for a late one."""


class AcknowledgeRequestSpec(HttpRequest):
    """A whole request, where those of `success` and `failed` differ in more than their bodies."""


def _body_or_request(
    value: Any, info: ValidationInfo
) -> BodyTemplate | AcknowledgeRequestSpec | None:
    """With a path or url beside it, a body; without, a whole request."""
    is_body = any(info.data.get(field, "invalid") is not None for field in ("path", "url"))
    if value is None or is_body:
        return None if value is None else BodyTemplate.parse(value)
    if not isinstance(value, dict) or not value.keys() & {"path", "url"}:
        raise ValueError(
            "needs acknowledge.path, the same for success and failed, or a path of its own:"
            " {method: …, path: …, body: …}"
        )
    return AcknowledgeRequestSpec.model_validate(value)


_BodyOrRequest = Annotated[
    BodyTemplate | AcknowledgeRequestSpec | None,
    PlainValidator(
        _body_or_request, json_schema_input_type=BodyTemplate | AcknowledgeRequestSpec | None
    ),
]


class AcknowledgeSpec(FilePart):
    """The acknowledgement: tells the provider that its response arrived, or that we gave up.

    With `path` (or `url`), `success` and `failed` are bodies; without, each is a whole request.
    """

    method: Method = "POST"
    path: PathTemplate | None = None
    """As `request.path`; usually with `{reference}`."""
    url: Expression | None = None
    """As `request.url`, instead of `path`."""
    headers: Headers = Field(default_factory=dict)
    """As `request.headers`."""
    encoding: Encoding = "json"
    """How the bodies are encoded."""
    success: _BodyOrRequest = None
    """What is sent once the response is recorded; left out: nothing."""
    failed: _BodyOrRequest = None
    """What is sent when a cycle is given up; left out: nothing."""
    timeout: Positive = timedelta(seconds=5)
    """The timeout of one attempt."""
    within: Positive = timedelta(hours=24)
    """How long it is retried; after that the outcome says `acknowledgement_owed`."""
    undoes: bool = True
    """Whether an accepted `failed` calls the work off, so that the request had no effect."""
    accept: Expression | None = None
    """Answers for which this is true count as accepted too, for instance status == `409`."""

    def request(self, kind: str) -> AcknowledgeRequestSpec | None:
        """The request of an acknowledgement, `success` or `failed`; None: nothing is sent."""
        return self.success_request if kind == "success" else self.failed_request

    @cached_property
    def success_request(self) -> AcknowledgeRequestSpec | None:
        """The request that acknowledges a response."""
        return self._request_with(self.success)

    @cached_property
    def failed_request(self) -> AcknowledgeRequestSpec | None:
        """The request that reports a failure."""
        return self._request_with(self.failed)

    def _request_with(
        self, sent: BodyTemplate | AcknowledgeRequestSpec | None
    ) -> AcknowledgeRequestSpec | None:
        if not isinstance(sent, BodyTemplate):
            return sent
        return AcknowledgeRequestSpec.model_construct(
            method=self.method,
            path=self.path,
            url=self.url,
            headers=self.headers,
            encoding=self.encoding,
            body=sent,
        )


class ReconcileSpec(FilePart):
    """How the truth about a call is found out that ended with unknown effect."""

    every: Positive = timedelta(hours=1)
    """The pause between two status requests."""
    within: Positive = Field(default=timedelta(days=3), alias="for")
    """How long the provider is asked; after that the effect stays unknown."""


UNKNOWN: Final = "unknown"
"""In `park`: every end with unknown effect."""

NEVER_PARKED: Final = frozenset({OutcomeCode.CANCELLED, OutcomeCode.EXPIRED})
"""Codes after which no request is ever sent again."""

_PARKED_CODES: Final = tuple(code.value for code in OutcomeCode if code not in NEVER_PARKED)
_PARK_CODES: Final = (*_PARKED_CODES, UNKNOWN)


def _one_of(codes: Sequence[str]) -> Callable[[str], str]:
    def check(code: str) -> str:
        if code not in codes:
            raise ValueError(f"must be one of {', '.join(codes)}.{did_you_mean(code, codes)}")
        return code

    return check


ParkedCode = Annotated[
    str, AfterValidator(_one_of(_PARKED_CODES)), WithJsonSchema({"enum": [*_PARKED_CODES]})
]
"""A code of `OutcomeCode` that a call can be parked with."""

ParkCode = Annotated[
    str, AfterValidator(_one_of(_PARK_CODES)), WithJsonSchema({"enum": [*_PARK_CODES]})
]
"""Such a code, or `unknown`."""


class ReprocessLimit(FilePart):
    """How often a parked call is reprocessed."""

    attempts: int = Field(default=24, ge=1, le=10000)
    """After this many attempts it ends as failed instead of being parked again."""


SensitiveField = Annotated[
    str, Field(pattern=r"^(payload|response)(\.[^.\s]+)*$", max_length=MAX_KEY_LENGTH)
]


class Operation(FilePart):
    """One thing the provider does for us."""

    request: RequestSpec
    payload_schema: PayloadSchema | None = None
    """JSON Schema (draft 2020-12) that payloads are validated against before anything is sent."""
    receipt: ReceiptSpec = ReceiptSpec()
    response: ResponseSpec
    acknowledge: AcknowledgeSpec | None = None
    on_failure: OnFailure = OnFailure.FAIL
    """What happens to a call that cannot finish: it fails, or is parked and reprocessed later. Left
    out, a call whose request may not be repeated is parked while its effect is unknown."""
    park: tuple[ParkCode, ...] | None = None
    """Which ends are parked, by code, where `on_failure` is too coarse; `unknown`: every end with
    unknown effect. All other ends are final."""
    reconcile: ReconcileSpec | None = None
    """Asks on after an end with unknown effect; needs `response.status`."""
    sum: Expression | None = None
    """A number, over `payload`, `metadata` and `call`, that is added up over the calls whose effect
    is unknown, for instance `payload.amount`."""
    flag: dict[str, Flag] = Field(default_factory=dict)
    """As the provider's `flag`; a call is sent only if both allow it."""
    when_off: WhenOff | None = None
    """What happens to a call that a flag or the breaker does not allow: it is parked or refused.
    Defaults to `on_failure`."""
    without_control: WithoutControl = WithoutControl.SEND
    """What happens to new calls while neither the engine nor the ledger says what the provider's
    flags and breaker are: `send` uses what was known last, or this file; `park` sends nothing until
    they are known."""
    lane: Literal["single", "bulk"] = "single"
    """How the Python client starts calls: each in a workflow of its own, or many in one.
    See docs/bulk.md."""
    parked_for: Positive = timedelta(days=7)
    """How long a call stays parked before it ends, each time it is parked."""
    reprocess: ReprocessLimit = ReprocessLimit()
    """How often a parked call is reprocessed."""
    notices: OperationNotices = OperationNotices()
    queue_within: Positive = timedelta(hours=1)
    """How long a request may wait for a worker of the provider's queue."""
    fairness: Expression | None = None
    """The tenant of a call, over `payload`, `metadata` and `call`. When requests have to wait,
    tenants take turns. Visible in the Temporal UI: no personal data."""
    sensitive: tuple[SensitiveField, ...] = ()
    """Fields that are stored encrypted and shown to nobody but the caller, such as `payload.card`
    or `response.iban`; lists are passed through. Needs `ACKBRIDGE_ENCRYPTION_KEYS`."""

    @cached_property
    def sends_short_id(self) -> bool:
        """Whether the provider gets `call.short`, and may call back with it."""
        return any(("call", "short") in one.referenced_names() for one in self.request.expressions)

    @property
    def parked_codes(self) -> tuple[str, ...] | None:
        """The codes of the ends that are parked, or `unknown`; None: as `on_failure` says."""
        if self.park is not None:
            return self.park
        is_silent = "on_failure" not in self.model_fields_set
        return (UNKNOWN,) if is_silent and not self.request.is_repeatable else None


# Limits and batches of a provider


HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=100)]


class QuotaHeaders(FilePart):
    """Names of the headers in which a provider states its quota, where they are not the usual ones
    (`RateLimit`, `RateLimit-*`, `X-RateLimit-*`, `X-Rate-Limit-*`)."""

    remaining: HeaderName
    """Requests that are accepted until the reset."""
    reset: HeaderName
    """Seconds until the reset, a Unix time in seconds or milliseconds, or a date."""
    limit: HeaderName | None = None
    """Requests of the whole window."""


class LimitSpec(FilePart):
    """Limits on sending. With limits, requests go through the provider's own queue.

    Acknowledgements are not limited.
    """

    requests_per_second: float | None = Field(default=None, gt=0)
    """Requests per second, all workers together."""
    per_tenant: float | None = Field(default=None, gt=0)
    """Requests per second for each value of an operation's `fairness`."""
    concurrent: int | None = Field(default=None, gt=0)
    """Requests in flight in each worker."""
    concurrent_total: int | None = Field(default=None, gt=0)
    """Requests in flight, all workers together; each one costs two transactions of the ledger."""
    concurrent_per_tenant: int | None = Field(default=None, gt=0)
    """The same for each value of an operation's `fairness`."""
    quota_of: Literal["provider", "tenant"] = "provider"
    """Whose quota a 429 and rate-limit headers are about; `tenant`: of the value of `fairness`."""
    headers: QuotaHeaders | None = None

    @property
    def restricts_sends(self) -> bool:
        """Whether sends are limited, whatever the provider answers."""
        limits = (self.requests_per_second, self.per_tenant, self.concurrent)
        return any(limits) or self.is_leased

    @property
    def is_leased(self) -> bool:
        """Whether each request needs a lease."""
        return self.concurrent_total is not None or self.concurrent_per_tenant is not None


class HealthSpec(FilePart):
    """A GET request that shows whether the provider is up. Below 400 it is; 408, 425, 429, 5xx and
    no answer mean that it is not; other answers are inconclusive."""

    path: str = Field(pattern=r"^/[!-z|~]*$")
    """Starts with `/`; not a template."""
    every: Positive = timedelta(seconds=30)
    """How often it is sent; every `breaker.probe_every` while the breaker is half open."""
    timeout: Annotated[Positive, Field(le=timedelta(seconds=20))] = timedelta(seconds=5)
    """At most 20 s: the breaker is evaluated between health requests."""


class ReprocessSchedule(FilePart):
    """Scheduled batches that reprocess parked calls. Needs either `cron` or `every`.

    A batch that is due while the previous one is running is skipped.
    """

    cron: CronSchedule | None = None
    """Minute, hour, day of the month, month, day of the week."""
    every: Annotated[Positive, Field(ge=timedelta(seconds=10))] | None = None
    """An interval, counted from 1970-01-01T00:00Z."""
    timezone: TimeZone = Field(default=ZoneInfo("UTC"))
    """The time zone of `cron`."""
    jitter: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(0)
    """Each batch starts up to this much later, at random."""
    operation: Name | None = None
    """Only calls of this operation."""
    reason: ParkedCode | None = None
    """Only calls parked for this reason, such as `no_response`."""
    older_than: Positive | None = None
    """Only calls that have been parked for at least this long."""
    at_most: int | None = Field(default=None, ge=1)
    """The maximum number of calls, oldest first."""
    rate: float = Field(default=5.0, gt=0, le=1000)
    """Calls per second."""
    concurrency: int = Field(default=20, ge=1, le=1000)
    """The maximum number of calls in progress at once."""
    ramp: Ramp | None = None
    """Start at a lower rate."""

    def next_start(self, after: datetime) -> datetime | None:
        """When the first batch after a moment is due, without jitter."""
        if self.cron is not None:
            return self.cron.next(after, self.timezone)
        return next_interval(after, self.every) if self.every is not None else None

    def selects_at(
        self, operation: str, parked_at: datetime, reason: str | None
    ) -> datetime | None:
        """When a batch selects a call at the latest; None if none does, as far as is known.

        Args:
            reason: why the call is parked, if that is known.
        """
        if self.operation not in (None, operation) or self.reason not in (None, reason):
            return None
        start = self.next_start(parked_at + (self.older_than or timedelta(0)))
        return start and start + self.jitter

    def batch_request(self, provider: str) -> BatchRequest:
        """The request that a scheduled batch is started with."""
        return BatchRequest(
            selection=ParkedSelection(
                provider=provider,
                operation=self.operation,
                reason=self.reason,
                older_than=self.older_than,
                at_most=self.at_most,
            ),
            rate=self.rate,
            concurrency=self.concurrency,
            ramp=self.ramp,
            by=BATCH_ACTOR,
        )


ExamplePattern = Annotated[str, Field(pattern=r"^[^/\\].*\.json$")]
"""A relative path, in which `*` stands for any characters and `**` for any folders."""


class Integration(FilePart):
    """One provider: a file `integrations/<provider>.yaml`."""

    provider: Name
    """The provider's name, used in call ids and in the path of its callbacks."""
    base_url: str
    """The absolute URL of the provider's API; paths of requests are appended to it."""
    hosts: dict[HostPattern, Literal["auth", "open"]] = Field(default_factory=dict)
    """Where else requests may go, besides the host of `base_url`, by `url` fields: host names,
    `*.` for any subdomain, `:port` where it is not the usual one. `auth`: with our authentication;
    `open`: without."""
    auth: Auths = ()
    """How requests are authenticated; a list: in several ways at once. Secrets are references such
    as `env:NAME`."""
    callbacks: CallbackSpec | None = None
    limits: LimitSpec | None = None
    egress: Literal["shared", "dedicated"] = "shared"
    """`dedicated`: only workers of the provider's own queue may send to it."""
    private_networks: tuple[CidrNetwork, ...] = ()
    """Where requests may go besides public addresses, such as `10.20.0.0/16`; checked against the
    address of every connection. Loopback needs no entry where a URL names it (`localhost`,
    `127.0.0.1`)."""
    tls: TlsSpec | None = None
    """Own authorities, and a certificate of ours (mutual TLS); also for token endpoints."""
    plain_http: bool = False
    """Whether credentials may be sent over `http`, which everybody on the way can read. Loopback
    does not need it."""
    health: HealthSpec | None = None
    breaker: BreakerPolicy | None = BreakerPolicy()
    """When sending is paused because the provider fails, and how it is resumed; null: never."""
    flag: dict[str, Flag] = Field(default_factory=dict)
    """By environment: on, off, internal (calls with the audience `internal` only), or a percentage
    of keys. Environments that are not listed are on."""
    reprocess: ReprocessSchedule | None = None
    examples: ExamplePattern | tuple[ExamplePattern, ...] = ()
    """Recorded messages of the provider: JSON files, such as `examples/acme/*.json`, relative to
    this file's folder. `ackbridge check` evaluates the file over them."""
    operations: dict[Name, Operation] = Field(min_length=1)
    """Operations by name."""

    @property
    def example_patterns(self) -> tuple[str, ...]:
        """The patterns of `examples`."""
        return (self.examples,) if isinstance(self.examples, str) else self.examples

    hook: HookFile | None = None
    """A Python file beside this one, with functions `render`, `sign` or `read`: the last resort,
    where neither fields nor expressions are enough."""
    _code: Hook = PrivateAttr(default_factory=Hook)

    @property
    def code(self) -> Hook:
        """The functions of `hook`."""
        return self._code

    @cached_property
    def has_unsigned_key(self) -> bool:
        """Whether a delivery could be sent again under another event key, at any later time.

        So it is where the signature covers no time, and the key comes from headers or the query,
        which it does not cover either. What is asked about anyway (`fetch`) may be repeated.
        """
        verify = self.callbacks.verify if self.callbacks is not None else None
        key = self.callbacks.event_key if self.callbacks is not None else None
        if key is None or not isinstance(verify, HmacVerify) or verify.signs_time:
            return False
        responses = [operation.response for operation in self.operations.values()]
        if not any(one.mode == "callback" and not one.fetch for one in responses):
            return False
        unsigned = set(key.fields_of("headers")) - verify.signed_headers
        return bool(unsigned) or any(True for _ in key.fields_of("query"))

    def attach(self, code: Hook) -> None:
        """Take the functions of `hook`, when the file is loaded."""
        self._code = code

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        check_http_url(url, "use auth")
        if urlsplit(url).query:
            raise ValueError("must not contain a query")
        return url.rstrip("/")

    def access_to(self, url: str) -> Literal["auth", "open"] | None:
        """Whether a request may go to a URL, with or without authentication; None: it may not."""
        base, target = urlsplit(self.base_url), urlsplit(url)
        origin = _origin(target)
        if origin == _origin(base):
            return "auth"
        if target.scheme not in ("https", base.scheme):
            return None
        is_readable = target.scheme == "http" and not is_loopback_host(origin[1])
        patterns = sorted(self.hosts, key=lambda pattern: ("*" in pattern, -len(pattern)))
        found = (pattern for pattern in patterns if _is_host(pattern, *origin))
        pattern = next(found, None)
        access = None if pattern is None else self.hosts[pattern]
        return None if access == "auth" and is_readable and not self.plain_http else access


def _origin(url: SplitResult) -> tuple[str, str, int]:
    return url.scheme, url.hostname or "", url.port or _DEFAULT_PORTS[url.scheme]


def _is_host(pattern: str, scheme: str, host: str, port: int) -> bool:
    name, _, own_port = pattern.partition(":")
    if port != int(own_port or _DEFAULT_PORTS[scheme]):
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


_DEFAULT_PORTS = {"http": 80, "https": 443}
