"""What a provider sends by itself: its callbacks, and how it signs them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from typing import Any

from pydantic import Field

from tests.support.scripted_provider import Data

SECRETS = {
    "CASE_SECRET": "case-secret-1",
    "CASE_WHSEC": f"whsec_{base64.b64encode(b'a key of the case files 1').decode()}",
    "CASE_CLIENT_SECRET": "case-client-1",
    "CASE_TOKEN": "case-token-1",
}
"""Of the integration files, which both sides know."""


class Signature(Data):
    """HMAC-SHA-256: in hex in a header of its own, or as Standard Webhooks has it.

    Attributes:
        header, prefix: where, and what stands in front of it.
        over: what is signed; `{id}` and `{timestamp}` are in these headers.
        standard: the first word of its three headers.
    """

    header: str = ""
    prefix: str = ""
    over: str = "{body}"
    id_header: str | None = None
    timestamp_header: str | None = None
    standard: str | None = None

    def headers(self, body: bytes) -> dict[str, str]:
        """The headers of a callback with this body, sent now."""
        event, now = f"msg_{uuid.uuid4().hex}", str(int(time.time()))
        if self.standard is not None:
            key = base64.b64decode(SECRETS["CASE_WHSEC"].removeprefix("whsec_"))
            signed = hmac.digest(key, f"{event}.{now}.".encode() + body, hashlib.sha256)
            return {
                f"{self.standard}-id": event,
                f"{self.standard}-timestamp": now,
                f"{self.standard}-signature": f"v1,{base64.b64encode(signed).decode()}",
            }
        over = self.over.replace("{id}", event).replace("{timestamp}", now).encode()
        content = over.replace(b"{body}", body)
        signature = hmac.new(SECRETS["CASE_SECRET"].encode(), content, hashlib.sha256).hexdigest()
        headers = {
            self.header: self.prefix + signature,
            self.id_header: event,
            self.timestamp_header: now,
        }
        return {name: value for name, value in headers.items() if name is not None}


class Callback(Data):
    """A callback, sent `wait` seconds after these routes were asked so often.

    Without `after`, after the first request of the first route.

    Attributes:
        body: a text is sent as it is, anything else as JSON.
        headers: besides those of the signature; they replace the type of the body.
    """

    body: Any = ""
    method: str = "POST"
    after: dict[str, int] | None = None
    wait: float = 0.7
    headers: dict[str, str] = Field(default_factory=dict)
    sign: Signature | None = None

    def content(self) -> bytes:
        """The bytes of the body."""
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()

    def all_headers(self) -> dict[str, str]:
        """Those of a request that is sent now."""
        signed = self.sign.headers(self.content()) if self.sign else {}
        return {"Content-Type": "application/json", **self.headers, **signed}
