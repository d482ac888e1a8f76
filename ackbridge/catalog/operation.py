"""One operation of an integration file: request, receipt, response, acknowledgement, notices."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ackbridge.contracts.plan import LatePolicy, OnFailure, WhenOff
from ackbridge.control.deadlines import LONGEST_WINDOW, DeadlineRules

from .bodies import BodyTemplate
from .expressions import Expression
from .fields import (
    Condition,
    Encoding,
    FilePart,
    Flag,
    Headers,
    Positive,
    Query,
)
from .notice_texts import NoticeCatalog
from .payloads import PayloadSchema
from .reprocessing import Again
from .templates import PathTemplate


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Method = Annotated[
    Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
    BeforeValidator(_upper),
]
"""An HTTP method."""


class Request(FilePart):
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


class Receipt(FilePart):
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


class MatchBy(FilePart):
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


class Learn(FilePart):
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


class Deadline(FilePart):
    """How long to wait for the response, from the moment of sending."""

    initial: Positive = timedelta(seconds=30)
    """While nothing is learned."""
    learn: Learn | None = None
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


class Status(FilePart):
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


class Response(FilePart):
    """The provider's answer."""

    mode: Literal["sync", "callback", "poll"]
    """In the HTTP response itself, by callback, or by asking for it."""
    match: MatchBy = MatchBy()
    """Which call a callback is about."""
    success: Expression | None = None
    """When a message is the success. In sync mode the default is any 2xx."""
    failure: FailureRule | None = None
    """When a message is a failure."""
    extension: ExtensionRule | None = None
    """When a message asks for more time."""
    data: Expression | None = None
    """Which part of a message is the response; the whole body by default."""
    deadline: Deadline = Deadline()
    """How long to wait."""
    status: Status | None = None
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

    request: Request
    payload_schema: PayloadSchema | None = None
    """JSON Schema (draft 2020-12) of a call's payload, checked before anything is sent."""
    receipt: Receipt = Receipt()
    response: Response
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
    reprocess: Again = Again()
    """What becomes of a parked call that is taken up again."""
    notices: NoticeCatalog = NoticeCatalog()
    queue_within: Positive = timedelta(hours=1)
    """How long a request may wait for a worker of the provider's queue."""
    fairness: Expression | None = None
    """Whose request it is, over payload, metadata and call: where sends have to wait, each of them
    gets its turn. Visible in the engine: no personal data."""
