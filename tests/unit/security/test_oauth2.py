"""OAuth 2 client credentials against a real token endpoint."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import Response
from fastapi.responses import JSONResponse
from joserfc import jwk, jwt
from pydantic import ValidationError

from ackbridge.errors import SecretError
from ackbridge.security.oauth2 import ClientCredentials, TokenError
from ackbridge.security.outbound import build_auth
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import OAuth2Auth
from tests.support.token_issuer import SECRET, START, Issuer, calling

MEGABYTE = 1024 * 1024
TWICE_COMPRESSED = gzip.compress(gzip.compress(bytes(16 * MEGABYTE)))


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """How many bytes the block had allocated at most, once it has ended."""
    peak = 0
    tracemalloc.start()
    try:
        yield lambda: peak
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


async def test_a_token_is_fetched_once() -> None:
    """The first request fetches a token and the following ones use it."""
    issuer = Issuer()
    async with calling(issuer, scope="orders", audience="https://api") as caller:
        replies = [await caller.call() for _ in range(3)]

    assert [reply.body for reply in replies] == [b"token-1"] * 3
    basic = base64.b64encode(f"shop:{SECRET}".encode()).decode()
    assert [f"Basic {basic}"] == issuer.credentials
    expected = {"grant_type": "client_credentials", "scope": "orders", "audience": "https://api"}
    assert [expected] == issuer.forms


async def test_credentials_can_be_posted() -> None:
    """With client_secret_post they are in the form, and not in a header."""
    issuer = Issuer()
    async with calling(issuer, auth_method="client_secret_post") as caller:
        await caller.call()

    expected = {
        "grant_type": "client_credentials",
        "client_id": "shop",
        "client_secret": SECRET,
    }
    assert ([expected], [None]) == (issuer.forms, issuer.credentials)


async def test_many_requests_share_one_token_request() -> None:
    """However many requests start at once, one token request is in flight."""
    issuer = Issuer()
    async with calling(issuer) as caller:
        replies = await asyncio.gather(*(caller.call() for _ in range(20)))

    assert {200} == {reply.status for reply in replies}
    assert issuer.tokens == ["token-1"]


async def test_a_token_is_renewed_before_it_expires() -> None:
    """It is used until `leeway` before its expiry, and no longer."""
    issuer = Issuer(life=3600)
    async with calling(issuer, leeway="60s") as caller:
        await caller.call()
        caller.pass_time(3539)
        before = await caller.call()
        caller.pass_time(1)
        after = await caller.call()

    assert (before.body, after.body) == (b"token-1", b"token-2")


async def test_a_short_lived_token_is_used_for_half_its_lifetime() -> None:
    """A leeway longer than the token's lifetime does not fetch a token for every request."""
    issuer = Issuer(life="30")
    async with calling(issuer, leeway="60s") as caller:
        await caller.call()
        caller.pass_time(14)
        await caller.call()
        caller.pass_time(1)
        await caller.call()

    assert issuer.tokens == ["token-1", "token-2"]


async def test_a_token_without_expiry_is_used_until_it_is_refused() -> None:
    """Without `expires_in`, a token is renewed only after a 401."""
    issuer = Issuer(life=None)
    async with calling(issuer) as caller:
        await caller.call()
        caller.pass_time(10**7)
        await caller.call()

    assert issuer.tokens == ["token-1"]


@pytest.mark.parametrize("life", ["", "soon", {}, True, float("nan")])
async def test_a_lifetime_that_is_no_number_is_unknown(life: object) -> None:
    """The token is used until it is refused."""
    issuer = Issuer(
        answer=lambda: Response(json.dumps({"access_token": "t", "expires_in": life})), tokens=["t"]
    )
    async with calling(issuer) as caller:
        await caller.call()
        caller.pass_time(10**7)
        await caller.call()

    assert len(issuer.forms) == 1


@pytest.mark.parametrize(("life", "until"), [("3599.5", 3539), (1e400, 31_535_939), ("-5", 0)])
async def test_any_number_is_a_lifetime(life: object, until: int) -> None:
    """Fractions, endless ones, and those that are over."""
    issuer = Issuer(
        answer=lambda: Response(json.dumps({"access_token": "t", "expires_in": life})), tokens=["t"]
    )
    async with calling(issuer, leeway="60s") as caller:
        await caller.call()
        caller.pass_time(until)
        await caller.call()
        before = len(issuer.forms)
        caller.pass_time(2)
        await caller.call()

    assert (before, len(issuer.forms)) == ((1, 2) if until else (2, 3))


@pytest.mark.parametrize("kind", ["", "BearerToken", "bearer ", None, "JWT", 7])
async def test_other_names_of_bearer_tokens_are_accepted(kind: object) -> None:
    """Only the types that need a proof with each request are refused."""
    issuer = Issuer(
        answer=lambda: JSONResponse({"access_token": "t", "token_type": kind}), tokens=["t"]
    )
    async with calling(issuer) as caller:
        reply = await caller.call()

    assert (reply.status, len(issuer.forms)) == (200, 1)


async def test_a_token_answer_may_have_another_charset() -> None:
    """What its headers declare counts where it is not UTF-8."""
    body = '{"access_token": "t", "scope": "é"}'.encode("latin-1")
    media = "application/json; charset=iso-8859-1"
    issuer = Issuer(answer=lambda: Response(body, media_type=media), tokens=["t"])
    async with calling(issuer) as caller:
        reply = await caller.call()

    assert (reply.status, len(issuer.forms)) == (200, 1)


@pytest.mark.parametrize("media", ["application/x-www-form-urlencoded", "text/plain"])
async def test_a_token_answer_may_be_a_form(media: str) -> None:
    """Whatever it is declared to be."""
    body = "access_token=t&expires_in=60"
    issuer = Issuer(answer=lambda: Response(body, media_type=media), tokens=["t"])
    async with calling(issuer) as caller:
        assert (await caller.call()).status == 200


@pytest.mark.parametrize("error", [None, "", False, 0])
async def test_an_error_that_is_none_is_no_error(error: object) -> None:
    """Some servers have all fields in every answer; and the value may end with a line break."""
    answer = {"access_token": "t\n", "error": error, "error_description": error}
    issuer = Issuer(answer=lambda: JSONResponse(answer), tokens=["t"])
    async with calling(issuer) as caller:
        assert (await caller.call()).status == 200


async def test_a_refused_token_is_replaced_once() -> None:
    """After a 401 the whole request is sent again with a new token."""
    issuer = Issuer()
    async with calling(issuer) as caller:
        await caller.call()
        issuer.tokens.append("revoked-the-first-one")
        reply = await caller.call()

    assert (reply.status, reply.body) == (200, b"token-3")
    assert issuer.bodies == [b"order"] * 3


async def test_a_second_401_is_returned() -> None:
    """A request is repeated once; a second 401 is the response."""
    issuer = Issuer(accepts_nothing=True)
    async with calling(issuer) as caller:
        reply = await caller.call()

    assert reply.status == 401
    assert (len(issuer.bodies), len(issuer.tokens)) == (2, 2)


async def test_concurrent_401s_renew_the_token_once() -> None:
    """Many 401 responses at once lead to one new token."""
    issuer = Issuer()
    async with calling(issuer) as caller:
        await caller.call()
        issuer.tokens.append("revoked-the-first-one")
        replies = await asyncio.gather(*(caller.call() for _ in range(10)))

    assert {200} == {reply.status for reply in replies}
    assert issuer.tokens == ["token-1", "revoked-the-first-one", "token-3"]


@pytest.mark.parametrize("coding", ["identity", "gzip", "gzip, gzip"])
async def test_the_body_of_a_401_is_not_decoded(coding: str) -> None:
    """At most some kilobytes of it are received, whatever they would expand to."""
    refusal = TWICE_COMPRESSED if coding == "gzip, gzip" else bytes(2 * 1024 * 1024)
    issuer = Issuer(refusal=refusal, refusal_coding=coding)
    async with calling(issuer) as caller:
        await caller.call()
        issuer.tokens.append("revoked-the-first-one")
        with peak_memory() as peak:
            reply = await caller.call()

    assert (reply.status, reply.body) == (200, b"token-3")
    assert peak() < 8 * MEGABYTE


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "br"])
async def test_the_answer_of_a_token_endpoint_is_bounded(coding: str) -> None:
    """Also after decoding, of which there is one at most."""
    headers = {"content-encoding": coding}
    body = TWICE_COMPRESSED if coding == "gzip, gzip" else gzip.compress(bytes(MEGABYTE))
    issuer = Issuer(answer=lambda: Response(body, headers=headers))
    async with calling(issuer) as caller:
        with peak_memory() as peak, pytest.raises(TokenError, match="issued no token"):
            await caller.call()

    assert peak() < 8 * MEGABYTE


async def test_a_compressed_token_is_read() -> None:
    """Although compression was not asked for."""
    token = gzip.compress(json.dumps({"access_token": "t"}).encode())
    issuer = Issuer(answer=lambda: Response(token, headers={"content-encoding": "gzip"}))
    issuer.tokens = ["t"]
    async with calling(issuer) as caller:
        assert (await caller.call()).status == 200


async def test_a_cancelled_request_does_not_cancel_the_token_request() -> None:
    """The token request continues for others when the request that started it times out."""
    issuer = Issuer(hold=True)
    async with calling(issuer) as caller:
        with pytest.raises(TimeoutError):
            await caller.call(timeout=0.2)
        waiting = asyncio.create_task(caller.call())
        issuer.hold = False
        reply = await waiting

    assert reply.status == 200
    assert len(issuer.forms) == 1


async def test_a_rotated_secret_is_used_for_the_next_token() -> None:
    """A new client secret is used without a restart."""
    issuer = Issuer()
    environ = {"SECRET": "old"}
    async with calling(issuer, environ=environ, auth_method="client_secret_post") as caller:
        await caller.call()
        environ["SECRET"] = "new"
        caller.pass_time(3600)
        await caller.call()

    assert [form["client_secret"] for form in issuer.forms] == ["old", "new"]


async def test_a_given_transport_is_used_and_left_open() -> None:
    """Token requests can go through another transport, which outlives them."""
    issuer = Issuer()
    async with httpx.AsyncHTTPTransport() as transport, calling(issuer) as caller:
        spec = OAuth2Auth.model_validate(
            {
                "type": "oauth2",
                "token_url": f"{caller.url}/token",
                "client_id": "env:ID",
                "client_secret": "env:SECRET",
            }
        )
        secrets = Secrets({"ID": "shop", "SECRET": SECRET}, Path())
        auth = build_auth((spec,), secrets, lambda: START, transport)
        assert auth is not None
        caller.auth = auth
        first = await caller.call()
        issuer.tokens.append("revoked-the-first-one")
        second = await caller.call()

    assert (first.body, second.body) == (b"token-1", b"token-3")


def test_a_synchronous_client_is_refused() -> None:
    """Only asynchronous clients can share a token."""
    spec = OAuth2Auth.model_validate(
        {
            "type": "oauth2",
            "token_url": "http://127.0.0.1:1/token",
            "client_id": "c",
            "client_secret": "env:SECRET",
        }
    )
    auth = ClientCredentials(spec, Secrets({}, Path()), lambda: START)

    with httpx.Client(auth=auth) as client, pytest.raises(RuntimeError, match="asynchronous"):
        client.get("http://127.0.0.1:1/")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_client_can_prove_itself_by_a_key(algorithm: str) -> None:
    """By a short-lived token that it signs (RFC 7523); no secret is sent."""
    is_rsa = algorithm == "RS256"
    key = jwk.generate_key("RSA", 2048) if is_rsa else jwk.generate_key("EC", "P-256")
    issuer = Issuer()
    async with calling(
        issuer,
        environ={"KEY": key.as_pem(private=True).decode()},
        client_secret=None,
        private_key="env:KEY",
        key_id="k-1",
        auth_method="private_key_jwt",
        assertion_algorithm=algorithm,
        scope="orders",
    ) as caller:
        assert (await caller.call()).body == b"token-1"
        url = caller.url

    (form,) = issuer.forms
    token = jwt.decode(form.pop("client_assertion"), key, [algorithm])
    assert form == {
        "grant_type": "client_credentials",
        "scope": "orders",
        "client_id": "shop",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    assert issuer.credentials == [None]
    assert token.header["kid"] == "k-1"
    claims = token.claims
    assert (claims["iss"], claims["sub"]) == ("shop", "shop")
    assert claims["aud"] == f"{url}/token?tenant=x"
    assert (claims["iat"], claims["exp"] - claims["iat"]) == (int(START.timestamp()), 60)


async def test_a_key_that_does_not_fit_is_named() -> None:
    """And not shown; nothing is sent."""
    issuer = Issuer()
    async with calling(
        issuer,
        environ={"KEY": "not a key"},
        client_secret=None,
        private_key="env:KEY",
        auth_method="private_key_jwt",
    ) as caller:
        with pytest.raises(SecretError, match="env:KEY: is not a private key in PEM for RS256"):
            await caller.call()

    assert issuer.forms == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "needs client_secret"),
        ({"auth_method": "private_key_jwt"}, "needs private_key"),
        ({"private_key": "env:K", "client_secret": "env:S"}, "does not use private_key"),
    ],
)
def test_what_an_auth_method_needs(fields: dict[str, str], problem: str) -> None:
    """Either a secret or a key."""
    with pytest.raises(ValidationError, match=problem):
        OAuth2Auth.model_validate(
            {"type": "oauth2", "token_url": "https://id.example/t", "client_id": "a", **fields}
        )
