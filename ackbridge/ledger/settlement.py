"""What operators settle: unknown effects, held messages, and acknowledgements nobody accepts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from ackbridge.contracts.calls import (
    CallOutcome,
    Effect,
    Intervention,
    OutcomeCode,
    OutcomeStatus,
    Stage,
    Timings,
)
from ackbridge.contracts.limits import MAX_KEY_LENGTH
from ackbridge.contracts.messages import MessageKind, MessageSource, ProviderMessage
from ackbridge.contracts.settlement import SettleRequest
from ackbridge.contracts.steps import AcknowledgementKind, WrittenOff
from ackbridge.contracts.wire import InvalidInputError, digest

from . import batches, inbox
from .calls import insert_response, update_call, write_off
from .database.engines import Store, reads, writes
from .database.tables import calls, responses


@dataclass(frozen=True)
class UnknownCall:
    """A call whose effect is unknown now.

    Attributes:
        code: why it ended, or is parked.
        amount: a decimal number, where the operation names one.
    """

    call_id: str
    provider: str
    operation: str
    stage: Stage
    code: str | None
    since: datetime
    amount: str | None


@dataclass(frozen=True)
class UnknownTotal:
    """The calls of a provider whose effect is unknown now.

    Attributes:
        since: of the oldest one.
        amount: the sum of their amounts; None where none of them has one.
    """

    provider: str
    calls: int
    since: datetime
    amount: Decimal | None


class SettlementStore(Store):
    """Calls whose effect is unknown, and what operators state about calls."""

    @reads
    def unknown(
        self, connection: sa.Connection, provider: str | None = None, limit: int = 100
    ) -> list[UnknownCall]:
        """The calls whose effect is unknown now, of one provider or of all, oldest first."""
        columns = (calls.c.call_id, calls.c.provider, calls.c.operation, calls.c.stage)
        query = sa.select(*columns, calls.c.code, calls.c.unknown_since, calls.c.amount)
        query = query.where(_is_unknown(provider))
        rows = connection.execute(
            query.order_by(calls.c.unknown_since, calls.c.call_id).limit(limit)
        )
        return [
            UnknownCall(call_id, name, operation, Stage(stage), *others)
            for call_id, name, operation, stage, *others in rows
        ]

    @reads
    def unknown_totals(
        self, connection: sa.Connection, provider: str | None = None
    ) -> list[UnknownTotal]:
        """The number, age and sum of all of them, by provider."""
        oldest = sa.func.min(calls.c.unknown_since, type_=calls.c.unknown_since.type)
        kinds = (calls.c.provider, calls.c.amount)
        query = sa.select(*kinds, sa.func.count(), oldest).where(_is_unknown(provider))
        totals: dict[str, UnknownTotal] = {}
        # Summed here: SQLite has no decimal numbers.
        for name, amount, count, since in connection.execute(query.group_by(*kinds)):
            part = None if amount is None else Decimal(amount) * count
            total = totals.get(name) or UnknownTotal(name, 0, since, None)
            totals[name] = replace(
                total,
                calls=total.calls + count,
                since=min(total.since, since),
                amount=total.amount if part is None else (total.amount or Decimal()) + part,
            )
        return [totals[name] for name in sorted(totals)]

    @writes
    def settle(
        self, connection: sa.Connection, request: SettleRequest, *, is_open: bool = False
    ) -> CallOutcome:
        """Do what an operator requests of a call; a repeat changes nothing.

        Args:
            is_open: whether the call's workflow is running.

        Returns:
            The call's outcome after it.

        Raises:
            InvalidInputError: the call is not known or still open, has another response, or has no
                such message or acknowledgement.
        """
        query = sa.select(calls).where(calls.c.call_id == request.call_id).with_for_update()
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise InvalidInputError(f"call_id: the ledger has no call {request.call_id}")
        if is_open:
            raise InvalidInputError("call_id: the call is open; send it a signal")
        now = self.clock()
        outcome = _outcome(row, now)
        settled = Intervention(by=request.by, reason=request.reason)
        if request.write_off is not None:
            one = WrittenOff(**vars(request.write_off), **vars(settled))
            return _write_off(connection, outcome, one, now)
        if request.held_id is not None:
            return _apply_held(connection, request.held_id, outcome, settled, now)
        if outcome.settled == settled and outcome.effect is request.effect:
            return outcome
        message = None
        if request.response is not None:
            message = _operator_response(request, now)
        is_done = request.effect is Effect.DONE
        return _resolve(connection, outcome, settled, now, is_done=is_done, message=message)


def _is_unknown(provider: str | None) -> sa.ColumnElement[bool]:
    of_provider = sa.true() if provider is None else calls.c.provider == provider
    return sa.and_(calls.c.unknown_since.is_not(None), of_provider)


def _outcome(row: sa.RowMapping, now: datetime) -> CallOutcome:
    """The outcome that is recorded; one that is unknown if the call's run was terminated."""
    if row["outcome"] is not None:
        return CallOutcome.model_validate(row["outcome"])
    return CallOutcome(
        call_id=row["call_id"],
        status=OutcomeStatus.FAILED,
        reason="the call's workflow ended without an outcome",
        timings=Timings(started_at=row["claimed_at"], ended_at=now),
    )


def _operator_response(request: SettleRequest, now: datetime) -> ProviderMessage:
    key = f"operator:settle:{request.call_id}"
    return ProviderMessage(
        kind=MessageKind.RESPONSE,
        event_key=key if len(key) <= MAX_KEY_LENGTH else f"operator:{digest(key)}",
        data=request.response,
        source=MessageSource.OPERATOR,
        received_at=now,
    )


def _apply_held(
    connection: sa.Connection,
    entry_id: int,
    outcome: CallOutcome,
    settled: Intervention,
    now: datetime,
) -> CallOutcome:
    stored = inbox.find_held(connection, entry_id)
    if stored is None:
        if outcome.settled == settled:
            return outcome
        raise InvalidInputError(f"held_id: no message {entry_id} is held")
    message = stored.entry.message
    if stored.entry.call_id not in (None, outcome.call_id):
        raise InvalidInputError(f"held_id: the message is for {stored.entry.call_id}")
    if message is None or message.kind not in (MessageKind.RESPONSE, MessageKind.FAILURE):
        raise InvalidInputError("held_id: the message says neither success nor failure")
    is_done = message.kind is MessageKind.RESPONSE
    outcome = _resolve(connection, outcome, settled, now, is_done=is_done, message=message)
    inbox.mark_delivered(connection, stored.entry.provider, message.event_key, now)
    return outcome


def _resolve(
    connection: sa.Connection,
    outcome: CallOutcome,
    settled: Intervention,
    now: datetime,
    *,
    is_done: bool,
    message: ProviderMessage | None,
) -> CallOutcome:
    """Replace the outcome, and record the response if there is one.

    Raises:
        InvalidInputError: another response is recorded, or nobody doubts that it is done.
    """
    call_id = outcome.call_id
    is_doubted = outcome.disputed or outcome.forced is not None or outcome.settled is not None
    if outcome.effect is Effect.DONE and not is_done and not is_doubted:
        raise InvalidInputError("as: the provider has reported that it is done")
    # A notice would say what is not so any more.
    changes: dict[str, Any] = {"settled": settled, "notice": None}
    if is_done:
        if message is not None:
            refusal = insert_response(connection, call_id, max(outcome.cycles, 1), message, now)
            if refusal is not None and not refusal.accepted:
                raise InvalidInputError(f"call_id: {refusal.reason}")
        query = sa.select(responses.c.data).where(responses.c.call_id == call_id)
        recorded = connection.execute(query).scalar_one_or_none()
        changes |= {"status": OutcomeStatus.COMPLETED, "effect": Effect.DONE, "response": recorded}
        changes |= {"reason": None, "code": None, "provider_code": None, "cancelled": None}
        changes |= {"late": outcome.late or message is not None}
    else:
        is_cancelled = outcome.status is OutcomeStatus.CANCELLED
        status = OutcomeStatus.CANCELLED if is_cancelled else OutcomeStatus.FAILED
        changes |= {"status": status, "effect": Effect.NONE, "response": None}
        changes |= {"reason": outcome.reason or settled.reason}
        if message is not None:
            changes |= {"reason": message.reason or outcome.reason, "provider_code": message.code}
            changes |= {"code": OutcomeCode.PROVIDER_FAILED}
    outcome = outcome.model_copy(update=changes)
    stage = Stage(outcome.status)
    update_call(connection, call_id, now, outcome, stage=stage, reason=outcome.reason)
    batches.unpark(connection, call_id)
    return outcome


def _write_off(
    connection: sa.Connection, outcome: CallOutcome, one: WrittenOff, now: datetime
) -> CallOutcome:
    """Write off an acknowledgement; the outcome no longer says that it is owed.

    Raises:
        InvalidInputError: it is not owed.
    """
    if not write_off(connection, outcome.call_id, one):
        raise InvalidInputError(
            f"write_off: no {one.kind} acknowledgement of cycle {one.cycle} is owed"
        )
    if one.kind is AcknowledgementKind.SUCCESS and outcome.acknowledgement_owed:
        outcome = outcome.model_copy(update={"acknowledgement_owed": False})
        update_call(connection, outcome.call_id, now, outcome)
    return outcome
