"""Authentication of HTTP clients: tokens over a real JWKS endpoint, API keys, and roles."""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from ackbridge.contracts.identity import AuthSettings, Identity, IdentitySource, Role
from ackbridge.errors import ConfigurationError
from ackbridge.security.http_auth import HttpAuth, new_api_key, open_http_auth, write_api_keys
from tests.support.serving import serve

ISSUER, AUDIENCE = "https://login.example.com/", "ackbridge"


@dataclass
class Issuer:
    """Publishes `keys`, and counts how often they are fetched."""

    keys: list[Any]
    status: int = 200
    fetched: int = 0
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/jwks")
        def jwks() -> Any:
            self.fetched += 1
            return KeySet(self.keys).as_dict()

        return app

    def token(self, key: Any = None, algorithm: str = "ES256", **changes: Any) -> str:
        key = key or self.keys[0]
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "anna@example.com",
            "roles": ["steer"],
            "exp": int(self.now.timestamp()) + 60,
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        header = {"alg": algorithm, "kid": key.kid}
        return jwt.encode(header, kept, key, algorithms=[algorithm])


def signed_with_public_key(claims: str, public_key: bytes) -> str:
    """A token whose HMAC has the issuer's public key as its secret."""
    text = f"{header(alg='HS256', kid='one')}.{claims}"
    return f"{text}.{encode(hmac.digest(public_key, text.encode(), 'sha256'))}"


def header(**fields: str) -> str:
    return encode(json.dumps(fields).encode())


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


@pytest.fixture
def issuer() -> Issuer:
    return Issuer([ECKey.generate_key("P-256", {"kid": "one"})])


@pytest.fixture
def jwks(issuer: Issuer) -> Iterator[str]:
    with serve(issuer.app()) as url:
        yield f"{url}/jwks"


@asynccontextmanager
async def protected(settings: AuthSettings, issuer: Issuer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a route that needs the role `steer`."""
    auth = open_http_auth(settings, lambda: issuer.now)
    assert auth is not None
    app = FastAPI()

    @app.get("/steer")
    async def steer(who: Identity = Depends(auth.require(Role.STEER))) -> Any:  # noqa: B008 -- FastAPI's form, where a local name is meant
        return who

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client
    await auth.aclose()


async def status(client: httpx.AsyncClient, token: str) -> int:
    answer = await client.get(
        "/steer", headers=[(b"Authorization", f"Bearer {token}".encode("latin-1"))]
    )
    assert token not in answer.text
    return answer.status_code


def with_tokens(jwks: str, **changes: Any) -> AuthSettings:
    return AuthSettings(issuer=ISSUER, audience=AUDIENCE, jwks=jwks, **changes)


async def test_a_token_names_the_actor(issuer: Issuer, jwks: str) -> None:
    """The claims give the name and the roles; the keys are fetched once."""
    async with protected(with_tokens(jwks), issuer) as client:
        for _ in range(3):
            answer = await client.get(
                "/steer", headers={"Authorization": f"Bearer {issuer.token()}"}
            )
            assert answer.status_code == httpx.codes.OK
    assert answer.json() == {
        "name": "anna@example.com",
        "source": IdentitySource.TOKEN,
        "roles": ["steer"],
    }
    assert issuer.fetched == 1


async def test_forged_tokens_are_refused(issuer: Issuer, jwks: str) -> None:
    """Whatever is wrong with them: 401, and never a 5xx."""
    stranger = ECKey.generate_key("P-256", {"kid": "one"})
    now = int(issuer.now.timestamp())
    good = issuer.token()
    head, claims, signature = good.split(".")
    forgeries = [
        issuer.token(stranger),
        signed_with_public_key(claims, issuer.keys[0].as_pem(private=False)),
        issuer.token(iss="https://elsewhere.example.com/"),
        issuer.token(iss=None),
        issuer.token(aud="another"),
        issuer.token(aud=None),
        issuer.token(exp=now - 60),
        issuer.token(exp=None),
        issuer.token(exp="tomorrow"),
        issuer.token(nbf=now + 600),
        issuer.token(sub=None),
        issuer.token(sub={"name": "anna"}),
        issuer.token(sub="a" * 1000),
        f"{head}.{claims}.",
        f"{head}.{claims}",
        f"{head}..{signature}",
        f"{header(alg='none')}.{claims}.",
        "not-a-token",
        "a" * 100_000,
        "..",
        "\u00e9.\u00e9.\u00e9",
        "abk_\u00e9_\u00e9",
    ]
    async with protected(with_tokens(jwks), issuer) as client:
        assert await status(client, good) == httpx.codes.OK
        for forged in forgeries:
            assert await status(client, forged) == httpx.codes.UNAUTHORIZED, forged[:80]
        for headers in ({}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}):
            answer = await client.get("/steer", headers=headers)
            assert answer.status_code == httpx.codes.UNAUTHORIZED
            assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("claim", "settings", "expected"),
    [
        ({"roles": ["steer"]}, {}, 200),
        ({"roles": ["read", "settle"]}, {}, 403),
        ({"roles": ["steer:stripe", "steer:", "start"]}, {}, 403),
        ({"roles": []}, {}, 403),
        ({"roles": None}, {}, 403),
        ({"roles": [{"steer": 1}, 7]}, {}, 403),
        ({"scope": "openid steer"}, {"roles_claim": "scope"}, 200),
        ({"access": {"roles": ["steer"]}}, {"roles_claim": "access.roles"}, 200),
        ({"access": "steer"}, {"roles_claim": "access.roles"}, 403),
        ({"roles": ["ackbridge.steer"]}, {"role_prefix": "ackbridge."}, 200),
        ({"roles": ["steer"]}, {"role_prefix": "ackbridge."}, 403),
    ],
)
async def test_roles(
    issuer: Issuer, jwks: str, claim: dict[str, Any], settings: dict[str, str], expected: int
) -> None:
    """Who lacks the role gets 403, which names it."""
    async with protected(with_tokens(jwks, **settings), issuer) as client:
        assert await status(client, issuer.token(**{"roles": None, **claim})) == expected


async def test_refused_requests_are_told(issuer: Issuer, jwks: str) -> None:
    """With the sender's address, so that they can be counted; never with the credential."""
    told: list[tuple[str, str, str]] = []
    auth = HttpAuth(with_tokens(jwks), lambda: issuer.now, lambda *refused: told.append(refused))
    app = FastAPI()
    app.get("/steer", dependencies=[Depends(auth.require(Role.STEER))])(lambda: None)
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        await status(client, issuer.token(roles=["read"]))
        await status(client, "not-a-token")
        await status(client, issuer.token())
    await auth.aclose()
    assert [(source, what) for source, what, _ in told] == [
        ("192.0.2.1", "forbidden"),
        ("192.0.2.1", "unauthenticated"),
    ]
    assert "not-a-token" not in repr(told)


async def test_keys_rotate(issuer: Issuer, jwks: str) -> None:
    """A new key is fetched when a token names it, at most every 30 s; a removed one ends."""
    async with protected(with_tokens(jwks), issuer) as client:
        old = issuer.token()
        assert await status(client, old) == httpx.codes.OK
        issuer.keys = [RSAKey.generate_key(2048, {"kid": "two"})]
        new = issuer.token(algorithm="RS256", exp=int(issuer.now.timestamp()) + 3600)
        assert await status(client, new) == httpx.codes.UNAUTHORIZED
        assert issuer.fetched == 1
        issuer.now += timedelta(seconds=31)
        assert await status(client, new) == httpx.codes.OK
        assert await status(client, old) == httpx.codes.UNAUTHORIZED
        assert issuer.fetched == 2


async def test_an_issuer_that_is_down(issuer: Issuer) -> None:
    """503 before the first keys: the client may come again."""
    settings = with_tokens("http://127.0.0.1:1/jwks")
    async with protected(settings, issuer) as client:
        started = time.monotonic()
        assert await status(client, issuer.token()) == httpx.codes.SERVICE_UNAVAILABLE
        assert time.monotonic() - started < 5


async def test_keys_in_a_file(issuer: Issuer, tmp_path: Path) -> None:
    """Without a network."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(KeySet(issuer.keys).as_dict()))
    async with protected(with_tokens(str(path)), issuer) as client:
        assert await status(client, issuer.token()) == httpx.codes.OK


async def test_api_keys(issuer: Issuer, tmp_path: Path) -> None:
    """They are hashed in the file, have roles, expire, and can be removed at any time."""
    path = tmp_path / "keys.json"
    expires = issuer.now + timedelta(days=1)
    key, entry = new_api_key("ci", "the build", frozenset({Role.STEER}), expires)
    reader, reading = new_api_key("ro", "a dashboard", frozenset({Role.READ}), expires)
    write_api_keys(path, (entry, reading))
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    async with protected(AuthSettings(api_keys=path), issuer) as client:
        assert await status(client, key) == httpx.codes.OK
        assert await status(client, reader) == httpx.codes.FORBIDDEN
        for wrong in (key[:-1], f"{key}x", "abk_ci_", "abk_ci", "abk__x", "abk_no_" + key[7:]):
            assert await status(client, wrong) == httpx.codes.UNAUTHORIZED
        assert await status(client, issuer.token()) == httpx.codes.UNAUTHORIZED
        path.write_text("[half")
        assert await status(client, key) == httpx.codes.OK
        write_api_keys(path, (reading,))
        assert await status(client, key) == httpx.codes.UNAUTHORIZED
        write_api_keys(path, (entry,))
        issuer.now += timedelta(days=2)
        assert await status(client, key) == httpx.codes.UNAUTHORIZED


def test_nothing_configured(tmp_path: Path) -> None:
    """Protected routes are off; a wrong setting is refused at start."""
    assert open_http_auth(AuthSettings(), lambda: datetime.now(UTC)) is None
    with pytest.raises(ConfigurationError, match="https"):
        HttpAuth(with_tokens("http://login.example.com/jwks"), lambda: datetime.now(UTC))
    with pytest.raises(ConfigurationError, match="No such file"):
        HttpAuth(AuthSettings(api_keys=tmp_path / "none"), lambda: datetime.now(UTC))
    with pytest.raises(ValueError, match="set together"):
        AuthSettings(issuer=ISSUER)
