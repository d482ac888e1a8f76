"""A call as its caller sees it: the request, the outcome, the status, the notice."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, Field, computed_field

from .limits import Identifier, Language, Name
from .names import call_id
from .wire import StrictModel, Wire, digest


class CallRequest(StrictModel):
    """The one argument of the workflow `IntegrationCall`.

    Attributes:
        provider, operation: which integration, and what it shall do.
        key: the caller's idempotency key; no personal data, ids are never encrypted.
        payload: what the operation needs, checked against its `payload_schema`.
        audience: who the call is for, for flags (`internal` users first).
        reply_to: the name of a configured subscriber, who is told what becomes of the call.
        metadata: the caller's own labels; carried along, never interpreted.
        language: of the notices, a tag such as `de` or `en-US`; where there is no text in it,
            `en` stands in for `en-US`, and the operation's first language for all others.
    """

    provider: Name
    operation: Name
    key: Identifier
    payload: Any = None
    audience: str | None = Field(default=None, max_length=64)
    reply_to: Name | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    # Workers of an earlier version refuse fields that they do not know.
    language: Language | None = Field(default=None, exclude_if=lambda tag: tag is None)

    @property
    def call_id(self) -> str:
        """`<provider>.<operation>.<key>`, which is also the workflow's id."""
        return call_id(self.provider, self.operation, self.key)

    @property
    def digest(self) -> str:
        """What makes two requests the same: provider, operation, key and payload."""
        return digest([self.provider, self.operation, self.key, self.payload])


class Stage(StrEnum):
    """Where a call is."""

    PREPARING = "preparing"
    SENDING = "sending"
    AWAITING_RESPONSE = "awaiting_response"
    CAPTURING = "capturing"
    ACKNOWLEDGING = "acknowledging"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the caller's answer stands and the call is over."""
        return self in (Stage.COMPLETED, Stage.FAILED, Stage.CANCELLED)


class OutcomeStatus(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class NoticeStatus(StrEnum):
    """What whoever waits for a call can be told now.

    Attributes:
        ACCEPTED: it is under way.
        DELAYED: it is parked; the notice says what to tell a user, and by when, if anybody knows.
        COMPLETED, FAILED, CANCELLED: it has its outcome; a failed one's notice has the alternative.
    """

    ACCEPTED = "accepted"
    DELAYED = "delayed"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Notice(Wire):
    """What the caller can show a user.

    Attributes:
        kind: `delayed`, `failed`, `refused` or `cancelled`; to subscribers also `completed` and
            `completed_late`.
        title, message: for the user.
        alternative: another course the user may take.
        expected_at: when a delayed answer is expected, if anybody knows.
    """

    kind: str
    title: str
    message: str
    alternative: str | None = None
    expected_at: AwareDatetime | None = None


class Intervention(Wire):
    """Who intervened, and why."""

    by: str
    reason: str


class Timings(Wire):
    """When what happened, in the workflow's clock (UTC).

    `sent_at` and `received_at` belong to the cycle that was answered.
    """

    started_at: AwareDatetime
    sent_at: AwareDatetime | None = None
    receipt_at: AwareDatetime | None = None
    answered_at: AwareDatetime | None = None
    acknowledged_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None


class CallOutcome(Wire):
    """How a call ended; the result of the workflow, or the details of its failure.

    Attributes:
        call_id: the call.
        status: completed, failed or cancelled.
        response: the provider's answer, or what an operator forced.
        reference: the provider's own id of its work.
        notice: what to show the user when there is no response.
        reason: why it failed or was cancelled; for people.
        cycles: how many send-to-answer rounds were opened.
        attempts: how many times the request was sent, all cycles together.
        late: the response came after we had given up on it once, or had told its caller that it
            is delayed.
        forced: who forced the end, and why.
        cancelled: who cancelled, and why.
        acknowledgement_owed: the provider never accepted our acknowledgement.
        timings: when what happened.
    """

    call_id: str
    status: OutcomeStatus
    response: Any = None
    reference: str | None = None
    notice: Notice | None = None
    reason: str | None = None
    cycles: int = 0
    attempts: int = 0
    late: bool = False
    forced: Intervention | None = None
    cancelled: Intervention | None = None
    acknowledgement_owed: bool = False
    timings: Timings


class CallStatus(Wire):
    """Where a call is now; the answer of the query `status` and the update `await_outcome`.

    Attributes:
        stage: where it is.
        since: when it got there.
        cycle, attempts: rounds opened and requests sent so far.
        deadline, deadline_reason: until when the response is awaited, and why until then.
        reference: the provider's own id of its work.
        last_error: the last thing that went wrong, a refused signal included.
        notice: what to show the user now.
        standing: how the flags and the breaker stood when they were asked last.
        acknowledgements_owed: how many of our acknowledgements the provider has not accepted yet.
        duplicates: messages that were suppressed because their event key had been seen.
        parked_times: how often it was parked so far.
        reprocessed: how often it was taken up again after that; `reprocessed_by`: by whom last, a
            batch or a person.
        outcome: how it ended. It stands once the response is captured, while the stage may
            still be `acknowledging`.
    """

    call_id: str
    stage: Stage
    since: AwareDatetime
    cycle: int = 1
    attempts: int = 0
    deadline: AwareDatetime | None = None
    deadline_reason: str | None = None
    reference: str | None = None
    last_error: str | None = None
    notice: Notice | None = None
    standing: str | None = None
    acknowledgements_owed: int = 0
    duplicates: int = 0
    parked_times: int = 0
    reprocessed: int = 0
    reprocessed_by: str | None = None
    outcome: CallOutcome | None = None

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def answer(self) -> NoticeStatus:
        """What whoever waits can be told now."""
        if self.outcome is not None:
            return NoticeStatus(self.outcome.status)
        if self.stage is Stage.PARKED:
            return NoticeStatus.DELAYED
        return NoticeStatus.FAILED if self.stage is Stage.FAILED else NoticeStatus.ACCEPTED
