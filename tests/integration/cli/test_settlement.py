"""What needs an operator: the lists over the ledger, and settling calls on the engine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from datetime import timedelta
from typing import Any

import pytest

from ackbridge.clock import utc_now
from ackbridge.contracts.calls import (
    CallOutcome,
    CallRequest,
    Effect,
    OutcomeCode,
    OutcomeStatus,
    Timings,
)
from ackbridge.contracts.calls import Stage as CallStage
from ackbridge.contracts.messages import MessageKind, ProviderMessage
from ackbridge.contracts.steps import AcknowledgementKind
from ackbridge.errors import CallCancelledError, CallFailedError
from ackbridge.ledger.inbox import InboxEntry, InboxState
from tests.support.processes import run_command
from tests.support.stage import Stage

PATIENCE = timedelta(seconds=60)


async def run(stage: Stage, *arguments: str, width: int = 80) -> subprocess.CompletedProcess[str]:
    """Run `ackbridge` against this stage, on a terminal this wide."""
    environ = {
        **os.environ,
        **stage.namespace.environment,
        "ACKBRIDGE_LEDGER_URL": stage.settings.ledger_url,
        "COLUMNS": str(width),
    }
    return await asyncio.to_thread(run_command, environ, *arguments)


async def run_json(stage: Stage, *arguments: str) -> Any:
    """The JSON that a command prints; it exits with 0."""
    done = await run(stage, *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


async def end_refused(stage: Stage) -> CallRequest:
    """A call that has ended as failed."""
    effect = Effect.UNKNOWN
    while effect is not Effect.NONE:
        # On a busy machine the first attempt may get no answer in time: then it may have been done.
        request = stage.request(refuse=422)
        with pytest.raises(CallFailedError) as failed:
            await (await stage.calls.start(request)).outcome(PATIENCE)
        effect = failed.value.outcome.effect
    while (await stage.ledger.calls.get(request.call_id)).stage is not CallStage.FAILED:  # type: ignore[union-attr]  # noqa: ASYNC110 -- it has been claimed, and changes in another process
        await asyncio.sleep(0.05)
    return request


async def end_unknown(stage: Stage, request: CallRequest, amount: str | None) -> None:
    """Record in the ledger that a call has ended without knowing its effect."""
    outcome = CallOutcome(
        call_id=request.call_id,
        status=OutcomeStatus.FAILED,
        effect=Effect.UNKNOWN,
        code=OutcomeCode.NO_RESPONSE,
        provider_code="try_again",
        timings=Timings(started_at=utc_now()),
    )
    await stage.ledger.calls.claim(request, "run-1")
    await stage.ledger.calls.record_stage(
        request.call_id, CallStage.FAILED, None, outcome, amount=amount
    )


async def store(
    stage: Stage, request: CallRequest, message: ProviderMessage, unclassified: str | None = None
) -> int:
    """Store a message of a call in the inbox; returns its id."""
    entry = InboxEntry(
        provider=request.provider,
        event_key=message.event_key,
        operation=request.operation,
        call_id=request.call_id,
        reference=None,
        message=message,
        document=None,
        # Later than any sweep of the gateway looks at.
        received_at=utc_now() + timedelta(days=1),
    )
    if unclassified is None:
        await stage.ledger.inbox.store(entry)
    else:
        await stage.ledger.inbox.store_unclassified(entry, unclassified)
    entries = await stage.ledger.inbox.entries(request.provider, None, 1000)
    (stored,) = [one for one in entries if one.entry.event_key == message.event_key]
    return stored.id


async def hold(stage: Stage, request: CallRequest, message: ProviderMessage) -> int:
    """Store a message of a call as held; returns its id."""
    held_id = await store(stage, request, message)
    await stage.ledger.inbox.settle([held_id], InboxState.HELD, "the call had ended")
    return held_id


def response(request: CallRequest) -> ProviderMessage:
    """A response of the provider."""
    key = f"event-{request.key}"
    return ProviderMessage(kind=MessageKind.RESPONSE, event_key=key, data={"id": 9})


async def test_unknown_by_provider_and_age(stage: Stage) -> None:
    """With the sum; ids are whole on 80 columns."""
    requests = [stage.request().model_copy(update={"provider": "acme"}) for _ in range(2)]
    for request, amount in zip(requests, ("0.10", "0.20"), strict=True):
        await end_unknown(stage, request, amount)
    found = await run_json(stage, "unknown", "--provider", "acme")
    (total,) = found["providers"]
    assert (total["provider"], total["calls"], total["sum"]) == ("acme", 2, "0.30")
    assert [row["call_id"] for row in found["calls"]] == [one.call_id for one in requests]
    assert {row["code"] for row in found["calls"]} == {"no_response"}
    shown = await run(stage, "unknown")
    assert " with unknown effect" in shown.stdout
    assert all(one.call_id in shown.stdout for one in requests)
    cards = await run(stage, "providers", "acme")
    assert cards.returncode == 2


async def test_ended_call_is_resolved(stage: Stage) -> None:
    """Its outcome is replaced for everybody who asks, with who and why."""
    request = await end_refused(stage)
    statement = ("--reason", "seen in their console", "--by", "ann", "--response", '{"id": 9}')
    done = await run_json(stage, "resolve", request.call_id, "--as", "done", *statement)
    assert done["outcome"]["settled"] == {"by": "ann", "reason": "seen in their console"}

    status = await run_json(stage, "status", request.call_id)
    assert (status["stage"], status["effect"]) == ("completed", "done")
    assert status["outcome"]["response"] == {"id": 9}
    outcome = await stage.calls.call(request.call_id).outcome(PATIENCE)
    assert (outcome.status, outcome.effect) == (OutcomeStatus.COMPLETED, Effect.DONE)
    again = await stage.calls.start_and_wait(request, PATIENCE)
    assert again.outcome == outcome

    async def listed() -> list[Any]:
        rows = await run_json(stage, "list", "--provider", "sandbox", "--limit", "1000")
        return [row for row in rows if row["call_id"] == request.call_id]

    async with asyncio.timeout(60):
        while not (rows := await listed()) or rows[0]["state"] == "RUNNING":  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.1)
    assert (rows[0]["stage"], rows[0]["effect"]) == ("completed", "done")
    shown = (await run(stage, "status", request.call_id)).stdout
    assert "by ann: seen in their console" in " ".join(shown.split())
    table = (await run(stage, "list", "--limit", "1000")).stdout
    assert request.call_id in table


@pytest.mark.parametrize(("as_", "status"), [("done", "completed"), ("none", "failed")])
async def test_open_call_is_resolved(stage: Stage, as_: str, status: str) -> None:
    """It ends at once, with the effect that the operator states."""
    request = stage.request(stuck=True)
    await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    statement = ("--as", as_, "--reason", "looked it up", "--by", "ann")
    await run_json(stage, "resolve", request.call_id, *statement)
    shown = await run(stage, "status", request.call_id, "--watch", "--json")
    outcome = json.loads(shown.stdout)["outcome"]
    assert (outcome["status"], outcome["effect"]) == (status, as_)
    assert outcome["settled"] == {"by": "ann", "reason": "looked it up"}


async def test_held_message_is_applied_to_an_open_call(stage: Stage) -> None:
    """Its content is the response, and it is no longer held."""
    request = stage.request(stuck=True)
    call = await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    held_id = await hold(stage, request, response(request))
    which = ("held", "apply", str(held_id))
    await run_json(stage, *which, "--reason", "confirmed", "--by", "ann")
    outcome = await call.outcome(PATIENCE)
    assert (outcome.response, outcome.effect) == ({"id": 9}, Effect.DONE)
    assert outcome.settled is not None
    assert await stage.ledger.inbox.held_entry(held_id) is None


async def test_acknowledgement_of_an_open_call_is_written_off(stage: Stage) -> None:
    """The call ends, and owes nothing."""
    request = stage.request(stuck=True, acknowledgement_failures=1000)
    call = await stage.calls.start(request)
    await stage.until(request, CallStage.AWAITING_RESPONSE)
    await call.cancel(by="ann", reason="a mistake")

    async def is_owed() -> bool:
        return request.call_id in [one.call_id for one in await stage.ledger.calls.owed("sandbox")]

    async with asyncio.timeout(60):
        while not await is_owed():  # noqa: ASYNC110 -- it changes in another process
            await asyncio.sleep(0.05)
    which = ("owed", "write-off", request.call_id, "--cycle", "1")
    await run_json(stage, *which, "--reason", "their API is gone", "--by", "ann")
    with pytest.raises(CallCancelledError):
        await call.outcome(PATIENCE, settled=True)
    assert not await is_owed()
    late = await run(stage, "resolve", request.call_id, "--as", "none", "--reason", "sure")
    assert late.returncode == 0


async def test_request_that_an_open_call_rejects_exits_with_2(stage: Stage) -> None:
    """With the reason of the call."""
    request = stage.request(acknowledgement_failures=1000)
    call = await stage.calls.start(request)
    await call.outcome(PATIENCE)
    which = ("resolve", request.call_id, "--as", "none", "--reason", "r", "--by", "ann")
    late = await run(stage, *which)
    assert late.returncode == 2
    assert "resolve by ann: too late, the call is completed" in " ".join(late.stderr.split())


async def test_held_message_is_applied(stage: Stage) -> None:
    """A response completes its call; the message is no longer held."""
    request = await end_refused(stage)
    held_id = await hold(stage, request, response(request))
    listed = await run_json(stage, "held", "sandbox")
    (row,) = [one for one in listed if one["id"] == held_id]
    assert row["call_id"] == request.call_id
    assert json.loads(row["message"])["data"] == {"id": 9}
    assert request.call_id in (await run(stage, "held")).stdout

    applied = await run_json(
        stage, "held", "apply", str(held_id), "--reason", "confirmed", "--by", "ann"
    )
    assert applied["outcome"]["response"] == {"id": 9}
    assert applied["outcome"]["settled"]["by"] == "ann"
    assert await stage.ledger.inbox.held_entry(held_id) is None
    late = await run(stage, "held", "apply", str(held_id), "--reason", "again")
    assert late.returncode == 2
    assert f"no message {held_id} is held; see: ackbridge held" in late.stderr


async def test_held_message_is_discarded(stage: Stage) -> None:
    """With who and why."""
    request = stage.request()
    held_id = await hold(stage, request, response(request))
    done = await run(stage, "held", "discard", str(held_id), "--reason", "a test", "--by", "ann")
    assert done.stdout == f"message {held_id}: discarded by ann\n"
    discarded = await run_json(stage, "inbox", "list", "--state", "discarded")
    (row,) = [one for one in discarded if one["id"] == held_id]
    assert row["reason"] == "discarded by ann: a test"


async def test_acknowledgement_of_an_ended_call_is_written_off(stage: Stage) -> None:
    """It is listed with its refusal until then."""
    request = await end_refused(stage)
    kind = AcknowledgementKind.FAILED
    await stage.ledger.calls.record_owed(request.call_id, 1, kind, "answered 410", refused=True)
    owed = await run_json(stage, "owed", "sandbox")
    (row,) = [one for one in owed if one["call_id"] == request.call_id]
    assert (row["kind"], row["refused"], row["reason"]) == ("failed", True, "answered 410")
    assert request.call_id in (await run(stage, "owed")).stdout

    which = ("owed", "write-off", request.call_id, "--cycle")
    wrong = await run(stage, *which, "2", "--reason", "gone")
    assert wrong.returncode == 2
    assert "cycle 2: none is owed; see: ackbridge owed" in wrong.stderr
    await run_json(stage, *which, "1", "--reason", "their API is gone", "--by", "ann")
    rows = await stage.ledger.calls.owed("sandbox", 1000)
    assert request.call_id not in [one.call_id for one in rows]


async def test_unclassified_messages_are_listed_and_replayed(stage: Stage) -> None:
    """What no rule classified is kept whole, and can be tried again."""
    request = stage.request()
    why = "no rule says what it means"
    stored_id = await store(stage, request, response(request), unclassified=why)
    (row,) = [one for one in await run_json(stage, "inbox") if one["id"] == stored_id]
    assert (row["state"], row["reason"]) == ("unclassified", why)
    assert request.call_id in (await run(stage, "inbox", "list", "sandbox")).stdout
    neither = await run(stage, "inbox", "replay", "--reason", "new rule")
    assert neither.returncode == 2
    replayed = await run_json(
        stage, "inbox", "replay", str(stored_id), "--reason", "new rule", "--by", "ann"
    )
    assert replayed == [stored_id]
    pending = await run_json(stage, "inbox", "list", "--state", "all", "--limit", "1000")
    (row,) = [one for one in pending if one["id"] == stored_id]
    assert row["state"] == "pending"
    assert row["reason"] == "replayed by ann: new rule"
    gone = await run(stage, "inbox", "replay", str(stored_id), "--reason", "again")
    assert gone.returncode == 2
    assert f"neither unclassified nor held: {stored_id}" in gone.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("resolve", "sandbox.create_order.never", "--as", "done"), "Missing option '--reason'"),
        (
            ("resolve", "sandbox.create_order.never", "--as", "done", "--reason", "seen"),
            "the ledger has no call sandbox.create_order.never",
        ),
        (("resolve", "never", "--as", "none", "--reason", "r"), "is not a call id"),
        (
            ("resolve", "a.b.c", "--as", "none", "--reason", "r", "--response", "1"),
            "a response needs as: done",
        ),
        (("held", "apply", "999999", "--reason", "r"), "no message 999999 is held"),
        (("held", "discard", "999999", "--reason", "r"), "no message 999999 is held"),
        (("cancel", "sandbox.create_order.never", "--reason", "r"), "no such call"),
    ],
)
async def test_bad_input_exits_with_2(
    stage: Stage, arguments: tuple[str, ...], complaint: str
) -> None:
    """It says what is wrong, without a traceback."""
    done = await run(stage, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert complaint in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


async def test_cancel_of_an_ended_call_exits_with_2(stage: Stage) -> None:
    """Too late is bad input, as for batches."""
    request = await end_refused(stage)
    late = await run(stage, "cancel", request.call_id, "--reason", "late")
    assert late.returncode == 2
    assert "too late, the call has ended" in late.stderr
