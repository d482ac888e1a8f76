"""send: the provider's answers, and errors on our side."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from ackbridge.contracts.limits import MAX_RESULT_BYTES
from ackbridge.contracts.messages import BodyRef, MessageKind, MessageSource
from ackbridge.contracts.steps import CorrelateStep, InboxMessages, LookStep, SendStep
from ackbridge.ledger.bodies import binary
from ackbridge.ledger.inbox import InboxEntry
from ackbridge.ledger.ledger import Ledger
from activities.send import InboxReader, Send
from activities.support.provider_http import load_data

from .world import NOW, TOKEN, World, attempt, delay, failed, trouble

JSON = "application/json"


def step(of: World, operation: str = "order", **fields: Any) -> SendStep:
    """The first cycle of a call."""
    return SendStep(request=of.request(operation), cycle=1, **fields)


def correlation(of: World, **fields: Any) -> CorrelateStep:
    """What is left to do after a receipt."""
    return CorrelateStep(request=of.request(), reference="r-1", **fields)


async def test_receipt_outlives_an_unavailable_ledger(world: World, tmp_path: Path) -> None:
    """The request is not sent again; the reference is committed by a step of its own."""
    gone = Ledger.open(f"sqlite:///{tmp_path}/missing/ledger.db", lambda: NOW)
    deps = replace(world.deps, ledger=gone)

    sent = await attempt().run(Send(deps).send, step(world))
    error = await failed(attempt().run(InboxReader(deps).correlate, correlation(world)))
    found = await attempt().run(InboxReader(world.deps).correlate, correlation(world))

    await gone.close()
    assert (sent.reference, sent.uncorrelated, sent.messages) == ("r-1", True, ())
    assert (error.type, error.non_retryable) == ("Unavailable", False)
    assert found == InboxMessages()
    assert await world.ledger.calls.find_by_reference("acme", "r-1") == world.request().call_id


async def test_receipt_outlives_an_error_of_ours(world: World, tmp_path: Path) -> None:
    """Whatever fails after a 2xx, the provider has the request."""
    deps = replace(world.deps, ledger=None)  # type: ignore[arg-type]  # as broken as can be

    sent = await attempt().run(Send(deps).send, step(world))

    assert (sent.reference, sent.uncorrelated) == ("r-1", True)


async def test_missing_secret_sends_nothing(world: World) -> None:
    """Another worker may have it: the failure is retryable, within 10 s."""
    del world.environ["ACME_TOKEN"]

    error = await failed(attempt(9).run(Send(world.deps).attempt, step(world)))

    assert (error.type, error.non_retryable) == ("Missing", False)
    assert (error.message, trouble(error).reached) == ("env:ACME_TOKEN: is not set", False)
    assert 5 <= delay(error) <= 10


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


async def test_secret_that_the_provider_repeats_is_not_stored(world: World) -> None:
    """Neither as it was sent nor in another form."""
    encoded = base64.b64encode(f"us:{TOKEN}".encode()).decode()
    body = {"id": "r-1", "sent": {"auth": f"Bearer {TOKEN}", "as": encoded}, TOKEN: 1}
    world.script.says(body, x_sent=TOKEN)

    sent = await attempt().run(Send(world.deps).send, step(world, "quote"))

    (message,) = sent.messages
    assert message.data == {"id": "r-1", "sent": {"auth": "Bearer ***", "as": "dXM6***"}, "***": 1}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"title": "Too heavy", "detail": "At most 30 kg."}, "At most 30 kg."),
        ({"title": "Too heavy"}, "Too heavy"),
        ({"error": {"message": "sold out"}, "message": "no"}, "sold out"),
        ({"message": "no"}, "no"),
        ({"error": "never"}, "never"),
    ],
)
async def test_refusal_has_the_reason_of_the_provider(
    world: World, body: dict[str, Any], reason: str
) -> None:
    """A problem of RFC 9457, or one of the usual fields."""
    world.script.says(body, 422)

    error = await failed(attempt().run(Send(world.deps).send, step(world)))

    assert error.message == f"the provider refused with 422: {reason}"
    assert trouble(error).code is None


@pytest.mark.parametrize(
    ("operation", "status", "reached"),
    [
        ("ask", 403, False),
        ("ask", 429, False),
        ("ask", 200, True),
        ("ask", 409, True),
        ("ask", 503, True),
        ("ask_once", 200, False),
        ("ask_once", 503, False),
    ],
)
async def test_an_answer_that_asks_for_another_attempt(
    world: World, operation: str, status: int, *, reached: bool
) -> None:
    """A refused attempt had no effect; for requests that are sent once, the file says so."""
    world.script.says({"code": "BUSY", "message": "later", "wait": 7}, status)

    error = await failed(attempt().run(Send(world.deps).send, step(world, operation)))

    assert (error.type, error.non_retryable) == ("NoReceipt", False)
    assert (trouble(error).reached, "later" in error.message) == (reached, True)
    assert 7 <= delay(error) <= 7.7


async def test_a_pause_beside_retry_after(world: World) -> None:
    """Retry-After wins, and `pause` is honoured for every answer that is retried."""
    world.script.says({"wait": 7}, 503)
    world.script.says({"wait": 7}, 503, retry_after="2")

    errors = [
        await failed(attempt().run(Send(world.deps).send, step(world, "ask"))) for _ in range(2)
    ]

    assert 7 <= delay(errors[0]) <= 7.7
    assert 2 <= delay(errors[1]) <= 2.2


async def test_refusal_by_the_expressions_of_the_file(world: World) -> None:
    """`receipt.failure.reason` and `code` explain ordinary refusals, too."""
    world.script.says({"error": "no", "why": "none is left", "code": 17}, 422)

    error = await failed(attempt().run(Send(world.deps).send, step(world, "book")))

    assert (error.type, error.non_retryable) == ("Refused", True)
    assert error.message == "the provider refused with 422: none is left"
    assert (trouble(error).code, trouble(error).reached) == ("17", False)


@pytest.mark.parametrize("status", [200, 422, 429, 503])
@pytest.mark.parametrize("reached", [False, True])
async def test_reported_failure_is_a_message(world: World, status: int, reached: bool) -> None:
    """Whatever the status is, and also after an attempt that may have arrived."""
    world.script.says({"ok": False, "why": "no such room", "code": "room_not_found"}, status)

    sent = await attempt().run(Send(world.deps).send, step(world, "book", reached=reached))

    (message,) = sent.messages
    assert (message.kind, message.source) == (MessageKind.FAILURE, MessageSource.SYNC)
    assert (message.reason, message.code) == ("no such room", "room_not_found")
    assert (message.event_key, message.retryable) == ("receipt:acme.book.k-1:1", False)
    assert sent.again is reached


async def test_receipt_has_data_for_the_caller(world: World) -> None:
    """`receipt.data` is known before the response."""
    world.script.says({"id": "b-1", "links": {"pay": "https://pay.example/1"}})

    sent = await attempt().run(Send(world.deps).send, step(world, "book"))

    assert (sent.reference, sent.receipt) == ("b-1", {"pay": "https://pay.example/1"})


async def test_receipt_without_the_only_reference_is_unreadable(world: World) -> None:
    """Nothing could ever match its response; it is not sent again."""
    world.script.says({"ok": True})
    world.script.says({"ok": True})
    world.script.says({"ok": True})

    for operation in ("book", "track"):
        error = await failed(attempt().run(Send(world.deps).send, step(world, operation)))
        assert (error.type, error.non_retryable) == ("Unreadable", True)
        assert error.message.startswith("no reference in the receipt")
        assert trouble(error).reached is True
    # The callbacks of an order name the call as well.
    sent = await attempt().run(Send(world.deps).send, step(world))
    assert (sent.reference, sent.uncorrelated) == (None, False)


async def test_too_long_answer_is_not_asked_for_again(world: World) -> None:
    """After a 2xx; the length of an error page does not matter."""
    world.script.says({"id": "b-1", "more": "x" * 4_200_000})
    world.script.says({"more": "x" * 4_200_000}, 503)

    receipt = await failed(attempt().run(Send(world.deps).send, step(world, "book")))
    error = await failed(attempt().run(Send(world.deps).send, step(world)))

    assert (receipt.type, receipt.non_retryable) == ("Unreadable", True)
    assert receipt.message == "the response is longer than 4194304 bytes"
    assert (error.type, error.non_retryable) == ("NoReceipt", False)


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

    assert (error.type, error.non_retryable) == ("Unreadable", True)
    assert trouble(error).reached is True


@pytest.mark.parametrize("body", ['"\\ud800"', "[" * 5000, "not JSON"])
async def test_invalid_json_becomes_text(world: World, body: str) -> None:
    """An answer that cannot be serialised does not break the call."""
    world.script.replies.append(PlainTextResponse(body))

    sent = await attempt().run(Send(world.deps).send, step(world, "ponder"))

    (message,) = sent.messages
    assert body == message.data


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "0.1234567890123456789", "1e-400"])
async def test_a_number_that_no_double_holds_is_a_text(world: World, number: str) -> None:
    """The answer is taken, and nothing of it is lost."""
    world.script.replies.append(Response(f'{{"id": 1, "n": {number}}}', media_type=JSON))

    sent = await attempt().run(Send(world.deps).send, step(world, "quote"))

    (message,) = sent.messages
    assert (sent.reference, message.data) == ("1", {"id": 1, "n": number})


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"id": "r-1", "tot', JSON),
        (b'{"id": "r-1", "tot', ""),
        (b'{"id": "r-1", "tot', "text/plain"),
        (b"<html>Gateway", "text/html"),
        (b"<html>Gateway", JSON),
        (b'{"id": "na\xefve"}', JSON),
        (b'{"id": "na\xefve"}', "application/json; charset=utf-8"),
    ],
)
async def test_garbled_answer_is_not_asked_for_again(
    world: World, content: bytes, content_type: str
) -> None:
    """Its status counts: a receipt, where that is enough, but never a response."""
    for _ in range(2):
        headers = {"content-type": content_type} if content_type else {}
        world.script.replies.append(Response(content, headers=headers))

    sent = await attempt().run(Send(world.deps).send, step(world, "order"))
    error = await failed(attempt().run(Send(world.deps).send, step(world, "quote")))

    assert (sent.reference, sent.messages) == (None, ())
    assert (error.type, error.non_retryable) == ("Unreadable", True)
    assert trouble(error).reached is True


@pytest.mark.parametrize(
    ("content", "content_type", "data"),
    [
        ("naïve €".encode("cp1252"), "text/plain", "naïve €"),
        ("naïve".encode("latin-1"), "text/plain; charset='iso-8859-1'", "naïve"),
        ("naïve".encode(), "text/plain; charset=us-ascii", "naïve"),
        ('"naïve"'.encode("utf-16"), "application/json; charset = utf-16", "naïve"),
        (b"\xef\xbb\xbf[1]", "application/json; charset=utf-8", [1]),
        (b"\xef\xbb\xbf", "application/json", None),
        (b"[1]", "application/json; charset=unicode_escape", [1]),
        (b"[1]", "application/json; charset=nothing-known", [1]),
        (b"<?xml version='1.0' encoding='iso-8859-1'?><a>\xe9</a>", "application/xml", {"a": "é"}),
        (b"<a:x xmlns:a='u'><b i='1'/></a:x>", "application/soap+xml", {"x": {"b": {"@i": "1"}}}),
        (b"a=1&b=x%20y&b=z", "application/x-www-form-urlencoded", {"a": "1", "b": ["x y", "z"]}),
        (b"<p>hello</p>", "text/html", "<p>hello</p>"),
        (b"\xff\xfe\xfd", "image/png", {"$binary": {"content_type": "image/png"}}),
    ],
)
async def test_a_body_is_decoded_by_its_charset(
    world: World, content: bytes, content_type: str, data: Any
) -> None:
    """The declared one, or the usual ones; bytes that are no text are kept as they are."""
    world.script.replies.append(Response(content, headers={"content-type": content_type}))

    sent = await attempt().run(Send(world.deps).send, step(world, "ponder"))

    (message,) = sent.messages
    if content_type == "image/png":
        assert message.data == binary("image/png", content)
    else:
        assert message.data == data


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


async def store(of: World, number: int, size: int = 0, **fields: Any) -> None:
    """A callback that the gateway could not deliver."""
    document = {"type": "done", "body": {"n": number, "filler": "x" * size}}
    names = {"operation": None, "call_id": None, "reference": None, **fields}
    received = NOW + timedelta(seconds=number)
    await of.ledger.inbox.store(
        InboxEntry(
            "acme", f"e-{number}", message=None, document=document, received_at=received, **names
        )
    )


async def test_look_finds_what_waits_for_a_call(world: World) -> None:
    """By its id and by every reference, but nothing of another call."""
    await store(world, 1, reference="r-1")
    await store(world, 2, call_id=world.request().call_id)
    await store(world, 3, reference="r-2")
    await store(world, 4, reference="r-3")
    await store(world, 5, call_id="acme.order.other", reference="r-1")
    step = LookStep(request=world.request(), references=("r-1", "r-2"))

    found = await attempt().run(InboxReader(world.deps).look_inbox, step)

    assert [message.event_key for message in found.messages] == ["e-1", "e-2", "e-3"]
    assert found.more is False


async def test_look_without_references(world: World) -> None:
    """A call that has no receipt is found by its id."""
    await store(world, 1, call_id=world.request().call_id)

    found = await attempt().run(
        InboxReader(world.deps).look_inbox, LookStep(request=world.request())
    )

    assert [message.event_key for message in found.messages] == ["e-1"]


async def test_many_messages_are_returned_in_pieces(world: World) -> None:
    """Each result is bounded, and what the call has seen is not returned again."""
    for number in range(1, 4):
        await store(world, number, size=240_000, reference="r-1")

    sent = await attempt().run(Send(world.deps).send, step(world))
    seen = tuple(message.event_key for message in sent.messages)
    rest = await attempt().run(InboxReader(world.deps).correlate, correlation(world, seen=seen))

    assert (seen, sent.uncorrelated) == (("e-1", "e-2"), True)
    assert len(sent.model_dump_json()) < MAX_RESULT_BYTES
    assert [message.event_key for message in rest.messages] == ["e-3"]
    assert rest.more is False


def broken_off(status: int = 200) -> Response:
    """An answer whose connection breaks within its body."""

    async def part() -> AsyncIterator[bytes]:
        yield b'{"id": "r-1", "ok": '
        raise ConnectionResetError("as played")

    return StreamingResponse(part(), status, media_type="application/json")


async def test_receipt_outlives_a_body_that_breaks_off(world: World) -> None:
    """Its status was readable, and its callback names the call."""
    world.script.replies.append(broken_off())

    sent = await attempt().run(Send(world.deps).send, step(world))

    assert (sent.reference, sent.messages, sent.uncorrelated) == (None, (), False)


@pytest.mark.parametrize(
    ("operation", "status", "failure"),
    [
        ("quote", 200, ("Unreadable", True)),
        ("book", 200, ("Unreadable", True)),
        ("wire", 200, ("Unreadable", True)),
        ("book", 422, ("Unreadable", True)),
        ("wire", 422, ("Refused", True)),
        ("quote", 503, ("NoReceipt", False)),
    ],
)
async def test_nothing_is_concluded_from_a_part_of_a_body(
    world: World, operation: str, status: int, failure: tuple[str, bool]
) -> None:
    """The status says what it can, and nothing is sent again because of the body.

    A refusal counts, unless an expression might have read something else in it.
    """
    world.script.replies.append(broken_off(status))

    error = await failed(attempt().run(Send(world.deps).send, step(world, operation)))

    assert (error.type, error.non_retryable) == failure
    assert trouble(error).reached is (error.type != "Refused")


async def stored_json(of: World, data: Any) -> Any:
    """What a reference refers to."""
    ref = BodyRef.of_data(data)
    assert ref is not None
    body = await of.ledger.bodies.read(ref.id)
    assert body is not None
    assert (ref.bytes, ref.content_type) == (len(body), "application/json")
    return json.loads(body)


async def test_large_answer_is_passed_by_reference(world: World) -> None:
    """An activity's result stays small, whatever the provider sends."""
    body = {"id": "q-1", "more": ["\u00e9" * 10] * 60_000}
    world.script.says(body)

    sent = await attempt().run(Send(world.deps).send, step(world, "quote"))

    assert await stored_json(world, sent.messages[0].data) == body
    assert len(sent.model_dump_json()) < 10_000


async def test_large_data_of_a_receipt_is_passed_by_reference(world: World) -> None:
    """As the response is."""
    world.script.says({"id": "b-1", "links": ["x" * 300_000]})

    sent = await attempt().run(Send(world.deps).send, step(world, "book"))

    assert await stored_json(world, sent.receipt) == ["x" * 300_000]


async def test_large_binary_answer_is_stored_as_it_is(world: World) -> None:
    """Its bytes, with its content type."""
    content = b"%PDF\x00\xff" * 60_000
    world.script.replies.append(Response(content, media_type="application/pdf"))

    sent = await attempt().run(Send(world.deps).send, step(world, "ponder"))

    ref = BodyRef.of_data(sent.messages[0].data)
    assert ref is not None
    assert (ref.content_type, ref.bytes) == ("application/pdf", len(content))
    assert await world.ledger.bodies.read(ref.id) == content
    assert await load_data(world.deps, ref.as_data()) == binary("application/pdf", content)


async def test_large_answer_without_a_ledger(world: World, tmp_path: Path) -> None:
    """What fits is passed on; what does not is asked for again under its key, or is unreadable."""
    gone = Ledger.open(f"sqlite:///{tmp_path}/missing/ledger.db", lambda: NOW)
    deps = replace(world.deps, ledger=gone)
    world.script.says({"id": "q-1", "more": "x" * 300_000})
    world.script.says({"id": "q-1", "more": "x" * 500_000})
    world.script.says({"id": "w-1", "more": "x" * 500_000})

    sent = await attempt().run(Send(deps).send, step(world, "quote"))
    keyed = await failed(attempt().run(Send(deps).send, step(world, "quote")))
    unkeyed = await failed(attempt().run(Send(deps).send, step(world, "wire")))

    await gone.close()
    assert len(sent.messages[0].data["more"]) == 300_000
    assert (keyed.type, trouble(keyed).reached) == ("NoReceipt", True)
    assert (unkeyed.type, unkeyed.non_retryable) == ("Unreadable", True)


async def test_reference_in_an_answer_is_not_ours(world: World) -> None:
    """A provider cannot refer to what another one has sent."""
    forged = BodyRef(id="0" * 64, bytes=1, content_type="application/json", sha256="").as_data()
    world.script.says(forged)

    sent = await attempt().run(Send(world.deps).send, step(world, "ponder"))

    assert await stored_json(world, sent.messages[0].data) == forged


async def test_large_callbacks_are_passed_by_reference(world: World) -> None:
    """So that one look returns them all."""
    for number in range(1, 4):
        await store(world, number, size=700_000, reference="r-1")
    step = LookStep(request=world.request(), references=("r-1",))

    found = await attempt().run(InboxReader(world.deps).look_inbox, step)

    assert [message.event_key for message in found.messages] == ["e-1", "e-2", "e-3"]
    assert len(found.model_dump_json()) < 10_000
    data = await stored_json(world, found.messages[2].data)
    assert (data["n"], len(data["filler"])) == (3, 700_000)
