"""Secrets are found in every form in which a provider may repeat them."""

from __future__ import annotations

import base64
import html
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from ackbridge.security.secrets import KnownSecrets, Secrets

SECRET = "pl/an+ted k\"y<&>'é=1"


def known(secret: str = SECRET, username: str = "us") -> KnownSecrets:
    """One secret, with a user name."""
    return KnownSecrets(Secrets({"S": secret}, Path()), [(username, "env:S")])


BASIC = f"us:{SECRET}".encode()
FORMS = [
    SECRET,
    f"Bearer {SECRET}",
    quote(SECRET),
    quote(SECRET, safe=""),
    quote_plus(SECRET),
    quote(SECRET, safe="").lower(),
    json.dumps(SECRET),
    json.dumps(SECRET).replace("/", "\\/"),
    html.escape(SECRET),
    SECRET.encode().hex(),
    SECRET.encode().hex().upper(),
    base64.b64encode(SECRET.encode()).decode(),
    base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
    base64.b64encode(BASIC).decode(),
    *(base64.b64encode(b"x" * n + BASIC + b"y" * m).decode() for n in range(3) for m in range(3)),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", [lambda s: {"a": [{"b": s}]}, lambda s: {s: 1}, lambda s: s])
def test_a_repeated_secret_is_removed_from_data(form: str, place: Any) -> None:
    """As a value, as a name, and within longer texts, and nothing of it is left."""
    cleaned = json.dumps(known().remove(place(f"you sent {form}, thanks")))

    assert "***" in cleaned
    assert "you sent" in cleaned
    assert "thanks" in cleaned
    assert form not in cleaned


def test_a_number_is_a_text_too() -> None:
    """A key of digits, repeated as a number."""
    assert known("9876543210").remove({"key": 9876543210, "n": 98765}) == {"key": "***", "n": 98765}


def test_data_without_secrets_stay_the_same() -> None:
    """The very same value, and short secrets replace no ordinary words."""
    data = {"mode": "test", "n": [1, 2.5, None, True]}

    assert known().remove(data) is data
    assert known("test").remove(data) is data


def test_a_binary_body_has_no_secrets() -> None:
    """Its bytes are cleaned before they become base64."""
    assert known("long-secret").remove_bytes(b"\0long-secret\xff") == b"\0***\xff"


def test_secrets_in_use_before_are_still_known() -> None:
    """An answer may repeat the secret of a request that was sent before it was rotated."""
    environ = {"S": "the-first-secret"}
    secrets = KnownSecrets(Secrets(environ, Path()), [("", "env:S")])
    secrets.forms()
    environ["S"] = "the-second-secret"

    assert secrets.remove("the-first-secret the-second-secret") == "*** ***"


def test_references_can_be_found_later() -> None:
    """A hook names its references only when it runs."""
    refs: set[str] = set()
    secrets = KnownSecrets(Secrets({"H": "hook-secret"}, Path()), [], found_later=refs)
    assert secrets.remove("hook-secret") == "hook-secret"

    refs.add("env:H")

    assert secrets.remove("hook-secret") == "***"


def test_large_data_take_no_time() -> None:
    """Four megabytes with 100,000 texts."""
    data = [{"id": f"item-{n}", "text": "some words of text"} for n in range(100_000)]
    started = time.perf_counter()

    known().remove(data)

    assert time.perf_counter() - started < 2
