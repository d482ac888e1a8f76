"""What the ledger takes and gives; every time is aware, in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ackbridge.contracts.calls import CallOutcome, Stage
from ackbridge.contracts.deliveries import NoticeBody
from ackbridge.contracts.messages import MessageSource, ProviderMessage
from ackbridge.contracts.steps import AcknowledgementKind


class ClaimKind(StrEnum):
    """What a run may do with the call it claims.

    Attributes:
        FRESH: nobody had it; go on.
        HELD: it is this run chain's, or it was one's that never came to an outcome; go on.
        RECORDED: another run chain has brought it to an outcome; repeat that.
        REUSED: the key stands for a call with another request; refuse.
    """

    FRESH = "fresh"
    HELD = "held"
    RECORDED = "recorded"
    REUSED = "reused"


@dataclass(frozen=True)
class Claim:
    """The answer to a claim.

    Attributes:
        outcome: of a call that was RECORDED; or HELD, when this run chain has brought it so far
            already, and has forgotten that with a workflow task that was lost.
    """

    kind: ClaimKind
    outcome: CallOutcome | None = None


class InboxState(StrEnum):
    """Where an inbox entry stands; DELIVERED and DUPLICATE are final.

    Attributes:
        PENDING: waits for its call, or for the engine.
        DELIVERED: its call has it.
        HELD: its call cannot take it any more; it is kept for people.
        DUPLICATE: its event had been recorded already.
    """

    PENDING = "pending"
    DELIVERED = "delivered"
    HELD = "held"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class InboxEntry:
    """A provider's message that could not be handed over yet.

    Attributes:
        provider, event_key: which message; unique together.
        operation, call_id, reference: what it was matched by, as far as is known.
        message: what it says, when its operation is known.
        document: the document to classify once the operation is known, as JSON.
        received_at: when we got it.
    """

    provider: str
    event_key: str
    operation: str | None
    call_id: str | None
    reference: str | None
    message: ProviderMessage | None
    document: Any | None
    received_at: datetime


@dataclass(frozen=True)
class StoredEntry:
    """An inbox entry as it is kept.

    Attributes:
        id: of the row, for `settle` and `postpone`.
        attempts: how often its delivery has been postponed.
    """

    id: int
    entry: InboxEntry
    attempts: int = 0


@dataclass(frozen=True)
class HeldEntry:
    """A message that is kept for people.

    Attributes:
        id: of the row.
        reason: why no call has it.
        held_at: since when.
    """

    id: int
    entry: InboxEntry
    reason: str | None
    held_at: datetime


@dataclass(frozen=True)
class Owed:
    """An acknowledgement that the provider has not accepted yet.

    Attributes:
        cycle, kind: which one of the call's.
        reason: why the last try failed.
        owed_at: since when.
    """

    call_id: str
    cycle: int
    kind: AcknowledgementKind
    reason: str | None
    owed_at: datetime


@dataclass(frozen=True)
class ParkedCall:
    """A call that waits for a batch.

    Attributes:
        reason: the name of the reason: `no_response`, `no_receipt`, ...
        times: how often it was parked.
        parked_at: since when, the last time.
    """

    call_id: str
    operation: str
    reason: str
    times: int
    parked_at: datetime


@dataclass(frozen=True)
class ParkedCount:
    """How many calls of one operation wait for one reason, and since when the oldest does."""

    operation: str
    reason: str
    calls: int
    oldest: datetime


@dataclass(frozen=True)
class CallRow:
    """What the ledger knows about a call, also when no worker can be asked.

    Attributes:
        request_digest: `CallRequest.digest` of the request it was claimed with.
        run_chain: the id of the first run of the execution chain that holds it.
        stage, reason: where it stood when the ledger last heard of it, and why.
        outcome: how it ended, once that stands.
        claimed_at, updated_at: when it was first claimed, and last written.
    """

    call_id: str
    provider: str
    operation: str
    request_digest: str
    run_chain: str
    stage: Stage
    reason: str | None
    outcome: CallOutcome | None
    claimed_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class ResponseRow:
    """The one response of a call; `data` is the provider's answer as JSON."""

    call_id: str
    provider: str
    operation: str
    cycle: int
    event_key: str
    data: Any
    source: MessageSource
    received_at: datetime | None
    recorded_at: datetime


@dataclass(frozen=True)
class Unsettled:
    """What waits, of one operation: calls that are parked, acknowledgements that are owed."""

    parked: int = 0
    owed: int = 0


class LogKind(StrEnum):
    """Why something was logged instead of applied."""

    SUPPRESSED = "suppressed"
    REFERENCE_CONFLICT = "reference_conflict"


class NoticeState(StrEnum):
    """Where a notice to a subscriber stands.

    Attributes:
        PENDING: it is being tried.
        DELIVERED: the subscriber has accepted it.
        DEAD: it is not tried any more; somebody may replay it.
    """

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True)
class NoticeRow:
    """A notice to a subscriber, as it is kept.

    Attributes:
        event_id, type, body: what is told; a response that goes with it is not kept here.
        reason: why the last attempt failed, or why it is dead.
        attempts: how often it was tried.
        happened_at: when what it tells happened.
        settled_at: since when it is delivered or dead.
    """

    event_id: str
    subscriber: str
    call_id: str
    type: str
    body: NoticeBody
    state: NoticeState
    reason: str | None
    attempts: int
    happened_at: datetime
    updated_at: datetime
    settled_at: datetime | None
