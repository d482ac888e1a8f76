"""A token endpoint that gives no token: the error says why, and says no secret."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import timedelta

import pytest
from fastapi import Response
from fastapi.responses import JSONResponse

from ackbridge.errors import SecretError
from ackbridge.security.oauth2 import TokenError
from tests.support.token_issuer import SECRET, Issuer, calling


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda: JSONResponse({"error": "invalid_client"}, 401), "answered invalid_client"),
        (
            lambda: JSONResponse({"error": SECRET, "error_description": SECRET}, 400),
            "answered an error we do not know",
        ),
        (lambda: Response(SECRET, 503), "answered with status 503"),
        (lambda: Response(f"<html>{SECRET}", 200), "gave no token: ValueError"),
        (lambda: Response(SECRET, 302, {"location": "/api"}), "answered with status 302"),
        (lambda: JSONResponse({"token": SECRET}), "answered without a usable access_token"),
        (
            lambda: JSONResponse({"access_token": f"{SECRET}\n"}),
            "answered without a usable access_token",
        ),
        (
            lambda: JSONResponse({"access_token": SECRET, "token_type": "mac"}),
            "answered with a token that is not a bearer token",
        ),
        (
            lambda: JSONResponse({"access_token": SECRET, "expires_in": "soon"}),
            "gave no token: ValueError",
        ),
        (lambda: Response(bytes(100_000)), "gave no token: ResponseTooLargeError"),
    ],
)
async def test_trouble_at_the_token_endpoint_is_named_without_secrets(
    answer: Callable[[], Response], said: str
) -> None:
    """The error names the endpoint and what it did, and quotes nothing; nothing else is sent."""
    issuer = Issuer(answer=answer)
    async with calling(issuer) as caller:
        with pytest.raises(TokenError) as refused:
            await caller.call()

    assert f"token endpoint {caller.url}/token {said}" == str(refused.value)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert issuer.bodies == []


async def test_a_failed_renewal_is_not_remembered() -> None:
    """The next request asks again."""
    issuer = Issuer(answer=lambda: Response(status_code=500))
    async with calling(issuer) as caller:
        with pytest.raises(TokenError):
            await caller.call()
        issuer.answer = None
        reply = await caller.call()

    assert reply.status == 200


async def test_a_silent_token_endpoint_is_given_up() -> None:
    """Token requests have a time limit of their own."""
    issuer = Issuer(hold=True)
    async with calling(issuer, token_timeout=timedelta(seconds=0.2)) as caller:
        with pytest.raises(TokenError, match=r"did not answer|gave no token: ReadTimeout"):
            await caller.call()
        issuer.hold = False


async def test_a_missing_secret_stops_the_request() -> None:
    """An unresolved reference is named, and nothing is sent anywhere."""
    issuer = Issuer()
    async with calling(issuer, environ={}) as caller:
        with pytest.raises(SecretError, match="env:SECRET: is not set"):
            await caller.call()

    assert (issuer.forms, issuer.bodies) == ([], [])
