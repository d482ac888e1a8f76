"""send: the provider's answers, and errors on our side."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.responses import PlainTextResponse

from ackbridge.contracts.messages import MessageKind, MessageSource
from ackbridge.contracts.steps import SendStep
from ackbridge.ledger.inbox import InboxEntry
from ackbridge.ledger.ledger import Ledger
from activities.send import Send

from .world import NOW, World, attempt, failed, trouble


def step(of: World, operation: str = "order") -> SendStep:
    """The first cycle of a call."""
    return SendStep(request=of.request(operation), cycle=1)


async def test_unavailable_ledger_after_the_receipt(world: World, tmp_path: Path) -> None:
    """The failure says that the provider has the request."""
    gone = Ledger.open(f"sqlite:///{tmp_path}/missing/ledger.db", lambda: NOW)
    deps = replace(world.deps, ledger=gone)

    error = await failed(attempt().run(Send(deps).send, step(world)))

    await gone.close()
    assert (error.type, error.non_retryable) == ("NoReceipt", False)
    assert trouble(error).reached is True
    assert error.message.startswith("the ledger does not answer")


async def test_missing_secret_sends_nothing(world: World) -> None:
    """The failure is retryable, and nothing reached the provider."""
    del world.environ["ACME_TOKEN"]

    error = await failed(attempt().run(Send(world.deps).send, step(world)))

    assert (error.type, error.non_retryable) == ("Unavailable", False)
    assert (error.message, trouble(error).reached) == ("env:ACME_TOKEN: is not set", False)


async def test_unexpected_error_may_have_reached_the_provider(world: World) -> None:
    """It is retryable, and no proof that nothing was sent."""
    broken = replace(world.deps, auths={})

    error = await failed(attempt().run(Send(broken).send, step(world)))

    assert (error.type, error.non_retryable) == ("NoReceipt", False)
    assert (error.message, trouble(error).reached) == ("unexpected error: KeyError", True)


async def test_refusal_is_redacted(world: World) -> None:
    """The provider may quote our request."""
    world.script.says(
        {"error": f"who is {world.environ['ACME_TOKEN']}, card 4111111111111111"}, 401
    )

    error = await failed(attempt().run(Send(world.deps).send, step(world)))

    assert error.message == "the provider refused with 401: who is ***, card ***"


async def test_synchronous_answer_is_a_message(world: World) -> None:
    """With the provider's reference, under an event key of ours."""
    world.script.says({"id": 9, "total": 5})
    world.script.says({"error": "Bearer abc123def no"})

    done = await attempt().run(Send(world.deps).send, step(world, "quote"))
    refused = await attempt().run(Send(world.deps).send, step(world, "quote"))

    (message,) = done.messages
    assert (message.kind, message.source) == (MessageKind.RESPONSE, MessageSource.SYNC)
    assert (message.event_key, message.reference) == ("sync:acme.quote.k-1:1", "9")
    (message,) = refused.messages
    assert (message.kind, message.reason) == (MessageKind.FAILURE, "Bearer *** no")


async def test_unclassified_answer_may_have_had_an_effect(world: World) -> None:
    """A 2xx that is neither success nor failure is final, with `reached`."""
    integration = world.deps.catalog.integration("acme")
    quote = integration.operations["quote"]
    strict = quote.model_copy(
        update={"response": quote.response.model_copy(update={"success": quote.receipt.reference})}
    )
    world.deps.catalog.integration("acme").operations["quote"] = strict
    world.script.says({"status": "?"})

    error = await failed(attempt().run(Send(world.deps).send, step(world, "quote")))

    assert (error.type, trouble(error).reached) == ("Refused", True)


@pytest.mark.parametrize("body", ['{"total": NaN}', '"\\ud800"', "[" * 5000, "1e999"])
async def test_invalid_json_becomes_text(world: World, body: str) -> None:
    """An answer that cannot be serialised does not break the call."""
    world.script.replies.append(PlainTextResponse(body))

    sent = await attempt().run(Send(world.deps).send, step(world, "quote"))

    (message,) = sent.messages
    assert body == message.data


@pytest.mark.parametrize("operation", ["order", "quote"])
@pytest.mark.parametrize("body", ['{"id": "r-1", "tot', "<html>Gateway"])
async def test_garbled_answer_is_retryable(world: World, operation: str, body: str) -> None:
    """A broken transmission is repeated under the same key."""
    world.script.replies.append(PlainTextResponse(body))

    error = await failed(attempt().run(Send(world.deps).send, step(world, operation)))

    assert (error.type, error.non_retryable) == ("NoReceipt", False)
    assert trouble(error).reached is True


async def test_long_keys_have_distinct_event_keys(world: World) -> None:
    """A call id may be longer than an event key."""
    keys = set()
    for end in "ab":
        request = world.request("quote", key="k" * 511 + end)
        sent = await attempt().run(Send(world.deps).send, SendStep(request=request, cycle=1))
        keys.add(sent.messages[0].event_key)

    assert len(keys) == 2
    assert all(key.startswith("sync:") and len(key) < 100 for key in keys)


async def test_early_callback_is_redacted(world: World) -> None:
    """A callback stored as a document is read when its call appears."""
    document = {"type": "failed", "order": "r-1", "why": "not by hook line and sinker"}
    await world.ledger.inbox.store(
        InboxEntry("acme", "e-1", None, None, "r-1", None, document, datetime.now(UTC))
    )

    sent = await attempt().run(Send(world.deps).send, step(world))

    (message,) = sent.messages
    assert (message.event_key, message.reference) == ("e-1", "r-1")
    assert message.reason == "not by ***"


async def test_polled_operation_reads_no_inbox(world: World) -> None:
    """It stores no reference either."""
    sent = await attempt().run(Send(world.deps).send, step(world, "track"))

    assert (sent.reference, sent.messages) == ("r-1", ())
    assert await world.ledger.calls.find_by_reference("acme", "r-1") is None
