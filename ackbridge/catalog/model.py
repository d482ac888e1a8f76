"""The grammar of integration files."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    RootModel,
    WithJsonSchema,
    field_validator,
)

from ackbridge.contracts.batches import BatchRequest, ParkedSelection, Ramp
from ackbridge.contracts.breaker import BreakerPolicy
from ackbridge.contracts.limits import LANGUAGE_PATTERN, Language, Name, ParkedReason
from ackbridge.contracts.notices import best_language
from ackbridge.contracts.plan import LatePolicy, OnFailure, WhenOff
from ackbridge.contracts.wire import Duration
from ackbridge.control.deadlines import LONGEST_WINDOW, DeadlineRules
from ackbridge.security.specs import AuthSpec, VerifySpec

from .cron import Cron, next_interval
from .expressions import Expression
from .fields import (
    Condition,
    Encoding,
    FilePart,
    Flag,
    Headers,
    Positive,
    Query,
    StatusCode,
    is_http_url,
)
from .payload_schema import PayloadSchema
from .templates import BodyTemplate, PathTemplate, TextTemplate

UNDETERMINED: Final = "und"
"""The language of texts of which the file does not say it."""


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


class OperationNotices(FilePart):
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


SCHEDULE = "schedule"
"""Who wants a scheduled batch."""


def _cron(value: object) -> Cron:
    if not isinstance(value, str):
        raise ValueError("must be a text such as '30 2 * * *'")  # noqa: TRY004 -- pydantic turns only ValueError into a validation error
    return Cron(value)


def _zone(value: object) -> ZoneInfo:
    try:
        return ZoneInfo(str(value))
    except (OSError, ValueError, KeyError):
        raise ValueError("is not a time zone such as UTC or Europe/Berlin") from None


class ReprocessSchedule(FilePart):
    """Batches that take parked calls up again by themselves, at these times.

    A batch that is due while the last one still runs is left out.
    """

    cron: (
        Annotated[
            Cron,
            PlainValidator(_cron),
            PlainSerializer(str, return_type=str),
            WithJsonSchema({"type": "string", "examples": ["30 2 * * *", "*/15 8-18 * * mon-fri"]}),
        ]
        | None
    ) = None
    """Minute, hour, day of the month, month, day of the week."""
    every: Annotated[Positive, Field(ge=timedelta(seconds=10))] | None = None
    """Or an interval, from 1970 on."""
    timezone: Annotated[
        ZoneInfo, PlainValidator(_zone), WithJsonSchema({"type": "string", "default": "UTC"})
    ] = Field(default=ZoneInfo("UTC"))
    """Which clock `cron` means."""
    jitter: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(0)
    """Each batch begins up to so much later."""
    operation: Name | None = None
    """Only calls of this operation."""
    reason: ParkedReason | None = None
    """Only calls that are parked for this reason, such as `no_response`."""
    older_than: Positive | None = None
    """Only calls that have been parked for so long."""
    at_most: int | None = Field(default=None, ge=1)
    """How many calls, the oldest first."""
    rate: float = Field(default=5.0, gt=0, le=1000)
    """Calls per second."""
    concurrency: int = Field(default=20, ge=1, le=1000)
    """How many calls may be under way at once."""
    ramp: Ramp | None = None
    """A low rate at first."""

    def next(self, after: datetime) -> datetime | None:
        """When the first batch after a moment is due."""
        if self.cron is not None:
            return self.cron.next(after, self.timezone)
        return next_interval(after, self.every) if self.every is not None else None

    def takes_up(self, operation: str, parked_at: datetime, reason: str | None) -> datetime | None:
        """When a batch takes up a call that is parked at a moment; None: none, as far as known.

        Args:
            reason: why it is parked, if that is known.
        """
        is_ours = self.operation in (None, operation) and self.reason in (None, reason)
        due = self.next(parked_at + (self.older_than or timedelta(0))) if is_ours else None
        return due and due + self.jitter

    def request(self, provider: str) -> BatchRequest:
        """What such a batch is asked to do."""
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
            by=SCHEDULE,
        )


class ReprocessLimit(FilePart):
    """What becomes of a parked call that is taken up again, and fails again."""

    attempts: int = Field(default=24, ge=1, le=10000)
    """How often it is taken up before it ends as failed; until then it is parked again."""


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Method = Annotated[
    Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
    BeforeValidator(_upper),
]
"""An HTTP method."""


class RequestSpec(FilePart):
    """What is sent to the provider."""

    method: Method = "POST"
    path: PathTemplate
    """From the `/` on; `{expressions}` are quoted for a URL, and none may be null."""
    query: Query = Field(default_factory=dict)
    """Null ones are left out; a list repeats the parameter."""
    headers: Headers = Field(default_factory=dict)
    """Null ones are left out."""
    encoding: Encoding = "json"
    """How the body is written."""
    body: BodyTemplate | None = None
    """One JMESPath expression for the whole body, or a mapping whose texts are templates."""
    idempotency_header: str | None = Field(
        default="Idempotency-Key", pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"
    )
    """Which header carries the idempotency key; null for none."""


class ReceiptSpec(FilePart):
    """When the provider has our request, and how long we try."""

    timeout: Positive = timedelta(seconds=5)
    """Of one attempt."""
    attempts: int = Field(default=5, ge=1, le=1000)
    """How often the request is sent at the most, in one cycle."""
    within: Positive = timedelta(minutes=2)
    """How long it is tried at the most, in one cycle."""
    reference: Expression | None = None
    """Where the answer has the provider's own id of its work."""
    accept: Expression | None = None
    """Which answers besides 2xx are a receipt too."""


class MatchSpec(FilePart):
    """Where a callback says which call it is about. With both, the call id decides."""

    call_id: Expression | None = None
    """Where our call id is, when the provider repeats it."""
    reference: Expression | None = None
    """Where the provider's own id is; the receipt said it before."""


class FailureRule(FilePart):
    """When a message is the provider's failure."""

    when: Expression
    """True for a failure; it wins over extension and success."""
    retryable: Condition = Expression("`false`")
    """Whether a new cycle may help."""
    reason: Expression | None = None
    """Why it failed, for people."""


class ExtensionRule(FilePart):
    """When the provider asks for more time: until a moment, else by a span, else once more."""

    when: Expression
    """True for a request for more time; it wins over success."""
    until: Expression | None = None
    """The new deadline: ISO 8601 (UTC unless it says otherwise) or Unix seconds."""
    by: Expression | None = None
    """How much later than now: seconds, or a text such as 5m."""


class LearningSpec(FilePart):
    """How the deadline is learned from the provider's own response times."""

    quantile: float = Field(default=0.99, gt=0, lt=1)
    """Which quantile of the response times counts."""
    factor: float = Field(default=1.5, ge=1)
    """What it is multiplied by."""
    min_samples: int = Field(default=50, ge=1)
    """Until so many calls were seen in the window, `initial` holds, or what was learned before."""
    window: Annotated[Positive, Field(le=LONGEST_WINDOW)] = timedelta(hours=1)
    """How far back response times count; a day at the most."""
    scouts: float = Field(default=0.1, ge=0, le=1)
    """The share of calls that wait longer, as long as `initial` says or twice the deadline:
    without them nobody would see that answers have become slower."""


class DeadlineSpec(FilePart):
    """How long to wait for the response, from the moment of sending."""

    initial: Positive = timedelta(seconds=30)
    """While nothing is learned."""
    learn: LearningSpec | None = None
    """Leave it out to keep `initial`."""
    floor: Positive = timedelta(seconds=1)
    """Never less."""
    ceiling: Positive = timedelta(minutes=10)
    """Never more, extensions included."""

    @property
    def at_first(self) -> timedelta:
        """How long to wait while nothing is learned."""
        return min(self.initial, self.ceiling)

    @property
    def rules(self) -> DeadlineRules | None:
        """How it is learned; None where it is not."""
        if self.learn is None:
            return None
        return DeadlineRules(
            initial=self.at_first,
            quantile=self.learn.quantile,
            factor=self.learn.factor,
            min_samples=self.learn.min_samples,
            window=self.learn.window,
            floor=min(self.floor, self.ceiling),
            ceiling=self.ceiling,
            scouts=self.learn.scouts,
        )


class StatusSpec(FilePart):
    """How to ask the provider for its answer. What is left out is the response's own."""

    method: Method = "GET"
    path: PathTemplate
    """From the `/` on; usually with `{reference}`."""
    query: Query = Field(default_factory=dict)
    """As in `request`."""
    headers: Headers = Field(default_factory=dict)
    """As in `request`."""
    success: Expression | None = None
    """When the answer is a success."""
    failure: FailureRule | None = None
    """When the answer is a failure."""
    extension: ExtensionRule | None = None
    """When the answer asks for more time."""
    data: Expression | None = None
    """Which part of the answer is the response."""


class PollSpec(FilePart):
    """How often the provider is asked, until it has an answer or the deadline passes."""

    every: Positive = timedelta(seconds=5)
    """The pause between two questions; a `Retry-After` makes it longer."""


class ResponseSpec(FilePart):
    """The provider's answer."""

    mode: Literal["sync", "callback", "poll"]
    """In the HTTP response itself, by callback, or by asking for it."""
    match: MatchSpec = MatchSpec()
    """Which call a callback is about."""
    success: Expression | None = None
    """When a message is the success. In sync mode the default is any 2xx."""
    failure: FailureRule | None = None
    """When a message is a failure."""
    extension: ExtensionRule | None = None
    """When a message asks for more time."""
    data: Expression | None = None
    """Which part of a message is the response; the whole body by default."""
    deadline: DeadlineSpec = DeadlineSpec()
    """How long to wait."""
    status: StatusSpec | None = None
    """How to ask: before giving up, and in poll mode again and again."""
    poll: PollSpec | None = None
    """In poll mode: how often to ask."""
    cycles: int = Field(default=1, ge=1, le=100)
    """How many rounds of sending and waiting there are at the most."""
    late: LatePolicy = LatePolicy.ACCEPT
    """What becomes of a response that comes after we have given up."""
    late_window: Positive | None = None
    """How long a call that would fail for lack of an answer stays open, parked, for a late one."""


class AcknowledgeSpec(FilePart):
    """How the provider is told that we have its answer, or have given up on it."""

    method: Method = "POST"
    path: PathTemplate
    """From the `/` on; usually with `{reference}`."""
    headers: Headers = Field(default_factory=dict)
    """As in `request`."""
    encoding: Encoding = "json"
    """How the bodies are written."""
    success: BodyTemplate | None = None
    """What is sent when we have the answer; nothing is sent when it is left out."""
    failed: BodyTemplate | None = None
    """What is sent when we have given up; nothing is sent when it is left out."""
    timeout: Positive = timedelta(seconds=5)
    """Of one attempt."""
    within: Positive = timedelta(hours=24)
    """How long it is tried before it stays owed."""


class Operation(FilePart):
    """One thing the provider does for us."""

    request: RequestSpec
    payload_schema: PayloadSchema | None = None
    """JSON Schema (draft 2020-12) of a call's payload, checked before anything is sent."""
    receipt: ReceiptSpec = ReceiptSpec()
    response: ResponseSpec
    acknowledge: AcknowledgeSpec | None = None
    on_failure: OnFailure = OnFailure.FAIL
    """What becomes of a call that could not finish: it fails, or is parked."""
    flag: dict[str, Flag] = Field(default_factory=dict)
    """As the provider's own `flag`; a call needs both of them."""
    when_off: WhenOff | None = None
    """What becomes of a call that a flag or the breaker keeps back: it is parked, or refused.
    Left out, as `on_failure` says."""
    parked_for: Positive = timedelta(days=7)
    """How long a parked call waits at the most, each time."""
    reprocess: ReprocessLimit = ReprocessLimit()
    """What becomes of a parked call that is taken up again."""
    notices: OperationNotices = OperationNotices()
    queue_within: Positive = timedelta(hours=1)
    """How long a request may wait for a worker of the provider's queue."""
    fairness: Expression | None = None
    """Whose request it is, over payload, metadata and call: where sends have to wait, each of them
    gets its turn. Visible in the engine: no personal data."""


class ReplyCodes(FilePart):
    """Which status codes this provider gets, because providers differ."""

    accepted: StatusCode = 200
    """The message is durable, or nothing we wait for."""
    duplicate: StatusCode = 200
    """It has been there before."""
    unmatched: StatusCode = 202
    """It is kept until a call appears that it is about."""
    forged: StatusCode = 401
    """It does not verify."""
    unreadable: StatusCode = 400
    """It is not JSON, or has no event key."""


class CallbackSpec(FilePart):
    """How this provider calls back, at `<public URL>/callbacks/<provider>`."""

    verify: VerifySpec
    """How a callback proves that it is the provider's own."""
    event_key: Expression
    """What makes two callbacks one; over the callback's document."""
    replies: ReplyCodes = ReplyCodes()
    """Which status codes this provider gets."""
    max_bytes: int = Field(default=1024 * 1024, gt=0)
    """Larger bodies are refused with 413, unread."""


class LimitSpec(FilePart):
    """What this provider tolerates; with limits, every request goes through its own queue."""

    requests_per_second: float | None = Field(default=None, gt=0)
    """Sends, all workers together; the engine enforces it on the provider's queue."""
    per_tenant: float | None = Field(default=None, gt=0)
    """Sends per second for each value of an operation's `fairness`."""
    concurrent: int | None = Field(default=None, gt=0)
    """Sends at once, in each worker."""


class HealthSpec(FilePart):
    """A request that tells whether the provider is up."""

    path: str = Field(pattern=r"^/[!-z|~]*$")
    """From the `/` on; not a template."""
    every: Positive = timedelta(seconds=30)
    """How often it is asked; half open, the breaker asks every `breaker.probe_every`."""
    timeout: Positive = timedelta(seconds=5)
    """Later than this it is no answer."""


class Integration(FilePart):
    """One provider: a file `integrations/<provider>.yaml`."""

    provider: Name
    """Its name, as in call ids and in the path of its callbacks."""
    base_url: str
    """Where its API is; the paths of the operations are put after it."""
    auth: AuthSpec | None = None
    """How we authenticate; secrets are references."""
    callbacks: CallbackSpec | None = None
    """How it calls back."""
    limits: LimitSpec | None = None
    """What it tolerates."""
    egress: Literal["shared", "dedicated"] = "shared"
    """dedicated: only workers of its own queue may reach it."""
    health: HealthSpec | None = None
    """How to see whether it is up."""
    breaker: BreakerPolicy | None = BreakerPolicy()
    """When it is given a pause, and how it is taken up again; null: never by itself."""
    flag: dict[str, Flag] = Field(default_factory=dict)
    """By environment: on, off, internal, or a percentage. One that is not named is on."""
    reprocess: ReprocessSchedule | None = None
    """When its parked calls are taken up again by themselves."""
    operations: dict[Name, Operation] = Field(min_length=1)
    """What it does for us, by name."""

    @field_validator("base_url")
    @classmethod
    def _is_absolute(cls, url: str) -> str:
        if not is_http_url(url):
            raise ValueError("must be an absolute http or https URL")
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not carry credentials; use auth")
        if parts.query or parts.fragment:
            raise ValueError("must be a plain URL without query and fragment")
        return url.rstrip("/")
