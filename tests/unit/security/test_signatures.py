"""Signatures: valid ones pass within the tolerance; all others are refused."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ackbridge.errors import SecretError
from tests.support.callbacks import (
    BODY,
    NOW,
    STRIPE,
    refusal,
    signature_by,
    stripe,
    verifier,
)


@pytest.mark.parametrize("secret", ["OLD", "NEW"])
def test_stripe_verifies_with_either_secret(secret: str) -> None:
    """During a rotation two secrets are valid at once."""
    verifier(STRIPE).verify(stripe(secret), BODY)


def test_one_of_several_stripe_signatures_is_enough() -> None:
    """During a rotation Stripe signs with both secrets."""
    good = stripe("NEW")["stripe-signature"]
    headers = {"stripe-signature": good.replace("v1=", f"v1={'0' * 64},v1=")}

    verifier(STRIPE).verify(headers, BODY)


def test_stripe_refuses_another_body_secret_or_time() -> None:
    """Changes after signing invalidate the signature."""
    strict = verifier(STRIPE)
    moved = {k: v.replace(f"t={NOW}", f"t={NOW + 1}") for k, v in stripe("NEW").items()}

    assert refusal(strict, stripe("NEW"), BODY + b" ") == "signature does not match"
    assert refusal(strict, stripe("GITHUB")) == "signature does not match"
    assert refusal(strict, moved) == "signature does not match"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "header Stripe-Signature is missing"),
        ("nonsense", "header Stripe-Signature is not of the form t=...,v1=..."),
        ("t=1,t=2,v1=ab", "header Stripe-Signature is not of the form t=...,v1=..."),
        (f"t={NOW}," + ",".join(["v1=ab"] * 17), "header Stripe-Signature is not of the form"),
        ("t=soon,v1=ab", "timestamp is not Unix time in seconds"),
        ("t=-1,v1=ab", "timestamp is not Unix time in seconds"),
        ("t=²,v1=ab", "timestamp is not Unix time in seconds"),
        (f"t={'9' * 400},v1=ab", "timestamp is not Unix time in seconds"),
        (f"t={NOW}000,v1=ab", "timestamp is in milliseconds, not seconds"),
        (f"t={NOW},v1=not-hex", "signature does not match"),
        (f"t={NOW},v1=", "signature does not match"),
    ],
)
def test_malformed_stripe_headers_are_refused(value: str, message: str) -> None:
    """The error gives a short reason."""
    assert refusal(verifier(STRIPE), {"stripe-signature": value}).startswith(message)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (NOW - 412, "timestamp is 412 s old, tolerance is 300 s"),
        (NOW + 301, "timestamp is 301 s in the future, tolerance is 300 s"),
    ],
)
def test_replays_are_refused_in_both_directions(at: int, message: str) -> None:
    """A timestamp out of tolerance is refused, with both durations."""
    assert message == refusal(verifier(STRIPE), stripe("NEW", at))


@pytest.mark.parametrize("at", [NOW - 300, NOW, NOW + 300])
def test_the_tolerance_is_inclusive(at: int) -> None:
    """A difference of exactly the tolerance is accepted."""
    verifier(STRIPE).verify(stripe("NEW", at), BODY)


def test_the_signature_is_checked_before_the_timestamp() -> None:
    """An old callback with a wrong signature is reported as a wrong signature."""
    assert refusal(verifier(STRIPE), stripe("GITHUB", 1)) == "signature does not match"


STANDARD = {"type": "hmac", "preset": "standard-webhooks", "secrets": ["env:STANDARD"]}
STANDARD_AT = 1_614_265_330
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD_HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(STANDARD_AT),
    "webhook-signature": "v1a,abc v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


def test_standard_webhooks_verifies_the_example_of_the_specification() -> None:
    """The published example is valid at its own time, by the injected clock."""
    verifier(STANDARD, STANDARD_AT).verify(STANDARD_HEADERS, STANDARD_BODY)


def test_standard_webhooks_has_older_header_names() -> None:
    """Svix, where the standard comes from, sends its own ones."""
    svix = {name.replace("webhook", "svix"): value for name, value in STANDARD_HEADERS.items()}
    strict = verifier(STANDARD, STANDARD_AT)

    strict.verify(svix, STANDARD_BODY)
    forged = {**svix, "webhook-signature": "v1,AAAA"}
    assert refusal(strict, forged, STANDARD_BODY) == "header webhook-id is missing"
    assert refusal(strict, {}, STANDARD_BODY) == "header webhook-signature is missing"


def test_an_id_cannot_reach_into_what_follows_it() -> None:
    """Separators divide what is signed: an id with one could be read as another id and time."""
    dotted = {**STANDARD_HEADERS, "webhook-id": "msg_1.1614265330"}
    strict = verifier(STANDARD, STANDARD_AT)
    assert refusal(strict, dotted, STANDARD_BODY) == "header webhook-id has a dot"

    spec = {"type": "hmac", "secrets": ["env:OLD"], "header": "S", "id_header": "I"}
    generic = verifier({**spec, "signed": "{id}:{body}"})
    plain, split = signature_by("OLD", b"a:b"), signature_by("OLD", b"a:b:c")
    generic.verify({"s": plain, "i": "a"}, b"b")
    assert refusal(generic, {"s": split, "i": "a:b"}, b"c") == "header I has the text that ends it"


def test_standard_webhooks_uses_the_configured_tolerance() -> None:
    """The tolerance is the integration's."""
    late = STANDARD_AT + 1000

    verifier({**STANDARD, "tolerance": "1h"}, late).verify(STANDARD_HEADERS, STANDARD_BODY)
    assert (
        refusal(verifier(STANDARD, late), STANDARD_HEADERS, STANDARD_BODY)
        == "timestamp is 1000 s old, tolerance is 300 s"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"webhook-id": "msg_other"}, "signature does not match"),
        ({"webhook-id": ""}, "header webhook-id is missing"),
        ({"webhook-timestamp": "x"}, "timestamp is not Unix time in seconds"),
        ({"webhook-signature": "v1"}, "signature does not match"),
        ({"webhook-signature": "v2,ab"}, "header webhook-signature is not of the form v1,..."),
    ],
)
def test_standard_webhooks_refuses_changes(change: dict[str, str], message: str) -> None:
    """Every header is covered by the signature or required."""
    strict = verifier(STANDARD, STANDARD_AT)

    assert message == refusal(strict, {**STANDARD_HEADERS, **change}, STANDARD_BODY)


def test_standard_webhooks_refuses_a_binary_body() -> None:
    """The scheme signs text; other bytes are refused."""
    strict = verifier(STANDARD, STANDARD_AT)

    assert refusal(strict, STANDARD_HEADERS, b"\xff") == "body is not UTF-8 text"


def test_an_invalid_standard_webhooks_secret_is_named() -> None:
    """An invalid Standard Webhooks secret is a configuration error."""
    wrong = verifier({**STANDARD, "secrets": ["env:NOT_STANDARD"]}, STANDARD_AT)

    with pytest.raises(SecretError, match="env:NOT_STANDARD: is not a Standard Webhooks secret"):
        wrong.verify(STANDARD_HEADERS, STANDARD_BODY)


def test_the_generic_form_verifies_the_example_of_github() -> None:
    """GitHub's documented example: a prefix, hexadecimal, the body alone."""
    github = verifier(
        {
            "type": "hmac",
            "header": "X-Hub-Signature-256",
            "prefix": "sha256=",
            "secrets": ["env:GITHUB"],
        }
    )
    signature = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"

    github.verify({"x-hub-signature-256": f"sha256={signature}"}, b"Hello, World!")
    assert (
        refusal(github, {"x-hub-signature-256": signature}, b"Hello, World!")
        == "signature in header X-Hub-Signature-256 does not start with 'sha256='"
    )


@pytest.mark.parametrize(
    "form", ["{},{}", "{}, {}", "{} {}", "{1},{0}", "v0=ff,{}", "kid=a;{}", "t=1, {}"]
)
def test_one_header_may_have_several_signatures(form: str) -> None:
    """Of several secrets, as PagerDuty sends them, or of several versions; one has to hold."""
    spec = {"type": "hmac", "header": "Signature", "prefix": "v1=", "secrets": ["env:NEW"]}
    right, wrong = (f"v1={signature_by(secret, BODY)}" for secret in ("NEW", "OLD"))

    verifier(spec).verify({"signature": form.format(right, wrong)}, BODY)
    assert "does not match" in refusal(
        verifier(spec), {"signature": form.format(wrong, wrong)}, BODY
    )


def test_only_some_signatures_are_compared() -> None:
    """Each costs a comparison."""
    spec = {"type": "hmac", "header": "Signature", "secrets": ["env:NEW"]}
    headers = {"signature": ",".join(["00"] * 17)}

    assert refusal(verifier(spec), headers, BODY) == "more than 16 signatures"


def test_the_generic_form_verifies_the_scheme_of_slack() -> None:
    """A literal version in the template, and a timestamp header that is signed."""
    slack = verifier(
        {
            "type": "hmac",
            "header": "X-Slack-Signature",
            "prefix": "v0=",
            "signed": "v0:{timestamp}:{body}",
            "timestamp_header": "X-Slack-Request-Timestamp",
            "secrets": ["env:SLACK"],
        }
    )
    signature = signature_by("SLACK", f"v0:{NOW}:".encode() + BODY)
    headers = {"x-slack-signature": f"v0={signature}", "x-slack-request-timestamp": str(NOW)}

    slack.verify(headers, BODY)
    assert (
        refusal(slack, {**headers, "x-slack-request-timestamp": str(NOW + 1)})
        == "signature does not match"
    )
    assert (
        refusal(slack, {"x-slack-signature": f"v0={signature}"})
        == "header X-Slack-Request-Timestamp is missing"
    )


TWITCH = {
    "type": "hmac",
    "header": "Signature",
    "prefix": "sha256=",
    "signed": "{id}{timestamp}{body}",
    "id_header": "Id",
    "timestamp_header": "Time",
    "secrets": ["env:NEW"],
}
AT = datetime.fromtimestamp(NOW, UTC)


@pytest.mark.parametrize(
    "form",
    [
        f"{NOW}000",
        f"{NOW}.25",
        f"{AT:%Y-%m-%dT%H:%M:%S}Z",
        f"{AT:%Y-%m-%dT%H:%M:%S}.123456789Z",
        f"{AT:%Y-%m-%d %H:%M:%S}",
        f"{AT + timedelta(hours=2):%Y-%m-%dT%H:%M:%S}.5+02:00",
    ],
)
def test_the_generic_form_reads_times_however_they_are_written(form: str) -> None:
    """Milliseconds, and ISO 8601 with and without a fraction and an offset; and it checks them."""
    signature = signature_by("NEW", f"m-1{form}".encode() + BODY)
    headers = {"signature": f"sha256={signature}", "id": "m-1", "time": form}
    verifier(TWITCH).verify(headers, BODY)
    old = form.replace(str(NOW), str(NOW - 400)) if str(NOW) in form else f"2001{form[4:]}"
    stale = signature_by("NEW", f"m-1{old}".encode() + BODY)
    headers = {"signature": f"sha256={stale}", "id": "m-1", "time": old}
    assert " s old, tolerance is 300 s" in refusal(verifier(TWITCH), headers)


@pytest.mark.parametrize("form", ["2026-13-01T00:00:00Z", "2026-01-01", "20260101", "1e9", "now"])
def test_a_timestamp_that_is_none_is_refused(form: str) -> None:
    """Whatever has signed it."""
    signature = signature_by("NEW", f"m-1{form}".encode() + BODY)
    headers = {"signature": f"sha256={signature}", "id": "m-1", "time": form}
    assert "timestamp is" in refusal(verifier(TWITCH), headers)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("form", ["plain", "unpadded", "url-safe"])
def test_the_generic_form_reads_base64(algorithm: str, form: str) -> None:
    """Base64 with any algorithm, in both alphabets, with padding or without."""
    generic = verifier(
        {
            "type": "hmac",
            "header": "Signature",
            "algorithm": algorithm,
            "encoding": "base64",
            "signed": "{id}|{body}",
            "id_header": "Message-Id",
            "secrets": ["env:NEW"],
        }
    )
    digest = bytes.fromhex(signature_by("NEW", b"m-1|" + BODY, algorithm))
    encode = base64.urlsafe_b64encode if form == "url-safe" else base64.b64encode
    signature = encode(digest).decode()

    generic.verify(
        {
            "signature": signature.rstrip("=") if form == "unpadded" else signature,
            "message-id": "m-1",
        },
        BODY,
    )


def test_an_unsigned_timestamp_is_checked_too() -> None:
    """A timestamp that is not signed detects late deliveries."""
    spec = {
        "type": "hmac",
        "header": "Signature",
        "timestamp_header": "Sent-At",
        "tolerance": "10s",
        "secrets": ["env:NEW"],
    }
    headers = {"signature": signature_by("NEW", BODY).upper(), "sent-at": str(NOW - 11)}

    assert refusal(verifier(spec), headers) == "timestamp is 11 s old, tolerance is 10 s"


@given(value=st.text(max_size=200), body=st.binary(max_size=50))
@pytest.mark.parametrize("name", ["stripe-signature", "webhook-signature", "signature"])
def test_any_header_is_refused_without_another_error(name: str, value: str, body: bytes) -> None:
    """Arbitrary input raises SignatureError and nothing else."""
    latin = value.encode("utf-8", "replace").decode("latin-1")
    generic = {"type": "hmac", "header": "Signature", "secrets": ["env:NEW"]}
    for spec in (STRIPE, STANDARD, generic, {**generic, "encoding": "base64"}):
        refusal(verifier(spec), {"webhook-id": latin, "webhook-timestamp": "1", name: latin}, body)


def test_one_of_several_signature_headers_is_enough() -> None:
    """DocuSign sends one header for each secret that is configured there."""
    names = ["X-Signature-1", "X-Signature-2"]
    several = verifier({"type": "hmac", "header": names, "secrets": ["env:NEW"]})
    right, wrong = signature_by("NEW", BODY), signature_by("OLD", BODY)

    several.verify({"x-signature-1": right}, BODY)
    several.verify({"x-signature-2": right}, BODY)
    several.verify({"x-signature-1": wrong, "x-signature-2": right}, BODY)
    assert refusal(several, {"x-signature-1": wrong}) == "signature does not match"
    assert refusal(several, {}) == "header X-Signature-1 is missing"
