"""Redaction: secrets are removed from a provider's texts, and the rest stays."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ackbridge.security.redaction import Redactor
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import AuthSpec, VerifySpec
from tests.support.token_issuer import Issuer, calling

AUTH: TypeAdapter[AuthSpec] = TypeAdapter(AuthSpec)
VERIFY: TypeAdapter[VerifySpec] = TypeAdapter(VerifySpec)
LONG = 2000


def redactor(
    auth: dict[str, Any] | None, verify: dict[str, Any] | None, **environ: str
) -> Redactor:
    """A redactor of a provider with these specs and secrets."""
    return Redactor(
        (AUTH.validate_python(auth),) if auth else (),
        VERIFY.validate_python(verify) if verify else None,
        Secrets(environ, Path("/nowhere")),
    )


@pytest.mark.parametrize(
    ("auth", "verify"),
    [
        ({"type": "bearer", "token": "env:S"}, None),
        ({"type": "header", "name": "X-Key", "value": "env:S"}, None),
        ({"type": "basic", "username": "us", "password": "env:S"}, None),
        (
            {
                "type": "oauth2",
                "token_url": "https://t.example/",
                "client_id": "us",
                "client_secret": "env:S",
            },
            None,
        ),
        (None, {"type": "hmac", "preset": "stripe", "secrets": ["env:GONE", "env:S"]}),
        (None, {"type": "header", "name": "X-Key", "secrets": ["env:S"]}),
        (None, {"type": "basic", "username": "us", "passwords": ["env:S"]}),
    ],
)
def test_a_providers_own_secrets_are_removed(
    auth: dict[str, Any] | None, verify: dict[str, Any] | None
) -> None:
    """Independent of their pattern, for every kind of authentication."""
    clean = redactor(auth, verify, S="plain word").clean

    assert clean("we do not like plain word, sorry", LONG) == "we do not like ***, sorry"


def test_a_secret_is_removed_in_all_forms_it_is_sent_in() -> None:
    """Percent-encoded, as basic credentials, and without the `whsec_` prefix."""
    basic = {"type": "basic", "username": "us", "password": "env:S"}
    encoded = base64.b64encode(b"us:a b/c").decode()
    hook = {"type": "hmac", "preset": "standard-webhooks", "secrets": ["env:S"]}

    assert redactor(basic, None, S="a b/c").clean(f"[{encoded}] a%20b%2Fc", LONG) == "[***] ***"
    assert redactor(None, hook, S="whsec_Zm9v").clean("by Zm9v", LONG) == "by ***"


def test_secrets_are_resolved_for_every_text() -> None:
    """A rotated secret is removed from the next text, without a restart."""
    environ = {"S": "the first one"}
    spec = AUTH.validate_python({"type": "bearer", "token": "env:S"})
    clean = Redactor((spec,), None, Secrets(environ, Path("/nowhere"))).clean
    assert clean("the first one", LONG) == "***"

    environ["S"] = "the second one"

    assert clean("the second one", LONG) == "***"


async def test_an_oauth2_token_in_use_is_removed() -> None:
    """The token is a secret without a reference."""
    async with calling(Issuer()) as caller:
        await caller.call()
        clean = Redactor(session=caller.auth).clean

    assert clean("token-1 is over", LONG) == "*** is over"


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ("Invalid key: Bearer abc.def123", "Invalid key: Bearer ***"),
        ("got basic dXNlcjpwYXNz!", "got basic ***!"),
        ("no key sk_live_4eC39HqLyjWD here", "no key *** here"),
        ("whsec_1234567890", "***"),
        ("ghp_abcdefghij1234567890 or AKIAABCDEFGHIJKLMNOP", "*** or ***"),
        ("pi_3N_secret_abcdefgh99", "pi_3N_secret_***"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln-_ expired", "*** expired"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----", "***"),
        ("https://us:p4ss@db.example/x", "https://***@db.example/x"),
        ("user=me&password=open&x=1", "user=me&password=***&x=1"),
        ('{"api_key": "abcd1234"}', '{"api_key": "***"}'),
    ],
)
def test_what_looks_like_a_credential_is_removed(message: str, read: str) -> None:
    """By its pattern or by its name, whoever issued it."""
    assert Redactor().clean(message, LONG) == read


@pytest.mark.parametrize(
    "card",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "3782 822463 10005",
        "4222222222222",
        "6304 0000 0000 0000 000",
    ],
)
def test_card_numbers_are_removed(card: str) -> None:
    """In every usual length and grouping, also next to other numbers."""
    assert Redactor().clean(f"order 12 {card} 7/27 declined", LONG) == "order 12 *** 7/27 declined"


@pytest.mark.parametrize(
    "message",
    [
        "Bearer authentication is required",
        "the token: expired, the password: missing",
        "order 4111111111111112 of 2026-11-24 19:22:21.123456",
        "call +49 30 1234567, ask for Zoë",
        "amount 5.00 EUR exceeds 4.99 EUR",
        "",
    ],
)
def test_ordinary_words_stay(message: str) -> None:
    """Operators have to understand what the provider sent."""
    assert Redactor().clean(message, LONG) == message


def test_no_part_of_a_secret_is_left() -> None:
    """A text is cut after redaction, and a long one before a secret may begin."""
    clean = redactor({"type": "bearer", "token": "env:S"}, None, S="0123456789abcdef").clean

    assert clean("key 0123456789abcdef", 10) == "key ***"
    for length in range(8170, 8195):
        assert "0123" not in clean("x" * length + "0123456789abcdef" * 3, 10_000)
    assert clean("word " * 10_000, LONG) == ("word " * 10_000)[:LONG]


def test_an_unresolved_secret_is_skipped() -> None:
    """A missing secret was not sent either; patterns still apply."""
    clean = redactor({"type": "bearer", "token": "env:GONE"}, None).clean

    assert clean("sk_test_1234567890 is unknown", LONG) == "*** is unknown"
