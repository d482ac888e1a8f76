"""Authentication and verification in integration files; secrets appear as references only."""

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

from .secrets import REFERENCE_PATTERN, is_secret_ref

_LOOKS_LIKE_REF = ("env:", "file:")
_SIGNED_PART = re.compile(r"(\{timestamp\}|\{body\}|\{id\})")
_HEADER_NAME = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"


def _secret_ref(text: str) -> str:
    # Not repeated: it may be the secret itself, pasted instead of a reference.
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
"""A secret, as `env:NAME` or `file:/path`."""

PlainOrRef = Annotated[str, Field(min_length=1), AfterValidator(_plain_or_ref)]
"""A name that is not secret: a plain text, or a reference as in `SecretRef`."""

HeaderName = Annotated[str, Field(pattern=_HEADER_NAME)]

SecretRefs = Annotated[tuple[SecretRef, ...], Field(min_length=1)]
"""Several secrets are valid at once, so that one can be rotated without a gap."""


Credential = tuple[str, SecretRef]
"""The user name, or an empty text, and the secret that goes with it."""


class Spec(BaseModel):
    """The base of the models below; their errors do not contain values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class HeaderAuth(Spec):
    """Send a secret in a header of the provider's choice, after `prefix`."""

    type: Literal["header"]
    name: HeaderName
    value: SecretRef
    prefix: str = Field(default="", pattern=r"^[\x20-\x7e]*$")

    def credentials(self) -> list[Credential]:
        return [("", self.value)]


class BasicAuth(Spec):
    """HTTP Basic authentication."""

    type: Literal["basic"]
    username: PlainOrRef
    password: SecretRef

    def credentials(self) -> list[Credential]:
        return [(self.username, self.password)]


class BearerAuth(Spec):
    """`Authorization: Bearer <token>`."""

    type: Literal["bearer"]
    token: SecretRef

    def credentials(self) -> list[Credential]:
        return [("", self.token)]


class OAuth2Auth(Spec):
    """OAuth 2 client credentials: a bearer token from `token_url`.

    Attributes:
        auth_method: how the client authenticates to the token endpoint.
        leeway: how long before its expiry a token is renewed; at most half of its lifetime.
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

    def credentials(self) -> list[Credential]:
        return [(self.client_id, self.client_secret)]


AuthSpec = Annotated[HeaderAuth | BasicAuth | BearerAuth | OAuth2Auth, Field(discriminator="type")]
"""How we authenticate to a provider."""


class HmacVerify(Spec):
    """An HMAC over the raw body, by a preset or in the generic form.

    Attributes:
        preset: `stripe` or `standard-webhooks`; it sets all fields below `tolerance`.
        secrets: any of them may have signed.
        tolerance: the maximum difference between the timestamp and now, in both directions.
        header: has the signature; required in the generic form. A list: the signatures of several
            secrets or versions, each in a header of its own; any of them may hold.
        algorithm, encoding: of the signature.
        prefix: precedes the signature in the header, such as `sha256=`.
        signed: a template of what is signed, with `{body}` and optionally `{timestamp}`, `{id}`.
        timestamp_header: has the Unix time in seconds. Unless `signed` has `{timestamp}`, an
            attacker can replace it: then it only detects late deliveries.
        id_header: has the message id.
    """

    type: Literal["hmac"]
    preset: Literal["stripe", "standard-webhooks"] | None = None
    secrets: SecretRefs
    tolerance: Duration = Field(default=timedelta(minutes=5), gt=timedelta(0))
    header: HeaderName | Annotated[tuple[HeaderName, ...], Field(min_length=1)] | None = None
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
            raise ValueError("must contain {body}: otherwise the body is not protected")
        return template

    @model_validator(mode="after")
    def _preset_or_generic(self) -> HmacVerify:
        generic = self.model_fields_set - {"type", "preset", "secrets", "tolerance"}
        if self.preset is not None and generic:
            names = ", ".join(sorted(generic))
            raise ValueError(f"preset {self.preset} sets the scheme: leave out {names}")
        if self.preset is None and self.header is None:
            raise ValueError("needs a preset (stripe, standard-webhooks) or a header")
        parts = split_signed(self.signed)
        if "{timestamp}" in parts and self.timestamp_header is None:
            raise ValueError("signed uses {timestamp}: timestamp_header is required")
        if "{id}" in parts and self.id_header is None:
            raise ValueError("signed uses {id}: id_header is required")
        return self

    @property
    def headers(self) -> tuple[str, ...]:
        """The headers that may have a signature, in the generic form."""
        return (self.header,) if isinstance(self.header, str) else self.header or ()

    def credentials(self) -> list[Credential]:
        return [("", ref) for ref in self.secrets]

    @property
    def signs_time(self) -> bool:
        """Whether the signature covers when a callback was sent."""
        return self.preset is not None or "{timestamp}" in split_signed(self.signed)

    @property
    def signed_headers(self) -> frozenset[str]:
        """The headers that a generic signature covers, by lower-case name."""
        parts = split_signed(self.signed)
        by_part = {"{id}": self.id_header, "{timestamp}": self.timestamp_header}
        covered = (name for part, name in by_part.items() if part in parts)
        return frozenset(name.lower() for name in covered if name is not None)


class HeaderVerify(Spec):
    """A shared secret in a header. Replays are not detected, because nothing is signed.

    Attributes:
        prefix: precedes the secret in the header, such as `Bearer `.
    """

    type: Literal["header"]
    name: HeaderName
    secrets: SecretRefs
    prefix: str = ""

    def credentials(self) -> list[Credential]:
        return [("", ref) for ref in self.secrets]


class BasicVerify(Spec):
    """HTTP Basic authentication by the provider. Replays are not detected."""

    type: Literal["basic"]
    username: PlainOrRef
    passwords: SecretRefs

    def credentials(self) -> list[Credential]:
        return [(self.username, ref) for ref in self.passwords]


class UrlVerify(Spec):
    """A signed token at the end of `{callback_url}`, for providers that sign nothing.

    Each call has a URL of its own, which also says which call a callback is for.

    Attributes:
        secrets: the first one signs, any of them verifies.
    """

    type: Literal["url"]
    secrets: SecretRefs

    def credentials(self) -> list[Credential]:
        return [("", ref) for ref in self.secrets]


VerifySpec = Annotated[
    HmacVerify | HeaderVerify | BasicVerify | UrlVerify, Field(discriminator="type")
]
"""How callbacks of a provider are verified."""


def split_signed(template: str) -> tuple[str, ...]:
    """Split a `signed` template into literal texts and `{...}` parts, in order."""
    return tuple(part for part in _SIGNED_PART.split(template) if part)
