"""Calls as the ledger has recorded them, for when no worker, or not even the engine, answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ackbridge.contracts import search_attributes
from ackbridge.contracts.calls import CallStatus, Effect, Stage
from ackbridge.contracts.wire import InvalidInputError
from ackbridge.ledger.calls import CallFilter, CallRow, RecordedCall

from .calls import status_of
from .listing import ENDED, UNKNOWN, ListedCall, ListFilter

_IN_FLIGHT: Final = tuple(
    stage
    for stage in Stage
    if not stage.is_final and stage not in (Stage.PARKED, Stage.RECONCILING)
)


def recorded_status(row: CallRow) -> CallStatus:
    """The status; of an open call, as of the last step that was recorded."""
    if row.outcome is not None:
        return status_of(row.outcome)
    return CallStatus(
        call_id=row.call_id,
        stage=row.stage,
        since=row.updated_at,
        last_error=row.reason,
        effect=row.effect or Effect.UNKNOWN,
        provider_code=row.provider_code,
    )


def recorded_filter(which: ListFilter) -> CallFilter:
    """The same filter, for the ledger.

    Raises:
        InvalidInputError: there is no such stage.
    """
    stages: tuple[Stage, ...] | None = None
    if which.stage == search_attributes.IN_FLIGHT:
        stages = _IN_FLIGHT
    elif which.stage is not None:
        try:
            stages = (Stage(which.stage),)
        except ValueError:
            raise InvalidInputError(f"stage: there is no stage {which.stage}") from None
    providers = None if which.provider is None else (which.provider,)
    return CallFilter(providers=providers, stages=stages, owed=which.owed)


def recorded_call(row: RecordedCall) -> ListedCall:
    """A row of a list; the state of an open call's workflow is not known."""
    found = ListedCall(
        call_id=row.call_id,
        state=UNKNOWN,
        stage=None,
        started_at=row.claimed_at.isoformat(timespec="seconds"),
        answered=False,
    )
    return with_record(found, row.stage)


def with_record(found: ListedCall, stage: Stage) -> ListedCall:
    """A row of a call that nobody has answered for, with the stage that the ledger has.

    An open call is recorded as `preparing` until it is parked or answered: that says nothing.
    """
    if stage is Stage.PREPARING:
        return found
    return replace(found, stage=stage, state=ENDED.get(stage, found.state))
