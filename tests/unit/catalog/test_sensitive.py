"""Fields that are shown to nobody but the caller."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ackbridge.catalog.catalog import Catalog, require_keys, sensitive_fields
from ackbridge.catalog.matching import classify
from ackbridge.conformance.recording import Redaction
from ackbridge.contracts.calls import (
    MASKED,
    CallOutcome,
    CallStatus,
    OutcomeStatus,
    Stage,
    Timings,
    masked,
    masked_answer,
    texts_at,
)
from ackbridge.contracts.messages import MessageSource
from ackbridge.errors import ConfigurationError, IntegrationFileError
from ackbridge.security.encryption import load_encryption
from ackbridge.security.redaction import Redactor
from tests.support.catalog_files import acme

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CLOSED = {"type": "object", "properties": {"cart": {}}, "additionalProperties": False}
OPEN = {"type": "object", "properties": {"guests": {"type": "array"}}}
CARD = {"number": "4242-4242", "cvc": 987, "holder": {"name": "Ada"}}


@pytest.mark.parametrize(
    ("value", "paths", "read"),
    [
        ({"a": {"b": 1, "c": 2}}, ["a.b"], {"a": {"b": MASKED, "c": 2}}),
        ({"a": [{"b": 1}, {"b": [2]}, 3]}, ["a.b"], {"a": [{"b": MASKED}, {"b": MASKED}, 3]}),
        ({"a": {"b": 1}}, ["a"], {"a": MASKED}),
        ({"a": {"b": 1}}, ["a.x", "x", "a.b.c"], {"a": {"b": 1}}),
        ({"a": None}, ["a", "a.b"], {"a": None}),
        ({"a": 1, "b": 2}, ["a", "b"], {"a": MASKED, "b": MASKED}),
    ],
)
def test_masking(value: Any, paths: list[str], read: Any) -> None:
    """Lists are passed through; what is not there stays so; the value itself does not change."""
    before = repr(value)
    assert masked(value, paths) == read
    assert repr(value) == before


def test_values_that_may_be_quoted() -> None:
    """Texts and numbers at a path and below it; not those too short to be told from others."""
    document = {"payload": {"card": CARD, "tags": [{"id": "abc"}, {"id": "ab"}], "is": True}}
    paths = ["payload.card", "payload.tags.id", "payload.is", "payload.x"]
    assert sorted(texts_at(document, paths)) == ["4242-4242", "987", "Ada", "abc"]


def test_a_status_is_masked_for_everybody_but_the_caller() -> None:
    """An outcome knows what of it is sensitive, wherever it is read."""
    outcome = CallOutcome(
        call_id="acme.order.1",
        status=OutcomeStatus.COMPLETED,
        response={"iban": "DE02", "id": 7},
        timings=Timings(started_at=NOW),
        sensitive=("response.iban",),
    )
    status = CallStatus(call_id="acme.order.1", stage=Stage.COMPLETED, since=NOW, outcome=outcome)
    shown = CallStatus.model_validate_json(status.masked().model_dump_json())

    assert shown.outcome is not None
    assert shown.outcome.response == {"iban": MASKED, "id": 7}
    assert outcome.response == {"iban": "DE02", "id": 7}
    assert outcome.model_copy(update={"sensitive": ("response",)}).masked().response == MASKED


@pytest.mark.parametrize("path", ["card", "payloads.x", "payload.", "payload..x", "response.a b"])
def test_other_paths_are_refused(tmp_path: Path, path: str) -> None:
    """A field that is misspelt would be shown."""
    with pytest.raises(IntegrationFileError, match="sensitive"):
        acme(tmp_path, sensitive=[path])


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        ({"sum": "payload.card.cvc"}, "sum.*reads payload.card.cvc, which is sensitive"),
        ({"fairness": "payload"}, "fairness.*reads payload, which is sensitive"),
        (
            {"payload_schema": CLOSED},
            r"sensitive.*payload_schema has no card\. Did you mean 'cart'",
        ),
    ],
)
def test_sensitive_fields_that_would_be_shown(
    tmp_path: Path, operation: dict[str, Any], reason: str
) -> None:
    """Sums and tenants are stored in plain, and a misspelt field would be shown."""
    with pytest.raises(IntegrationFileError, match=reason):
        acme(tmp_path, sensitive=["payload.card"], **operation)
    acme(tmp_path, sensitive=["payload.card"], sum="payload.amount", payload_schema=OPEN)


def test_messages_and_documents_are_masked(tmp_path: Path) -> None:
    """By the names of the fields: a provider repeats what it was sent, wherever it likes."""
    integration = acme(
        tmp_path,
        response={"mode": "sync", "data": "body"},
        sensitive=["payload.card", "response.account.iban"],
    )
    body = {"account": {"iban": "DE02", "bank": "x"}, "echo": [{"card": CARD}]}
    message = classify(
        integration.operations["order"],
        {"status": 200, "headers": {}, "body": body},
        "e-1",
        MessageSource.SYNC,
        NOW,
    )
    assert message is not None
    assert message.data == body
    masked_body = {"account": {"iban": MASKED, "bank": "x"}, "echo": [{"card": MASKED}]}
    assert message.masked().data == masked_body
    assert masked_answer({"body": body}, sensitive_fields(integration)) == {"body": masked_body}
    all_of_it = acme(tmp_path, sensitive=["response"])
    assert masked_answer({"body": body}, sensitive_fields(all_of_it)) == MASKED


def test_examples_have_nobodys_values(tmp_path: Path) -> None:
    """Of the same form, so that the example is still read alike."""
    integration = acme(tmp_path, sensitive=["payload.card", "response.account.ref"])
    body = {"card": CARD, "account": {"ref": "X-77"}, "state": "paid"}
    recorded = Redaction(integration, Redactor()).value(body)

    assert recorded == {
        "card": {"number": "0000-0000", "cvc": 0, "holder": {"name": "Somebody"}},
        "account": {"ref": "X-00"},
        "state": "paid",
    }


def test_a_providers_text_does_not_quote_the_payload() -> None:
    """The longest value first, and what the provider's own redactor removes as well."""
    redactor = Redactor().hiding(["Ada", "Ada Lovelace"])
    text = "no such holder: Ada Lovelace (Ada), Bearer a1b2c3d4"
    assert redactor.clean_value(text) == "no such holder: *** (***), Bearer ***"
    assert Redactor().clean_value("Ada") == "Ada"


def test_sensitive_fields_need_keys(tmp_path: Path) -> None:
    """They would be stored in plain."""
    catalog = Catalog({"acme": acme(tmp_path, sensitive=["payload.card"])})
    keys = {"ACKBRIDGE_ENCRYPTION_KEYS": "k=env:K", "K": "a" * 64}
    with pytest.raises(ConfigurationError, match=r"acme\.order .*ACKBRIDGE_ENCRYPTION_KEYS"):
        require_keys(catalog, None)
    require_keys(catalog, load_encryption(keys))
    require_keys(Catalog({"acme": acme(tmp_path)}), None)
