"""Calls: their claims, references, responses, acknowledgements and outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from ackbridge.contracts import names
from ackbridge.contracts.calls import (
    CallOutcome,
    CallRequest,
    Effect,
    Notice,
    NoticeStatus,
    OutcomeStatus,
    Stage,
)
from ackbridge.contracts.messages import MessageSource, ProviderMessage
from ackbridge.contracts.steps import (
    AcknowledgementKind,
    Parking,
    Recorded,
    SuppressedMessage,
    WrittenOff,
)
from ackbridge.contracts.wire import digest

from . import batches, inbox
from .database.engines import Store, insert_new, reads, upsert, writes_of_call
from .database.tables import (
    UtcTime,
    acknowledgements,
    calls,
    correlations,
    event_keys,
    responses,
)

MAX_IDS: Final = 1000
"""Calls of one query by their ids."""

DEFAULT_HELD_REASON: Final = "the call can no longer accept it"


class ClaimKind(StrEnum):
    """What a run may do with the call it claims.

    Attributes:
        FRESH: the call is new; go on.
        HELD: this run chain has claimed it before, or has taken it over from one that has ended
            without an outcome; go on.
        RECORDED: another run chain has reached an outcome; return that.
        REUSED: the key belongs to a call with another request; refuse.
        ELSEWHERE: another workflow has claimed it, and may be conducting it.
    """

    FRESH = "fresh"
    HELD = "held"
    RECORDED = "recorded"
    REUSED = "reused"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Claim:
    """The result of a claim.

    Attributes:
        outcome: of a call that was RECORDED; or HELD, if this run chain recorded it in a workflow
            task that was lost.
        host: of a call that is ELSEWHERE, the workflow that has claimed it; None: its own.
        run_chain: of a call that is ELSEWHERE, the run chain that has claimed it.
        taken_over: of a call that is HELD, whether another run chain, which has ended without an
            outcome, has claimed it before. It may have sent the request.
        first_claimed_at: of a call that is taken over.
        reference: of a call that is taken over, what the provider called its work last, if known.
    """

    kind: ClaimKind
    outcome: CallOutcome | None = None
    host: str | None = None
    run_chain: str | None = None
    taken_over: bool = False
    first_claimed_at: datetime | None = None
    reference: str | None = None


@dataclass(frozen=True)
class CallRow:
    """What is known about a call, also when no worker can be asked.

    Attributes:
        request_digest: `CallRequest.digest` of the request it was claimed with.
        run_chain: the id of the first run of the execution chain that has claimed it.
        stage, reason: as last recorded.
        outcome: how it ended; None while it is open.
        effect, code, provider_code: as in the outcome; of a parked call, what is known so far.
        amount: a decimal number.
        unknown_since: since when the effect is unknown; None if it is known.
        settled_by: the operator who stated the effect.
        claimed_at, updated_at: when it was first claimed, and last written.
        host: the id of the workflow that has claimed it with others; None: its own.
        taken_over: another run chain has claimed it before, and has ended without an outcome.
    """

    call_id: str
    provider: str
    operation: str
    request_digest: str
    run_chain: str
    stage: Stage
    reason: str | None
    outcome: CallOutcome | None
    effect: Effect | None
    code: str | None
    provider_code: str | None
    amount: str | None
    unknown_since: datetime | None
    settled_by: str | None
    claimed_at: datetime
    updated_at: datetime
    host: str | None = None
    taken_over: bool = False


@dataclass(frozen=True)
class CallFilter:
    """Which calls to list; what is None selects all.

    Attributes:
        stages: as last recorded; an open call is `preparing` until it is parked or answered.
        claimed_from, claimed_before: when it was first claimed.
        owed: only calls that owe the provider an acknowledgement.
    """

    providers: tuple[str, ...] | None = None
    operation: str | None = None
    stages: tuple[Stage, ...] | None = None
    effect: Effect | None = None
    code: str | None = None
    claimed_from: datetime | None = None
    claimed_before: datetime | None = None
    owed: bool = False


@dataclass(frozen=True)
class RecordedCall:
    """One row of a list of calls, as `CallRow`, without what providers and callers have written."""

    call_id: str
    provider: str
    operation: str
    stage: Stage
    effect: Effect | None
    code: str | None
    amount: str | None
    unknown_since: datetime | None
    settled_by: str | None
    claimed_at: datetime
    updated_at: datetime

    @property
    def position(self) -> ListPosition:
        """The position after this call."""
        return ListPosition(self.claimed_at, self.provider, self.call_id)


@dataclass(frozen=True)
class ListPosition:
    """A position in the list of all calls, which are in this order, newest first."""

    claimed_at: datetime
    provider: str
    call_id: str


@dataclass(frozen=True)
class ResponseRow:
    """The response of a call; `data` is the provider's answer as JSON."""

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
class OwedAcknowledgement:
    """An acknowledgement that the provider has not accepted yet.

    Attributes:
        reason: why the last attempt failed.
        owed_at: the time of the first attempt that failed.
        refused: whether the provider has refused it, and not just failed to answer.
    """

    call_id: str
    cycle: int
    kind: AcknowledgementKind
    reason: str | None
    owed_at: datetime
    refused: bool = False


class CallStore(Store):
    """Calls; each has at most one response, and each event belongs to at most one call."""

    @writes_of_call
    def claim(
        self,
        connection: sa.Connection,
        request: CallRequest,
        run_chain: str,
        host: str | None = None,
        *,
        ended_chain: str | None = None,
    ) -> Claim:
        """Claim a call before anything is sent. Claims outlive the engine's retention.

        Args:
            request: its digest tells a repeated call from a reused key.
            run_chain: the id of the first run of this execution chain.
            host: the id of the workflow that hosts the call; None: the call's own.
            ended_chain: a run chain of another workflow that does not conduct the call any more.
                Of several that take over from it, one does.
        """
        now = self.clock()
        row = {
            "call_id": request.call_id,
            "provider": request.provider,
            "operation": request.operation,
            "request_digest": request.digest,
            "run_chain": run_chain,
            "stage": Stage.PREPARING,
            "claimed_at": now,
            "updated_at": now,
            "host": host,
        }
        known = None
        while known is None:
            if insert_new(connection, calls, row):
                return Claim(ClaimKind.FRESH)
            # None if a purge has deleted it in between.
            query = _READ.with_for_update()
            known = connection.execute(query, {"which": request.call_id}).one_or_none()
        if known.request_digest != request.digest:
            return Claim(ClaimKind.REUSED)
        outcome = known.outcome and CallOutcome.model_validate(known.outcome)
        if known.run_chain == run_chain:
            # The result of the claim that has taken it over may be lost.
            is_taken = known.taken_over
            return _taken_over(connection, known) if is_taken else Claim(ClaimKind.HELD, outcome)
        if outcome is not None:
            return Claim(ClaimKind.RECORDED, outcome)
        if known.host != host and known.run_chain != ended_chain:
            return Claim(ClaimKind.ELSEWHERE, host=known.host, run_chain=known.run_chain)
        values: dict[str, Any] = {"run_chain": run_chain, "host": host, "stage": Stage.PREPARING}
        update_call(connection, request.call_id, now, taken_over=True, **values)
        batches.unpark(connection, request.call_id)
        return _taken_over(connection, known)

    @reads
    def get(self, connection: sa.Connection, call_id: str) -> CallRow | None:
        """What is known about a call."""
        row = connection.execute(_READ, {"which": call_id}).mappings().one_or_none()
        return None if row is None else _call_row(row)

    @reads
    def get_many(self, connection: sa.Connection, call_ids: Sequence[str]) -> dict[str, CallRow]:
        """What is known about calls, by their ids."""
        found = dict[str, CallRow]()
        for first in range(0, len(call_ids), MAX_IDS):
            several = call_ids[first : first + MAX_IDS]
            rows = connection.execute(_COLUMNS.where(calls.c.call_id.in_(several))).mappings()
            found |= {row["call_id"]: _call_row(row) for row in rows}
        return found

    @reads
    def page(
        self,
        connection: sa.Connection,
        which: CallFilter,
        after: ListPosition | None = None,
        limit: int = 100,
    ) -> list[RecordedCall]:
        """Calls, newest first; those of one page are never on another one.

        Args:
            after: the position of the last call of the page before.
        """
        # One index, of provider and time, serves every list: each provider is read by itself.
        providers = which.providers
        if providers is None:
            providers = tuple(_providers(connection))
        query = _listed(which)
        rows = [
            row
            for provider in providers
            for row in connection.execute(_page_of(query, provider, after).limit(limit))
        ]
        found = [
            RecordedCall(
                call_id, provider, operation, Stage(stage), effect and Effect(effect), *other
            )
            for call_id, provider, operation, stage, effect, *other in rows
        ]
        # Stable: within a provider and a moment, the order is the database's.
        found.sort(key=lambda one: (one.claimed_at, one.provider), reverse=True)
        return found[:limit]

    @reads
    def hosts(self, connection: sa.Connection, call_ids: Sequence[str]) -> dict[str, str]:
        """The ids of the workflows that host these calls; a call's own workflow is left out."""
        query = sa.select(calls.c.call_id, calls.c.host).where(
            calls.c.call_id.in_(call_ids), calls.c.host.is_not(None)
        )
        return {row.call_id: row.host for row in connection.execute(query)}

    @writes_of_call
    def record_response(
        self,
        connection: sa.Connection,
        call_id: str,
        cycle: int,
        message: ProviderMessage,
        outcome: CallOutcome,
        *,
        was_parked: bool = False,
        notice: Notice | None = None,
    ) -> Recorded:
        """Write the response, its duplicate-index row and the outcome, and settle its inbox entry.

        The outcome replaces an earlier one whose effect was unknown. The same message for the same
        call again is accepted and changes nothing. An event that was applied to another call, or a
        second response of this one, is refused and logged.

        Args:
            was_parked: the call is parked until now.
            notice: what a user is shown, if it is not the built-in text.
        """
        now = self.clock()
        refusal = insert_response(connection, call_id, cycle, message, now)
        if refusal is not None:
            return refusal
        stage = Stage.ACKNOWLEDGING if outcome.acknowledgement_owed else Stage(outcome.status)
        update_call(connection, call_id, now, outcome, notice, stage=stage, reason=None)
        if was_parked:
            batches.unpark(connection, call_id)
        return Recorded(accepted=True)

    @reads
    def is_event_recorded(self, connection: sa.Connection, provider: str, event_key: str) -> bool:
        """Whether the event was applied to any call."""
        return _call_of_event(connection, provider, event_key) is not None

    @reads
    def responses(self, connection: sa.Connection, call_id: str) -> list[ResponseRow]:
        """The response of a call: a list of one, or of none."""
        rows = connection.execute(sa.select(responses).where(responses.c.call_id == call_id))
        return [
            ResponseRow(**dict(row) | {"source": MessageSource(row["source"])})
            for row in rows.mappings()
        ]

    @writes_of_call
    def record_stage(
        self,
        connection: sa.Connection,
        call_id: str,
        stage: Stage,
        reason: str | None,
        outcome: CallOutcome | None,
        suppressed: Sequence[SuppressedMessage] = (),
        held: Sequence[ProviderMessage] = (),
        parking: Parking | None = None,
        *,
        effect: Effect | None = None,
        provider_code: str | None = None,
        amount: str | None = None,
        written_off: Sequence[WrittenOff] = (),
        failed_alone: bool = False,
        notice: Notice | None = None,
    ) -> None:
        """Record a call's stage, log the messages it suppressed, and store those it holds.

        Args:
            outcome: how it ended; None leaves an outcome that is recorded as it is.
            held: messages to hold for operators in the inbox; one that is pending there is held
                from now on, one that is settled does not change.
            parking: of a call that is parked.
            effect, provider_code: of a call without an outcome, as far as known.
            amount: what is at stake while the effect is unknown, a decimal number.
            written_off: acknowledgements that are no longer owed.
            failed_alone: a parked call has failed again, and other calls were answered.
            notice: what a user is shown while the call is parked.
        """
        now = self.clock()
        values: dict[str, Any] = {"stage": stage, "reason": reason}
        if amount is not None:
            values["amount"] = amount
        if effect is not None:
            code = parking and parking.reason
            values |= {"effect": effect, "code": code, "provider_code": provider_code}
        update_call(connection, call_id, now, outcome, notice, **values)
        if parking is not None:
            batches.park(connection, call_id, parking, now, failed_alone=failed_alone)
        elif outcome is not None and outcome.status is not OutcomeStatus.COMPLETED:
            batches.unpark(connection, call_id)
        provider, _, _ = names.split_call_id(call_id)
        # Sorted, so that two transactions never wait for each other's rows.
        for (event_key, why), times in sorted(
            Counter((message.event_key, message.reason) for message in suppressed).items()
        ):
            entry = inbox.LogEntry(inbox.LogKind.SUPPRESSED, provider, event_key, call_id, why)
            inbox.log_at_least(connection, entry, now, times)
        reasons = {message.event_key: message.reason for message in suppressed}
        for message in sorted(held, key=lambda message: message.event_key):
            why = reasons.get(message.event_key, DEFAULT_HELD_REASON)
            inbox.hold(connection, call_id, message, why, now)
        for one in written_off:
            write_off(connection, call_id, one)

    @writes_of_call
    def record_acknowledgement(
        self,
        connection: sa.Connection,
        call_id: str,
        cycle: int,
        kind: AcknowledgementKind,
        at: datetime,
        outcome: CallOutcome | None = None,
    ) -> None:
        """The provider has accepted this acknowledgement; it is no longer owed.

        Args:
            outcome: if given, the new outcome of the call.
        """
        row = {
            "call_id": call_id,
            "cycle": cycle,
            "kind": kind,
            "is_owed": False,
            "refused": False,
            "acknowledged_at": at,
        }
        connection.execute(_record_accepted(connection.dialect.name), row)
        if outcome is None:
            return
        if outcome.late or outcome.forced:
            _replace_failed(connection, call_id, cycle, kind)
        update_call(connection, call_id, self.clock(), outcome, stage=Stage(outcome.status))

    @writes_of_call
    def record_owed(
        self,
        connection: sa.Connection,
        call_id: str,
        cycle: int,
        kind: AcknowledgementKind,
        reason: str,
        *,
        refused: bool = False,
    ) -> None:
        """The provider has not accepted this acknowledgement yet.

        No effect once it has, or once an operator has written it off.

        Args:
            refused: it was refused, rather than not answered.
        """
        row = {
            "call_id": call_id,
            "cycle": cycle,
            "kind": kind,
            "is_owed": True,
            "refused": refused,
            "reason": reason,
            "owed_at": self.clock(),
        }
        connection.execute(_record_owed(connection.dialect.name), row)
        _replace_failed(connection, call_id, cycle, kind)

    @reads
    def owed(
        self, connection: sa.Connection, provider: str | None = None, limit: int = 100
    ) -> list[OwedAcknowledgement]:
        """The acknowledgements that are owed, to one provider or to all, oldest first."""
        query = sa.select(acknowledgements).where(acknowledgements.c.is_owed)
        if provider is not None:
            of_provider = acknowledgements.c.call_id.startswith(f"{provider}.", autoescape=True)
            query = query.where(of_provider)
        by_age = (acknowledgements.c.owed_at, acknowledgements.c.call_id, acknowledgements.c.cycle)
        return [
            OwedAcknowledgement(
                row.call_id,
                row.cycle,
                AcknowledgementKind(row.kind),
                row.reason,
                row.owed_at,
                row.refused,
            )
            for row in connection.execute(query.order_by(*by_age).limit(limit))
        ]

    @writes_of_call
    def commit_reference(
        self, connection: sa.Connection, call_id: str, provider: str, reference: str
    ) -> None:
        """Map the provider's reference to the call. The first call wins; others are logged.

        Raises:
            InvalidInputError: the reference is too long.
        """
        now = self.clock()
        row = {
            "provider": provider,
            "reference": inbox.check_length("reference", reference),
            "call_id": call_id,
            "committed_at": now,
        }
        if insert_new(connection, correlations, row):
            return
        owner = _call_of_reference(connection, provider, reference)
        if owner == call_id:
            return
        reason = f"the reference belongs to {owner}"
        kind = inbox.LogKind.REFERENCE_CONFLICT
        entry = inbox.LogEntry(kind, provider, reference, call_id, reason)
        inbox.log_at_least(connection, entry, now)

    @reads
    def find_by_reference(
        self, connection: sa.Connection, provider: str, reference: str
    ) -> str | None:
        """The id of the call to which a provider's reference belongs."""
        return _call_of_reference(connection, provider, reference)


def _taken_over(connection: sa.Connection, known: sa.Row[Any]) -> Claim:
    """The claim of a call that another run chain has claimed before."""
    table = correlations.c
    references = sa.select(table.reference).where(
        table.call_id == known.call_id, table.reference != names.short_call_id(known.call_id)
    )
    return Claim(
        ClaimKind.HELD,
        known.outcome and CallOutcome.model_validate(known.outcome),
        taken_over=True,
        first_claimed_at=known.claimed_at,
        reference=connection.execute(references.order_by(table.committed_at.desc())).scalar(),
    )


def _call_row(row: sa.RowMapping) -> CallRow:
    outcome = row["outcome"] and CallOutcome.model_validate(row["outcome"])
    effect = row["effect"] and Effect(row["effect"])
    typed = {"stage": Stage(row["stage"]), "outcome": outcome, "effect": effect}
    return CallRow(**dict(row) | typed)


def _providers(connection: sa.Connection) -> Iterator[str]:
    """The providers that have calls; each costs one look into the index."""
    provider = connection.execute(sa.select(sa.func.min(calls.c.provider))).scalar_one()
    while provider is not None:
        yield provider
        following = sa.select(sa.func.min(calls.c.provider)).where(calls.c.provider > provider)
        provider = connection.execute(following).scalar_one()


def _listed(which: CallFilter) -> sa.Select[Any]:
    table = calls.c
    query = sa.select(
        *(table.call_id, table.provider, table.operation, table.stage, table.effect, table.code),
        *(table.amount, table.unknown_since, table.settled_by, table.claimed_at, table.updated_at),
    )
    for column, wanted in (
        (table.operation, which.operation),
        (table.effect, which.effect),
        (table.code, which.code),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if which.stages is not None:
        query = query.where(table.stage.in_(which.stages))
    if which.claimed_from is not None:
        query = query.where(table.claimed_at >= which.claimed_from)
    if which.claimed_before is not None:
        query = query.where(table.claimed_at < which.claimed_before)
    if which.owed:
        owed = acknowledgements.c
        query = query.where(sa.exists().where(owed.call_id == table.call_id, owed.is_owed))
    return query


def _page_of(query: sa.Select[Any], provider: str, after: ListPosition | None) -> sa.Select[Any]:
    table = calls.c
    query = query.where(table.provider == provider)
    query = query.order_by(table.claimed_at.desc(), table.call_id.desc())
    if after is None:
        return query
    if provider != after.provider:
        is_later = provider > after.provider
        bound = table.claimed_at < after.claimed_at
        return query.where(bound if is_later else table.claimed_at <= after.claimed_at)
    same_time = sa.and_(table.claimed_at == after.claimed_at, table.call_id < after.call_id)
    # The first condition, which the second one implies, is what the index can use.
    return query.where(
        table.claimed_at <= after.claimed_at,
        sa.or_(table.claimed_at < after.claimed_at, same_time),
    )


def insert_response(
    connection: sa.Connection, call_id: str, cycle: int, message: ProviderMessage, now: datetime
) -> Recorded | None:
    """Write a call's response and its duplicate-index row, and settle its inbox entry.

    Returns:
        None, or why nothing was written: it is recorded already, or it is refused and logged.
    """
    provider, operation, _ = names.split_call_id(call_id)
    response = {
        "call_id": call_id,
        "provider": provider,
        "operation": operation,
        "cycle": cycle,
        "event_key": message.event_key,
        "data": message.data,
        "source": message.source,
        "received_at": message.received_at,
        "recorded_at": now,
    }
    if not insert_new(connection, responses, response):
        query = sa.select(responses.c.event_key).where(responses.c.call_id == call_id)
        if connection.execute(query).scalar_one() == message.event_key:
            return Recorded(accepted=True, repeated=True)
        return _refuse(connection, call_id, message, "the call has another response", now)
    event = {
        "provider": provider,
        "event_key": message.event_key,
        "call_id": call_id,
        "recorded_at": now,
    }
    if not insert_new(connection, event_keys, event):
        # The response is written before the index, so that rows are always locked in one order.
        connection.execute(responses.delete().where(responses.c.call_id == call_id))
        owner = _call_of_event(connection, provider, message.event_key)
        return _refuse(connection, call_id, message, f"the event was applied to {owner}", now)
    inbox.mark_delivered(connection, provider, message.event_key, now)
    return None


def update_call(
    connection: sa.Connection,
    call_id: str,
    now: datetime,
    outcome: CallOutcome | None = None,
    notice: Notice | None = None,
    **values: Any,
) -> None:
    """Update a call's row; what a page shows of the call gets a number when it changes.

    Args:
        outcome: None leaves the recorded one as it is.
        notice: of a parked call, or of a success with a text of its own.
        values: other columns.
    """
    if outcome is not None:
        values |= {
            "outcome": outcome.model_dump(mode="json"),
            "effect": outcome.effect,
            "code": outcome.code,
            "provider_code": outcome.provider_code,
            "settled_by": outcome.settled and outcome.settled.by,
        }
    is_unknown = values.get("effect") is Effect.UNKNOWN
    if is_unknown:
        values["since"] = now
    elif "effect" in values:
        values["unknown_since"] = None
    event = _event(outcome, values.get("stage"), notice)
    if event is not None:
        values |= _event_values(event, notice, now)
    statement = _UPDATES[is_unknown, event is not None]
    connection.execute(statement, {"which": call_id, "updated_at": now, **values})


def show_delay(
    connection: sa.Connection, call_id: str, now: datetime, notice: Notice | None
) -> None:
    """A page shows from now on that the call is delayed."""
    values = _event_values(_delayed(notice), notice, now)
    connection.execute(_UPDATES[False, True], {"which": call_id, "updated_at": now, **values})


def _event(outcome: CallOutcome | None, stage: Stage | None, notice: Notice | None) -> str | None:
    """What a page shows from now on, in a form that can be compared; None: as before.

    It is what subscribers are notified of (`Notifications`): the same outcome again is no event.
    """
    if outcome is not None:
        return f"{outcome.status}:{outcome.effect}"
    return _delayed(notice) if stage is Stage.PARKED else None


def _delayed(notice: Notice | None) -> str:
    return f"{NoticeStatus.DELAYED}:{digest(notice and notice.model_dump(mode='json'))}"


def _event_values(event: str, notice: Notice | None, now: datetime) -> dict[str, Any]:
    text = notice and notice.model_dump(mode="json")
    return {"new_event": event, "new_notice": text, "since_event": now}


def write_off(connection: sa.Connection, call_id: str, one: WrittenOff) -> bool:
    """Write off an acknowledgement.

    Returns:
        False if it is neither owed nor written off by this operator before.
    """
    table = acknowledgements.c
    this = sa.and_(table.call_id == call_id, table.cycle == one.cycle, table.kind == one.kind)
    values = {"written_off_by": one.by, "written_off_reason": one.reason}
    update = acknowledgements.update().where(this, table.is_owed).values(is_owed=False, **values)
    if connection.execute(update).rowcount:
        return True
    query = sa.select(table.written_off_by).where(this)
    return connection.execute(query).scalar_one_or_none() == one.by


def _refuse(
    connection: sa.Connection, call_id: str, message: ProviderMessage, reason: str, now: datetime
) -> Recorded:
    provider, _, _ = names.split_call_id(call_id)
    kind = inbox.LogKind.SUPPRESSED
    entry = inbox.LogEntry(kind, provider, message.event_key, call_id, reason)
    inbox.log_at_least(connection, entry, now)
    return Recorded(accepted=False, reason=reason)


def _replace_failed(
    connection: sa.Connection, call_id: str, cycle: int, kind: AcknowledgementKind
) -> None:
    """A success replaces the failed acknowledgement of its cycle that was not accepted."""
    if kind is AcknowledgementKind.SUCCESS:
        connection.execute(_REPLACE_FAILED, {"which": call_id, "of": cycle})


def _call_of_event(connection: sa.Connection, provider: str, event_key: str) -> str | None:
    return connection.execute(
        sa.select(event_keys.c.call_id).where(
            event_keys.c.provider == provider, event_keys.c.event_key == event_key
        )
    ).scalar_one_or_none()


def _call_of_reference(connection: sa.Connection, provider: str, reference: str) -> str | None:
    return connection.execute(
        sa.select(correlations.c.call_id).where(
            correlations.c.provider == provider, correlations.c.reference == reference
        )
    ).scalar_one_or_none()


# Every call executes these statements: building one costs as much as executing it.

_OF_EVENTS: Final = frozenset({"event_number", "event", "event_at", "notice"})
_COLUMNS = sa.select(*(column for column in calls.c if column.name not in _OF_EVENTS))
_READ = _COLUMNS.where(calls.c.call_id == sa.bindparam("which"))
_UPDATE = calls.update().where(calls.c.call_id == sa.bindparam("which"))
_IS_SHOWN = sa.func.coalesce(calls.c.event, "") == sa.bindparam("new_event", type_=sa.Text)
_UNKNOWN: Final = {
    "unknown_since": sa.func.coalesce(calls.c.unknown_since, sa.bindparam("since", type_=UtcTime))
}
_EVENT: Final = {
    "event": sa.bindparam("new_event", type_=sa.Text),
    "event_number": calls.c.event_number + sa.case((_IS_SHOWN, 0), else_=1),
    "event_at": sa.case(
        (_IS_SHOWN, calls.c.event_at), else_=sa.bindparam("since_event", type_=UtcTime)
    ),
    "notice": sa.case(
        (_IS_SHOWN, calls.c.notice), else_=sa.bindparam("new_notice", type_=calls.c.notice.type)
    ),
}
_UPDATES: Final = {
    (False, False): _UPDATE,
    (False, True): _UPDATE.values(**_EVENT),
    (True, False): _UPDATE.values(**_UNKNOWN),
    (True, True): _UPDATE.values(**_UNKNOWN, **_EVENT),
}
"""By whether the effect is unknown, and whether there is something to show."""
_REPLACE_FAILED = (
    acknowledgements.update()
    .where(
        acknowledgements.c.call_id == sa.bindparam("which"),
        acknowledgements.c.cycle == sa.bindparam("of"),
        acknowledgements.c.kind == AcknowledgementKind.FAILED.value,
        acknowledgements.c.is_owed,
    )
    .values(is_owed=False, reason="replaced by a success acknowledgement")
)


@cache
def _record_accepted(dialect: str) -> sa.Insert:
    statement = upsert(dialect, acknowledgements)
    first = sa.func.coalesce(acknowledgements.c.acknowledged_at, statement.excluded.acknowledged_at)
    return statement.on_conflict_do_update(
        index_elements=acknowledgements.primary_key.columns,
        set_={"is_owed": False, "refused": False, "reason": None, "acknowledged_at": first},
    )


@cache
def _record_owed(dialect: str) -> sa.Insert:
    statement = upsert(dialect, acknowledgements)
    return statement.on_conflict_do_update(
        index_elements=acknowledgements.primary_key.columns,
        set_={"reason": statement.excluded.reason, "refused": statement.excluded.refused},
        where=acknowledgements.c.is_owed,
    )
