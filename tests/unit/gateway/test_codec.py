"""The codec endpoint, as the Temporal UI uses it: authenticated, bounded, and for known origins."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from temporalio.api.common.v1 import Payloads

from ackbridge.clock import utc_now
from ackbridge.contracts.identity import AuthSettings, Role
from ackbridge.gateway import codec as codec_module
from ackbridge.gateway.codec import build_codec_app
from ackbridge.security.http_auth import HttpAuth, new_api_key, write_api_keys
from ackbridge.temporal.data_converter import load_data_converter
from ackbridge.workarounds.temporal_sdk import DATA_CONVERTER
from tests.support.serving import serve

UI = "https://temporal.example"
ENVIRON = {
    "ACKBRIDGE_ENCRYPTION_KEYS": "new=env:KEY",
    "KEY": base64.b64encode(bytes(32)).decode(),
}
ENCRYPTING = load_data_converter(ENVIRON)


class Endpoint:
    """Requests to a served endpoint, with a key that has one role."""

    def __init__(self, url: str, keys: dict[Role, str]) -> None:
        self._url = url
        self._keys = keys

    def post(self, path: str, role: Role | None, content: Any, **headers: str) -> httpx.Response:
        if role is not None:
            headers["Authorization"] = f"Bearer {self._keys[role]}"
        given = {"content": content} if isinstance(content, str | bytes) else {"json": content}
        return httpx.post(f"{self._url}{path}", headers=headers, **given)

    def preflight(self, origin: str) -> httpx.Response:
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-namespace",
        }
        return httpx.options(f"{self._url}/decode", headers=headers)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The endpoint, over sockets."""
    path: Path = tmp_path_factory.mktemp("codec") / "keys.json"
    made = {
        role: new_api_key(role, role, frozenset({role}), utc_now() + timedelta(days=1))
        for role in (Role.READ, Role.STEER)
    }
    write_api_keys(path, tuple(entry for _, entry in made.values()))
    assert ENCRYPTING.payload_codec is not None
    auth = HttpAuth(AuthSettings(api_keys=path), utc_now)
    codec = ENCRYPTING.payload_codec
    app = build_codec_app(codec, auth, [UI], sensitive=["payload.pin", "response"])
    with serve(app) as url:
        yield Endpoint(url, {role: key for role, (key, _) in made.items()})


async def _document(*values: Any) -> dict[str, Any]:
    payloads = Payloads(payloads=await DATA_CONVERTER.encode(values))
    return json_format.MessageToDict(payloads)


async def test_round_trip(endpoint: Endpoint) -> None:
    """What it encodes is encrypted, and decodes here and there; plain payloads pass."""
    document = await _document({"card": "4242"}, None)
    encoded = endpoint.post("/encode", Role.STEER, document)
    assert encoded.status_code == httpx.codes.OK
    assert encoded.headers["cache-control"] == "no-store"
    sealed = json_format.Parse(encoded.text, Payloads())
    assert await ENCRYPTING.decode(sealed.payloads) == [{"card": "4242"}, None]
    for content in (encoded.content, document):
        decoded = endpoint.post("/decode", Role.READ, content)
        assert decoded.json() == document


async def test_sensitive_fields_are_shown_to_callers_only(endpoint: Endpoint) -> None:
    """Who may start calls gets what it sent; who may only read does not."""
    call = {"payload": {"pin": "1234", "name": "Ada"}, "outcome": {"response": [1], "cycles": 1}}
    document = await _document(call, {"data": {"owner": "Ada"}}, "text")
    encoded = endpoint.post("/encode", Role.STEER, document).content
    assert endpoint.post("/decode", Role.STEER, encoded).json() == document
    shown = json_format.Parse(endpoint.post("/decode", Role.READ, encoded).text, Payloads())
    assert await DATA_CONVERTER.decode(shown.payloads) == [
        {"payload": {"pin": "***", "name": "Ada"}, "outcome": {"response": "***", "cycles": 1}},
        {"data": "***"},
        "text",
    ]


async def test_who_may(endpoint: Endpoint) -> None:
    """Nobody without a key; encoding, with which calls are started, needs the role for it."""
    document = await _document({})
    assert endpoint.post("/decode", None, document).status_code == httpx.codes.UNAUTHORIZED
    assert endpoint.post("/encode", None, document).status_code == httpx.codes.UNAUTHORIZED
    assert endpoint.post("/encode", Role.READ, document).status_code == httpx.codes.FORBIDDEN


async def test_browsers(endpoint: Endpoint) -> None:
    """The pages of known origins only, which send the namespace and a token along."""
    allowed = endpoint.preflight(UI)
    assert allowed.status_code == httpx.codes.OK
    assert allowed.headers["access-control-allow-origin"] == UI
    assert "access-control-allow-credentials" not in allowed.headers
    document = await _document({})
    answer = endpoint.post("/decode", Role.READ, document, Origin=UI, **{"X-Namespace": "default"})
    assert answer.headers["access-control-allow-origin"] == UI
    assert endpoint.preflight("https://evil.example").status_code == httpx.codes.BAD_REQUEST
    evil = endpoint.post("/decode", Role.READ, document, Origin="https://evil.example")
    assert evil.status_code == httpx.codes.FORBIDDEN
    assert "access-control-allow-origin" not in evil.headers


@pytest.mark.parametrize(
    "content",
    ["", "{", "7", '{"payloads": {}}', '{"payloads": [{"data": 7}]}', b"\xff", "[" * 5000],
)
async def test_bad_requests(endpoint: Endpoint, content: str | bytes) -> None:
    """They are refused, and nothing of them is repeated."""
    answer = endpoint.post("/decode", Role.READ, content)
    assert answer.status_code == httpx.codes.BAD_REQUEST
    assert answer.json()["detail"].startswith("expected the JSON of")


async def test_limits(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is too large, and a payload whose key is not there."""
    monkeypatch.setattr(codec_module, "MAX_BODY_BYTES", 1000)
    large = endpoint.post("/decode", Role.READ, "x" * 1001)
    assert large.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    other = load_data_converter({**ENVIRON, "ACKBRIDGE_ENCRYPTION_KEYS": "other=env:KEY"})
    payloads = Payloads(payloads=await other.encode([{}]))
    answer = endpoint.post("/decode", Role.READ, json_format.MessageToDict(payloads))
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "'other'" in answer.json()["detail"]
