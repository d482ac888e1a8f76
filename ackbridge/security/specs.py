"""How integration files describe authentication, out and in; secrets appear as references only."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from ackbridge.contracts.wire import Duration

REFERENCE_PATTERN = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f]+)$"
"""`env:NAME`, or `file:/path` (a relative path starts at the configured root)."""

_REFERENCE = re.compile(REFERENCE_PATTERN[:-1] + r"\Z")
_LOOKS_LIKE_REF = ("env:", "file:")
_SIGNED_PART = re.compile(r"(\{timestamp\}|\{body\}|\{id\})")
_HEADER_NAME = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"


def is_secret_ref(text: str) -> bool:
    """Whether a text is a well-formed secret reference."""
    return _REFERENCE.match(text) is not None


def _secret_ref(text: str) -> str:
    # The text is not repeated: it may be the secret itself, pasted where a reference belongs.
    if not is_secret_ref(text):
        raise ValueError("must be a secret reference, env:NAME or file:/path, not a value")
    return text


def _plain_or_ref(text: str) -> str:
    if text.startswith(_LOOKS_LIKE_REF) and not is_secret_ref(text):
        raise ValueError("is not a well-formed reference: env:NAME or file:/path")
    return text


SecretRef = Annotated[
    str,
    AfterValidator(_secret_ref),
    WithJsonSchema({"type": "string", "pattern": REFERENCE_PATTERN}),
]
"""Where a secret is: `env:NAME` or `file:/path`. Anything else is refused, unrepeated."""

PlainOrRef = Annotated[str, Field(min_length=1), AfterValidator(_plain_or_ref)]
"""A name that is no secret: the text itself, or a reference as in `SecretRef`."""

HeaderName = Annotated[str, Field(pattern=_HEADER_NAME)]
"""The name of an HTTP header, in any case."""

SecretRefs = Annotated[tuple[SecretRef, ...], Field(min_length=1)]
"""One secret or several valid at once, for rotation without a gap."""


class Spec(BaseModel):
    """The base of every model here: frozen, strict about names, silent about values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class HeaderAuth(Spec):
    """Send a secret in a header of the provider's choice, after `prefix`."""

    type: Literal["header"]
    name: HeaderName
    value: SecretRef
    prefix: str = Field(default="", pattern=r"^[\x20-\x7e]*$")


class BasicAuth(Spec):
    """HTTP Basic authentication."""

    type: Literal["basic"]
    username: PlainOrRef
    password: SecretRef


class BearerAuth(Spec):
    """`Authorization: Bearer <token>`."""

    type: Literal["bearer"]
    token: SecretRef


class OAuth2Auth(Spec):
    """OAuth 2 client credentials: a bearer token from `token_url`, renewed `leeway` before expiry.

    Attributes:
        auth_method: how the client proves itself to the token endpoint.
        leeway: how long before a token expires it is renewed (at the most half its life).
    """

    type: Literal["oauth2"]
    token_url: str
    client_id: PlainOrRef
    client_secret: SecretRef
    scope: str | None = None
    audience: str | None = None
    auth_method: Literal["client_secret_basic", "client_secret_post"] = "client_secret_basic"
    leeway: Duration = Field(default=timedelta(seconds=60), ge=timedelta(0))

    @field_validator("token_url")
    @classmethod
    def _absolute_and_without_credentials(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an absolute http or https URL")
        if parts.username or parts.password:
            raise ValueError("must not carry credentials; use client_id and client_secret")
        return url


AuthSpec = Annotated[HeaderAuth | BasicAuth | BearerAuth | OAuth2Auth, Field(discriminator="type")]
"""How we authenticate to a provider."""


class HmacVerify(Spec):
    """A signature over the raw body, by a preset or in the generic form.

    Attributes:
        preset: `stripe` or `standard-webhooks`; it fixes everything below `tolerance`.
        secrets: any of them may have signed.
        tolerance: how far the timestamp may be from now, into the past and into the future.
        header: where the signature is (generic form; required there).
        algorithm, encoding: of the signature.
        prefix: what stands before the signature in the header, such as `sha256=`.
        signed: what is signed, over `{timestamp}`, `{id}` and `{body}`; `{body}` is a must.
        timestamp_header: where the Unix time in seconds is. Unless `signed` has `{timestamp}`,
            whoever replays a callback can refresh it: then it only catches honest delays.
        id_header: where the message id is.
    """

    type: Literal["hmac"]
    preset: Literal["stripe", "standard-webhooks"] | None = None
    secrets: SecretRefs
    tolerance: Duration = Field(default=timedelta(minutes=5), gt=timedelta(0))
    header: HeaderName | None = None
    algorithm: Literal["sha256", "sha1", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    signed: str = "{body}"
    timestamp_header: HeaderName | None = None
    id_header: HeaderName | None = None

    @field_validator("signed")
    @classmethod
    def _signed_covers_the_body(cls, template: str) -> str:
        parts = split_signed(template)
        if any("{" in text or "}" in text for text in parts if not _SIGNED_PART.fullmatch(text)):
            raise ValueError("may use {timestamp}, {id} and {body} only")
        if "{body}" not in parts:
            raise ValueError("must contain {body}, or anybody may change the body")
        return template

    @model_validator(mode="after")
    def _preset_or_generic(self) -> HmacVerify:
        generic = self.model_fields_set - {"type", "preset", "secrets", "tolerance"}
        if self.preset is not None and generic:
            names = ", ".join(sorted(generic))
            raise ValueError(f"preset {self.preset} fixes the scheme: leave out {names}")
        if self.preset is None and self.header is None:
            raise ValueError("needs a preset (stripe, standard-webhooks) or a header")
        parts = split_signed(self.signed)
        if "{timestamp}" in parts and self.timestamp_header is None:
            raise ValueError("signed uses {timestamp}: timestamp_header must say where it is")
        if "{id}" in parts and self.id_header is None:
            raise ValueError("signed uses {id}: id_header must say where it is")
        return self


class HeaderVerify(Spec):
    """A shared secret in a header; no replay window, because nothing is signed.

    Attributes:
        prefix: what stands before the secret in the header, such as `Bearer `.
    """

    type: Literal["header"]
    name: HeaderName
    secrets: SecretRefs
    prefix: str = ""


class BasicVerify(Spec):
    """HTTP Basic authentication by the provider; no replay window either."""

    type: Literal["basic"]
    username: PlainOrRef
    passwords: SecretRefs


VerifySpec = Annotated[HmacVerify | HeaderVerify | BasicVerify, Field(discriminator="type")]
"""How a provider proves that a callback is its own."""


def split_signed(template: str) -> tuple[str, ...]:
    """Take a `signed` template apart into literal texts and `{...}` parts, in order."""
    return tuple(part for part in _SIGNED_PART.split(template) if part)
