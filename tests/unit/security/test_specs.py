"""Authentication in integration files, and the errors for mistakes in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ackbridge.contracts.wire import describe_validation_error
from ackbridge.security.specs import (
    AuthSpec,
    BasicAuth,
    BearerAuth,
    HmacVerify,
    OAuth2Auth,
    VerifySpec,
    split_signed,
)

AUTH: TypeAdapter[AuthSpec] = TypeAdapter(AuthSpec)
VERIFY: TypeAdapter[VerifySpec] = TypeAdapter(VerifySpec)
GENERIC = {"type": "hmac", "header": "X-Signature", "secrets": ["env:KEY"]}


def refusal(adapter: TypeAdapter[Any], value: dict[str, Any]) -> str:
    """The error of a spec that does not validate."""
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python(value)
    return describe_validation_error(refused.value)


@pytest.mark.parametrize("ref", ["env:STRIPE_API_KEY", "env:_x1", "file:/run/key", "file:keys/a"])
def test_references_are_accepted(ref: str) -> None:
    """Variables and files, absolute or relative, are references."""
    assert ref == BearerAuth.model_validate({"type": "bearer", "token": ref}).token


@pytest.mark.parametrize("value", ["sk_live_abc", "env:", "env:A-B", "file:", "ENV:A", "env:A\n"])
def test_other_values_are_refused_without_being_repeated(value: str) -> None:
    """A pasted secret is refused, and the refusal does not contain it."""
    with pytest.raises(ValidationError) as refused:
        BearerAuth.model_validate({"type": "bearer", "token": value})

    assert "must be a secret reference" in str(refused.value)
    assert "sk_live" not in str(refused.value)


def test_a_plain_name_may_be_a_reference_but_not_a_broken_one() -> None:
    """A user name is a text, or a well-formed reference."""
    basic = {"type": "basic", "password": "env:P"}

    assert BasicAuth.model_validate({**basic, "username": "shop"}).username == "shop"
    assert "well-formed" in refusal(AUTH, {**basic, "username": "env:not ok"})


def test_unknown_fields_and_kinds_are_refused() -> None:
    """A misspelt field or an unknown type is an error."""
    assert "tokn" in refusal(AUTH, {"type": "bearer", "token": "env:T", "tokn": "x"})
    assert "'header'" in refusal(VERIFY, {"type": "none"})


@pytest.mark.parametrize("url", ["/token", "ftp://host/token", "https://id:pw@host/token"])
def test_a_token_url_is_absolute_and_without_credentials(url: str) -> None:
    """The URL is http or https and contains no secret."""
    message = refusal(
        AUTH, {"type": "oauth2", "token_url": url, "client_id": "c", "client_secret": "env:S"}
    )

    assert "token_url" in message
    assert "pw" not in message


def test_durations_are_parsed() -> None:
    """Leeway and tolerance accept texts and seconds."""
    oauth2 = OAuth2Auth.model_validate(
        {
            "type": "oauth2",
            "token_url": "https://host/token",
            "client_id": "c",
            "client_secret": "env:S",
            "leeway": "90s",
        }
    )

    assert timedelta(seconds=90) == oauth2.leeway
    assert timedelta(minutes=1) == HmacVerify.model_validate({**GENERIC, "tolerance": 60}).tolerance


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"header": None}, "needs a preset"),
        ({"preset": "stripe"}, "leave out header"),
        ({"secrets": []}, "secrets"),
        ({"tolerance": 0}, "tolerance"),
        ({"signed": "{timestamp}.{body}"}, "timestamp_header is required"),
        ({"signed": "{id}.{body}"}, "id_header is required"),
        ({"signed": "{timestamp}", "timestamp_header": "t"}, "must contain {body}"),
        ({"signed": "{body}{other}"}, "{timestamp}, {id} and {body} only"),
        ({"signed": "{body.__class__}"}, "{timestamp}, {id} and {body} only"),
        ({"header": "X Signature"}, "header"),
        ({"algorithm": "md5"}, "algorithm"),
    ],
)
def test_hmac_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    """An inconsistent signature scheme is refused with a hint."""
    assert message in refusal(VERIFY, {**GENERIC, **change})


def test_a_preset_needs_secrets_only() -> None:
    """A preset sets the scheme."""
    spec = VERIFY.validate_python({"type": "hmac", "preset": "stripe", "secrets": ["env:A"]})

    assert isinstance(spec, HmacVerify)
    assert timedelta(minutes=5) == spec.tolerance


def test_a_template_splits_into_texts_and_parts() -> None:
    """Literal text stays literal."""
    assert split_signed("v0:{timestamp}:{body}") == ("v0:", "{timestamp}", ":", "{body}")
