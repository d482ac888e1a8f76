"""What a caller sees of a call: request, outcome, status and notice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Any, Final

from pydantic import AwareDatetime, Field, computed_field, field_validator
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from . import search_attributes
from .limits import MAX_REQUEST_BYTES, Identifier, Language, Name
from .names import call_id
from .wire import InvalidInputError, StrictModel, Wire, canonical_json, digest, not_finite

MASKED: Final = "***"
"""Replaces what only the caller is shown."""

MIN_HIDDEN_LENGTH: Final = 3
"""Characters: shorter values are not replaced in texts, which would make them unreadable."""


def masked(value: Any, paths: Sequence[str]) -> Any:
    """A JSON value whose fields at these dotted paths are masked; lists are passed through."""
    for path in paths:
        value = _masked(value, path.split("."))
    return value


def _masked(value: Any, path: Sequence[str]) -> Any:
    if not path:
        return None if value is None else MASKED
    if isinstance(value, list):
        return [_masked(inner, path) for inner in value]
    if isinstance(value, dict) and path[0] in value:
        return value | {path[0]: _masked(value[path[0]], path[1:])}
    return value


def masked_answer(value: Any, paths: Sequence[str]) -> Any:
    """What a provider sent, for everybody but the caller.

    Fields with the names of sensitive ones are masked wherever they are: providers repeat what they
    were sent, and the operation of a message may not be known yet.
    """
    if "response" in paths:
        return None if value is None else MASKED
    return masked_names(value, {path.rpartition(".")[2] for path in paths})


def masked_names(value: Any, names: AbstractSet[str]) -> Any:
    """A JSON value whose fields with these names are masked."""
    if isinstance(value, list):
        return [masked_names(inner, names) for inner in value]
    if isinstance(value, dict):
        return {
            name: MASKED if name in names and inner is not None else masked_names(inner, names)
            for name, inner in value.items()
        }
    return value


def texts_at(value: Any, paths: Sequence[str]) -> Iterator[str]:
    """The texts and numbers at these paths and below them, as they may be quoted."""
    for path in paths:
        for found in _at(value, path.split(".")):
            text = str(found)
            if not isinstance(found, bool) and len(text) >= MIN_HIDDEN_LENGTH:
                yield text


def _at(value: Any, path: Sequence[str]) -> Iterator[str | int | float]:
    if isinstance(value, list):
        for inner in value:
            yield from _at(inner, path)
    elif isinstance(value, dict):
        below = path[1:]
        for name, inner in value.items():
            if not path or name == path[0]:
                yield from _at(inner, below)
    elif not path and isinstance(value, str | int | float):
        yield value


_NOT_FINITE: Final = "neither NaN nor Infinity is JSON"


class CallRequest(StrictModel):
    """The one argument of the workflow `IntegrationCall`.

    Attributes:
        key: the caller's idempotency key; ids are never encrypted, so no personal data.
        payload: validated against the operation's `payload_schema`.
        audience: the users the call is for; flags can be on for `internal` only.
        reply_to: the configured subscriber that is notified of the call.
        metadata: the caller's own labels, for templates and notices.
        language: of the notices, a tag such as `de` or `en-US`. Without a text in it, `en` replaces
            `en-US`, and the operation's first language any other.
        expires_at: no request is sent after this; acknowledgements and status requests are.
    """

    provider: Name
    operation: Name
    key: Identifier
    payload: Any = None
    audience: str | None = Field(default=None, max_length=64)
    reply_to: Name | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    language: Language | None = None
    expires_at: AwareDatetime | None = None

    @field_validator("payload")
    @classmethod
    def _refuse_not_finite(cls, payload: Any) -> Any:
        """Refuse NaN and Infinity, of which JSON would make null."""
        where = not_finite(payload)
        if where is not None:
            raise ValueError(f"{where or 'it'}: {_NOT_FINITE}")
        return payload

    @property
    def call_id(self) -> str:
        """`<provider>.<operation>.<key>`, also the workflow's id."""
        return call_id(self.provider, self.operation, self.key)

    @property
    def search_attributes(self) -> TypedSearchAttributes:
        """Those that the workflow is started with."""
        return TypedSearchAttributes(
            [
                SearchAttributePair(search_attributes.PROVIDER, self.provider),
                SearchAttributePair(search_attributes.OPERATION, self.operation),
                SearchAttributePair(search_attributes.STAGE, search_attributes.IN_FLIGHT),
            ]
        )

    @property
    def digest(self) -> str:
        """Identifies the request: a digest of provider, operation, key and payload."""
        return digest([self.provider, self.operation, self.key, self.payload])

    def check_size(self) -> int:
        """Check that the whole request can be stored in a workflow's history; returns its bytes.

        Raises:
            InvalidInputError: it is larger than `MAX_REQUEST_BYTES`; names its largest field. Or a
                payload that was not validated has a number that JSON does not have.
        """
        if (where := not_finite(self.payload)) is not None:
            raise InvalidInputError(f"payload: {where or 'it'}: {_NOT_FINITE}")
        fields = self.model_dump(mode="json", exclude_defaults=True)
        if (size := len(canonical_json(fields).encode())) > MAX_REQUEST_BYTES:
            sizes = {name: len(canonical_json(value).encode()) for name, value in fields.items()}
            largest = max(sizes, key=lambda name: sizes[name])
            raise InvalidInputError(
                f"{largest}: {sizes[largest]} bytes as JSON; the whole request has {size},"
                f" at most {MAX_REQUEST_BYTES} are allowed"
            )
        return size


class Stage(StrEnum):
    PREPARING = "preparing"
    SENDING = "sending"
    AWAITING_RESPONSE = "awaiting_response"
    CAPTURING = "capturing"
    ACKNOWLEDGING = "acknowledging"
    PARKED = "parked"
    RECONCILING = "reconciling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the call has ended."""
        return self in (Stage.COMPLETED, Stage.FAILED, Stage.CANCELLED)


class Effect(StrEnum):
    """What is known about the provider's side.

    Attributes:
        NONE: the request had no effect: it never arrived, or the provider refused or failed it, or
            accepted our failed acknowledgement.
        DONE: the response is recorded, or the provider says that the work is done.
        UNKNOWN: everything else.
    """

    NONE = "none"
    DONE = "done"
    UNKNOWN = "unknown"


class OutcomeCode(StrEnum):
    """Why a call ended without the provider's success, or is parked."""

    REFUSED = "refused"
    NO_RECEIPT = "no_receipt"
    NO_RESPONSE = "no_response"
    PROVIDER_FAILED = "provider_failed"
    NOT_SENT = "not_sent"
    UNREADABLE = "unreadable"
    SWITCHED_OFF = "switched_off"
    BREAKER_OPEN = "breaker_open"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class OutcomeStatus(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class NoticeStatus(StrEnum):
    """The state of a call for its caller and for subscribers.

    Attributes:
        ACCEPTED: in progress.
        DELAYED: parked; the notice says what to show, and when a response is expected, if known.
        COMPLETED, FAILED, CANCELLED: it has its outcome.
    """

    ACCEPTED = "accepted"
    DELAYED = "delayed"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Notice(Wire):
    """What the caller can show a user.

    Attributes:
        kind: `delayed`, `failed`, `refused`, `cancelled`, `unknown`, `unavailable`, `expired`; for
            subscribers also `completed` and `completed_late`.
        alternative: what the user can do instead.
        expected_at: when a delayed response is expected, if known.
    """

    kind: str
    title: str
    message: str
    alternative: str | None = None
    expected_at: AwareDatetime | None = None


class Intervention(Wire):
    """An operator's intervention in a call."""

    by: str
    reason: str


class Timings(Wire):
    """Times of a call, by the workflow's clock (UTC).

    `sent_at` and `receipt_at` are those of the cycle that was answered.
    """

    started_at: AwareDatetime
    sent_at: AwareDatetime | None = None
    receipt_at: AwareDatetime | None = None
    answered_at: AwareDatetime | None = None
    acknowledged_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None


class WaitingFor(StrEnum):
    """What a call waits for."""

    WORKER = "worker"
    RETRY = "retry"
    RATE_LIMIT = "rate_limit"
    BREAKER = "breaker"
    DEPENDENCY = "dependency"
    RESPONSE = "response"
    ACKNOWLEDGEMENT = "acknowledgement"
    REPROCESSING = "reprocessing"
    RECONCILIATION = "reconciliation"


class Waiting(Wire):
    """What a call waits for now.

    Attributes:
        next_attempt_at: of a retry.
        detail: for people, such as the last error or what is missing.
        is_delayed: whether the caller is notified of a delay.
    """

    what: WaitingFor
    since: AwareDatetime
    next_attempt_at: AwareDatetime | None = None
    detail: str | None = None
    is_delayed: bool = False


class CallOutcome(Wire):
    """How a call ended; the result of the workflow, or the details of its failure.

    Attributes:
        response: the provider's response, or the one given by an operator.
        reference: the provider's own id of its work.
        notice: what to show the user when there is no response.
        reason: why it failed or was cancelled.
        cycles: the number of cycles.
        attempts: how often the request was sent, in all cycles.
        late: the response arrived after a cycle was given up or the caller was notified of a delay.
        forced, cancelled: the intervention that ended the call.
        acknowledgement_owed: the provider has not accepted the acknowledgement.
        effect: what is known about the provider's side.
        code, provider_code: why the call ended without success, in our terms and the provider's.
        receipt: what the operation takes from the receipt for its caller (`receipt.data`).
        disputed: the provider refused our success acknowledgement.
        settled: the operator who stated the effect.
        sensitive: the fields that only the caller is shown, such as `response.iban`.
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
    effect: Effect = Effect.UNKNOWN
    code: OutcomeCode | None = None
    provider_code: str | None = None
    receipt: Any = None
    disputed: bool = False
    settled: Intervention | None = None
    timings: Timings
    sensitive: tuple[str, ...] = ()

    def masked(self) -> CallOutcome:
        """The outcome for everybody but the caller."""
        changes = {
            "response": masked_answer(self.response, self.sensitive),
            "receipt": masked_answer(self.receipt, self.sensitive),
        }
        return self.model_copy(update=changes)


class CallStatus(Wire):
    """The state of a call; the result of the query `status` and the update `await_outcome`.

    Attributes:
        since: when it entered the stage.
        cycle, attempts: cycles started and requests sent so far.
        deadline, deadline_reason: until when the response is awaited, and how that was decided.
        reference: the provider's own id of its work.
        last_error: the latest error, rejected signals included.
        notice: what to show the user now.
        standing: the state of flags and breaker when they were last evaluated.
        acknowledgements_owed: acknowledgements that the provider has not accepted yet.
        duplicates: messages suppressed because their event key was known.
        parked_times: how often it was parked.
        reprocessed, reprocessed_by: how often it was reprocessed, and by which batch or operator
            the last time.
        outcome: set once the response is recorded, even while the stage is `acknowledging`; with
            effect `unknown` it may be replaced.
        effect, code, provider_code, receipt, disputed: as in `CallOutcome`, as far as known.
        waiting: what the call waits for now.
        moved_to: the workflow that has the call now, if it is not the one that was asked.
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
    effect: Effect = Effect.NONE
    code: OutcomeCode | None = None
    provider_code: str | None = None
    receipt: Any = None
    disputed: bool = False
    waiting: Waiting | None = None
    moved_to: str | None = None

    def masked(self) -> CallStatus:
        """The status for everybody but the caller."""
        if self.outcome is None:
            return self
        outcome = self.outcome.masked()
        return self.model_copy(update={"outcome": outcome, "receipt": outcome.receipt})

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def answer(self) -> NoticeStatus:
        """The state for the caller."""
        if self.outcome is not None:
            return NoticeStatus(self.outcome.status)
        is_delayed = self.waiting is not None and self.waiting.is_delayed
        if self.stage is Stage.PARKED or is_delayed:
            return NoticeStatus.DELAYED
        return NoticeStatus.FAILED if self.stage is Stage.FAILED else NoticeStatus.ACCEPTED
