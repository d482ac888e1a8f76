"""Errors of the token endpoint: the text gives the cause and contains no secrets."""

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
    ("answer", "message"),
    [
        (lambda: JSONResponse({"error": "invalid_client"}, 401), "answered invalid_client"),
        (
            lambda: JSONResponse({"error": SECRET, "error_description": SECRET}, 400),
            "answered an unknown error",
        ),
        (lambda: Response(SECRET, 503), "answered with status 503"),
        (lambda: Response(f"<html>{SECRET}", 200), "issued no token: ValueError"),
        (lambda: Response(SECRET, 302, {"location": "/api"}), "answered with status 302"),
        (lambda: JSONResponse({"token": SECRET}), "answered without a usable access_token"),
        (
            lambda: JSONResponse({"access_token": f"{SECRET}\nX: y"}),
            "answered without a usable access_token",
        ),
        (
            lambda: JSONResponse({"access_token": SECRET, "token_type": "mac"}),
            "answered with a token that is not a bearer token",
        ),
        (lambda: Response(bytes(100_000)), "issued no token: ResponseTooLargeError"),
    ],
)
async def test_token_errors_contain_no_secrets(
    answer: Callable[[], Response], message: str
) -> None:
    """The error names the endpoint and the cause, quotes nothing, and no request is sent."""
    issuer = Issuer(answer=answer)
    async with calling(issuer) as caller:
        with pytest.raises(TokenError) as refused:
            await caller.call()

    assert f"token endpoint {caller.url}/token {message}" == str(refused.value)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert issuer.bodies == []


async def test_a_failed_renewal_is_not_cached() -> None:
    """The next request fetches a token again."""
    issuer = Issuer(answer=lambda: Response(status_code=500))
    async with calling(issuer) as caller:
        with pytest.raises(TokenError):
            await caller.call()
        issuer.answer = None
        reply = await caller.call()

    assert reply.status == 200


async def test_a_pause_of_the_token_endpoint_is_kept() -> None:
    """After a Retry-After no token is asked for until then, by any request."""
    pause = {"retry-after": "30"}
    issuer = Issuer(answer=lambda: JSONResponse({}, 429, pause))
    async with calling(issuer) as caller:
        with pytest.raises(TokenError) as first:
            await caller.call()
        issuer.answer = None
        caller.pass_time(29)
        with pytest.raises(TokenError) as second:
            await caller.call()
        asked = len(issuer.forms)
        caller.pass_time(1)
        reply = await caller.call()

    waits = (first.value.retry_after, second.value.retry_after)
    assert waits == (timedelta(seconds=30), timedelta(seconds=1))
    assert (asked, reply.status) == (1, 200)


async def test_a_silent_token_endpoint_times_out() -> None:
    """Token requests have their own timeout."""
    issuer = Issuer(hold=True)
    async with calling(issuer, token_timeout=timedelta(seconds=0.2)) as caller:
        with pytest.raises(TokenError, match=r"did not answer|issued no token: ReadTimeout"):
            await caller.call()
        issuer.hold = False


async def test_a_missing_secret_stops_the_request() -> None:
    """An unresolved reference is named, and nothing is sent anywhere."""
    issuer = Issuer()
    async with calling(issuer, environ={}) as caller:
        with pytest.raises(SecretError, match="env:SECRET: is not set"):
            await caller.call()

    assert (issuer.forms, issuer.bodies) == ([], [])
