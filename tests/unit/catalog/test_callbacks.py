"""The grammar of callbacks: what is refused, and what is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ackbridge.catalog.callbacks import CallbackSpec, HandshakeReply
from ackbridge.catalog.loading import integration_warnings, load_catalog
from ackbridge.catalog.matching import classify
from ackbridge.catalog.templates import BodyTemplate, Template
from ackbridge.contracts.messages import MessageKind, MessageSource
from ackbridge.errors import IntegrationFileError
from tests.support.catalog_files import acme, callback, problems, write
from tests.unit.catalog.test_matching import AT

FILE = """\
provider: acme
base_url: https://acme.example
callbacks:
  verify: {type: header, name: X-Token, secrets: ["env:TOKEN"]}
  event_key: id
operations:
  order:
    request: {path: /orders}
    receipt: {reference: id}
    response:
      mode: callback
      match: {reference: id}
      success: type == 'done'
"""
FETCH = """\
      fetch: true
      status: {path: "/orders/{reference}", success: state == 'done'}
"""


def with_callbacks(lines: str) -> str:
    """The file with more lines in `callbacks`."""
    return FILE.replace("operations:", f"{lines}\noperations:")


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        (FILE.replace("event_key: id", "event_key: null"), "callbacks.event_key", "duplicates"),
        (FILE.replace("  event_key: id\n", ""), "callbacks.event_key", "is missing"),
        (FILE + "      fetch: true\n", "operations.order.response.fetch", "response.status"),
        (
            FILE.replace("mode: callback", "mode: sync") + FETCH,
            "operations.order.response.fetch",
            "mode callback",
        ),
        (with_callbacks("  encoding: yaml"), "callbacks.encoding", "'json', 'form'"),
        (
            with_callbacks("  handshakes: [{when: a, reply: {body: '{a'}}]"),
            "callbacks.handshakes.0.reply.body",
            "is not closed",
        ),
        (
            with_callbacks("  handshakes: [{when: a, reply: {body: {b: '{a.'}}}]"),
            "callbacks.handshakes.0.reply.body.b",
            "is not closed",
        ),
        (
            with_callbacks('  handshakes: [{when: a, reply: {content_type: "a\\nb"}}]'),
            "callbacks.handshakes.0.reply.content_type",
            "does not match",
        ),
        (with_callbacks("  events: {refund: {when: a}}"), "callbacks.events.refund", "visit"),
        (
            with_callbacks("  events: {refund: {when: a, notify: shop, visit: b}}"),
            "callbacks.events.refund",
            "either notify or visit",
        ),
        (
            with_callbacks("  list: {path: /events, each: data, query: {a: '{sinse}'}}"),
            "callbacks.list.query.a",
            "Did you mean 'since'?",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, text: str, field: str, message: str) -> None:
    """With the field, and what is wrong."""
    found = {problem.field: problem.message for problem in problems(tmp_path, text)}
    assert message in found[field]


def test_doorbells_need_no_key_and_success_only_in_status(tmp_path: Path) -> None:
    """Where every operation that is called back fetches what there is."""
    text = FILE.replace("event_key: id", "event_key: null").replace("      success:", "      #")
    assert problems(tmp_path, text + FETCH) == ()


def test_a_callback_is_a_doorbell_where_the_operation_fetches(tmp_path: Path) -> None:
    """Whatever it says; the answer to the status request is read by the rules."""
    response = {
        "mode": "callback",
        "match": {"reference": "id"},
        "success": "type == 'done'",
        "fetch": True,
        "status": {"path": "/orders/{reference}"},
    }
    operation = acme(tmp_path, receipt={"reference": "id"}, response=response).operations["order"]
    document = callback({"id": "r-1", "type": "failed"})
    ring = classify(operation, document, "e1", MessageSource.CALLBACK, AT)
    assert ring is not None
    assert (ring.kind, ring.reference, ring.data) == (MessageKind.DOORBELL, "r-1", None)
    found = classify(operation, document | {"type": "done"}, "e1", MessageSource.STATUS, AT)
    assert found is not None
    assert found.kind is MessageKind.RESPONSE


def test_the_body_of_a_handshake_reply_is_a_template_or_a_mapping() -> None:
    """A text is a template, unlike the body of a request."""
    text = HandshakeReply.model_validate({"body": "{challenge}"}).body
    assert isinstance(text, Template)
    assert text.render({"challenge": "abc"}) == "abc"
    mapping = HandshakeReply.model_validate({"body": {"a": "{challenge}"}}).body
    assert isinstance(mapping, BodyTemplate)
    assert mapping.render({"challenge": "abc"}) == {"a": "abc"}


def test_defaults_are_those_of_plain_callbacks(tmp_path: Path) -> None:
    """JSON, one event, nothing else."""
    callbacks = acme(tmp_path).callbacks
    assert isinstance(callbacks, CallbackSpec)
    assert (callbacks.encoding, callbacks.each, callbacks.handshakes) == ("json", None, ())
    assert (callbacks.events, callbacks.list, callbacks.replies.body) == ({}, None, None)


def test_events_go_to_subscribers_that_exist(tmp_path: Path) -> None:
    """A misspelt subscriber is found when the folder is loaded, with its place in the file."""
    write(tmp_path, with_callbacks("  events: {refund: {when: type == 'refund', notify: shp}}"))
    folder = tmp_path / "subscribers"
    folder.mkdir()
    write(folder, "subscriber: shop\nurl: http://shop.example\nsecrets: ['env:A']\n", "shop.yaml")
    with pytest.raises(IntegrationFileError) as refused:
        load_catalog(tmp_path, {})
    (problem,) = refused.value.problems
    assert (problem.line, problem.field) == (6, "callbacks.events.refund.notify")
    assert (
        problem.message == "unknown subscriber 'shp'; known subscribers: shop. Did you mean 'shop'?"
    )


def test_a_signature_that_covers_nothing_is_a_warning(tmp_path: Path) -> None:
    """With the parameters as the body, an HMAC over the body signs an empty text."""
    text = with_callbacks("  encoding: query")
    assert "callbacks.encoding" not in warned(tmp_path, text)
    signed = text.replace("type: header, name: X-Token", "type: hmac, header: X-Token")
    assert "over the body, which is empty" in warned(tmp_path, signed)["callbacks.encoding"]
    assert "callbacks.encoding" not in warned(tmp_path, signed.replace("  encoding: query", ""))


def warned(folder: Path, text: str) -> dict[str, str]:
    """What is warned of, by field."""
    found = integration_warnings(write(folder, text), {})
    return {problem.field: problem.message for problem in found}
