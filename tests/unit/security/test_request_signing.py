"""Signatures of requests, checked by a server that reads them off the socket."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from fastapi import FastAPI, Request
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms
from pydantic import TypeAdapter

from ackbridge.contracts.wire import InvalidInputError
from ackbridge.errors import SecretError
from ackbridge.http.client import build_client, exchange
from ackbridge.security.outbound import build_auth
from ackbridge.security.secrets import Secrets
from ackbridge.security.specs import AuthSpec
from tests.support.serving import serve
from tests.unit.security.test_specs import AUTH, refusal

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SPECS: TypeAdapter[list[AuthSpec]] = TypeAdapter(list[AuthSpec])
BODY = b'{"amount": 5}'


class Seen:
    """A request as a server sees it."""

    def __init__(self, request: httpx.Request) -> None:
        self.method, self.url, self.headers = request.method, str(request.url), request.headers
        self.body = request.content


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, list[Seen]]]:
    """A server that keeps what it sees."""
    app = FastAPI()
    seen: list[Seen] = []

    @app.post("/{path:path}")
    async def keep(request: Request) -> None:
        url = f"http://{request.headers['host']}{request.scope['raw_path'].decode()}"
        query = request.scope["query_string"].decode()
        headers = [(k.decode(), v.decode()) for k, v in request.headers.raw]
        body = await request.body()
        whole = f"{url}?{query}" if query else url
        seen.append(Seen(httpx.Request("POST", whole, headers=headers, content=body)))

    with serve(app) as url:
        yield url, seen


async def send(server: tuple[str, list[Seen]], specs: list[dict[str, Any]], **environ: str) -> Seen:
    """Send a request with these authentications; returns what arrives."""
    url, seen = server
    auth = build_auth(SPECS.validate_python(specs), Secrets(environ, Path()), lambda: NOW)
    async with build_client() as client:
        await exchange(
            client,
            method="POST",
            url=f"{url}/a%2Fb?x=%20y",
            headers={"X-Note": "n"},
            content=BODY,
            auth=auth,
            timeout=timedelta(seconds=30),
            max_bytes=1000,
        )
    return seen[-1]


async def test_hmac_over_a_template(server: tuple[str, list[Seen]]) -> None:
    """What is signed is what arrives, byte by byte."""
    spec = {
        "type": "sign",
        "key": "env:K",
        "key_id": "me",
        "header": "X-Signature",
        "value": "key={key_id};v1={signature}",
        "signed": "{timestamp}\n{nonce}\n{method}\n{target}\n{header:x-note}\n"
        "{body_sha256}\n{body}",
        "timestamp_header": "X-Time",
        "timestamp_unit": "ms",
        "nonce_header": "X-Nonce",
    }
    found = await send(server, [spec], K="s3cret-key")

    time, nonce = found.headers["x-time"], found.headers["x-nonce"]
    digest = hashlib.sha256(BODY).hexdigest()
    signed = f"{time}\n{nonce}\nPOST\n/a%2Fb?x=%20y\nn\n{digest}\n{BODY.decode()}"
    expected = hmac.new(b"s3cret-key", signed.encode(), "sha256").hexdigest()
    assert found.headers["x-signature"] == f"key=me;v1={expected}"
    assert time == str(int(NOW.timestamp() * 1000))


@pytest.mark.parametrize(
    ("written", "key_encoding"),
    [("a2V5-_8=", "base64"), ("a2V5+/8=", "base64"), ("6b6579fbff", "hex")],
)
async def test_shared_keys_are_decoded(
    server: tuple[str, list[Seen]], written: str, key_encoding: str
) -> None:
    """And the signature can be in base64."""
    spec = {
        "type": "sign",
        "key": "env:K",
        "key_encoding": key_encoding,
        "header": "X-Sig",
        "signed": "{body}",
        "encoding": "base64",
        "algorithm": "sha512",
    }
    found = await send(server, [spec], K=written)

    expected = hmac.digest(b"key\xfb\xff", BODY, "sha512")
    assert base64.b64decode(found.headers["x-sig"]) == expected


def pem(key: Any) -> str:
    """A private key as a file has it."""
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


KEYS: dict[str, tuple[Any, Any]] = {
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), algorithms.ED25519),
    "ecdsa-p256-sha256": (ec.generate_private_key(ec.SECP256R1()), algorithms.ECDSA_P256_SHA256),
    "rsa-pss-sha512": (rsa.generate_private_key(65537, 2048), algorithms.RSA_PSS_SHA512),
}


class Keys(HTTPSignatureKeyResolver):
    """The keys of a verifier."""

    def __init__(self, key: Any) -> None:
        self.key = key

    def resolve_public_key(self, key_id: str) -> Any:
        """The one key."""
        return self.key


def verified(found: Seen, algorithm: Any, key: Any) -> Any:
    """What holds of a message signature, checked by the library's verifier."""
    verifier = HTTPMessageVerifier(signature_algorithm=algorithm, key_resolver=Keys(key))
    verifier.validate_created_and_expires = lambda *_args, **_options: None  # type: ignore[method-assign]  # its clock is the machine's
    (result,) = verifier.verify(found, max_age=timedelta(days=36500), body=found.body)
    return result


@pytest.mark.parametrize("algorithm", KEYS)
async def test_message_signatures_hold(server: tuple[str, list[Seen]], algorithm: str) -> None:
    """RFC 9421, with a digest of the body; and not for another body."""
    key, kind = KEYS[algorithm]
    spec = {
        "type": "sign",
        "scheme": "rfc9421",
        "key": "env:K",
        "key_id": "our-key",
        "algorithm": algorithm,
        "covered": ["@method", "@target-uri", "x-note"],
        "expires": "5m",
        "nonce": True,
        "tag": "acme",
    }
    found = await send(server, [spec], K=pem(key))

    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    result = verified(found, kind, public)
    assert result.parameters["keyid"] == "our-key"
    assert result.parameters["expires"] - result.parameters["created"] == 300
    assert '"content-digest"' in result.covered_components
    found.body = b'{"amount": 6}'
    with pytest.raises(Exception, match=r"(?i)digest"):
        verified(found, kind, public)


async def test_signatures_cover_other_authentication(server: tuple[str, list[Seen]]) -> None:
    """They are made last."""
    specs: list[dict[str, Any]] = [
        {
            "type": "sign",
            "scheme": "rfc9421",
            "key": "env:K",
            "key_id": "k",
            "covered": ["@method", "authorization"],
        },
        {"type": "bearer", "token": "env:T"},
    ]
    found = await send(server, specs, K="shared", T="the-token")

    assert verified(found, algorithms.HMAC_SHA256, b"shared").covered_components
    found.headers["authorization"] = "Bearer another"
    with pytest.raises(Exception, match=r"(?i)signature"):
        verified(found, algorithms.HMAC_SHA256, b"shared")


@pytest.mark.parametrize(
    ("fields", "key", "problem"),
    [
        ({"algorithm": "ed25519"}, "not a key", "env:K: is not a private key in PEM"),
        ({"key_encoding": "hex"}, "xyz", "env:K: is not in hex"),
        ({"covered": ["x-absent"]}, "shared", "x-absent"),
    ],
)
async def test_what_cannot_be_signed_is_not_sent(
    server: tuple[str, list[Seen]], fields: dict[str, Any], key: str, problem: str
) -> None:
    """The error names the reference or the header, not the key."""
    spec = {"type": "sign", "scheme": "rfc9421", "key": "env:K", "key_id": "k", **fields}
    with pytest.raises((SecretError, InvalidInputError), match=problem):
        await send(server, [spec], K=key)

    assert server[1] == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "needs header"),
        ({"header": "X", "signed": "{nothing}"}, "may use"),
        ({"header": "X", "signed": "{timestamp}"}, "timestamp_header is required"),
        ({"header": "X", "signed": "{signature}"}, "cannot contain"),
        ({"header": "X", "algorithm": "ed25519"}, "has no algorithm ed25519"),
        ({"header": "X", "covered": ["@method"]}, "does not use covered"),
        ({"scheme": "rfc9421"}, "needs key_id"),
        ({"scheme": "rfc9421", "key_id": "k", "header": "X"}, "does not use header"),
        ({"scheme": "rfc9421", "key_id": "k", "algorithm": "sha256"}, "has no algorithm sha256"),
    ],
)
def test_fields_that_do_not_fit(fields: dict[str, Any], problem: str) -> None:
    """Each scheme has its own."""
    assert problem in refusal(AUTH, {"type": "sign", "key": "env:K", **fields})
