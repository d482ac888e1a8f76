"""Authentication and verification in integration files; secrets appear as references only."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal
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
        private_key: in PEM; signs the assertion of `private_key_jwt` (RFC 7523).
        key_id: of that key; the provider may need it to find the public one.
        assertion_audience: of the assertion; left out: `token_url`.
        assertion_algorithm: that signs it; fits the kind of the key.
        leeway: how long before its expiry a token is renewed; at most half of its lifetime.
    """

    type: Literal["oauth2"]
    token_url: str
    client_id: PlainOrRef
    client_secret: SecretRef | None = None
    scope: str | None = None
    audience: str | None = None
    auth_method: Literal["client_secret_basic", "client_secret_post", "private_key_jwt"] = (
        "client_secret_basic"
    )
    private_key: SecretRef | None = None
    key_id: PlainOrRef | None = None
    assertion_audience: str | None = None
    assertion_algorithm: Literal["RS256", "PS256", "ES256", "ES384"] = "RS256"
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

    @model_validator(mode="after")
    def _has_what_the_method_needs(self) -> OAuth2Auth:
        by_key = self.auth_method == "private_key_jwt"
        needed, other = ("private_key", "client_secret")[:: 1 if by_key else -1]
        if getattr(self, needed) is None:
            raise ValueError(f"auth_method {self.auth_method} needs {needed}")
        if getattr(self, other) is not None:
            raise ValueError(f"auth_method {self.auth_method} does not use {other}")
        return self

    def credentials(self) -> list[Credential]:
        refs = (self.client_secret, self.private_key)
        return [(self.client_id, ref) for ref in refs if ref is not None]


SIGNED_REQUEST_PART = re.compile(
    r"(\{(?:timestamp|nonce|method|target|path|query|host|url|body|body_sha256|key_id|signature"
    r"|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)\})"
)
"""What templates of `SignAuth` may contain."""

HTTP_SIGNATURE_HMAC: Final = "hmac-sha256"

_HMACS = ("sha256", "sha1", "sha512")


class SignAuth(Spec):
    """Sign every request, as it is sent, after all other authentication.

    Attributes:
        scheme: `hmac`: over the template `signed`, in a header of the provider's choice. `rfc9421`:
            HTTP message signatures, in `Signature` and `Signature-Input`.
        key: the shared secret, or a private key in PEM.
        key_encoding: how a shared secret is written.
        key_id: names the key; `{key_id}` in templates; `keyid` of RFC 9421.
        algorithm: of `hmac`: sha256, sha1 or sha512, by default sha256. Of `rfc9421`, by default
            hmac-sha256.
        header: has the signature.
        value: the header's value, a template with `{signature}`.
        encoding: of the signature.
        signed: a template of what is signed: `{timestamp}`, `{nonce}`, `{method}`, `{target}` (path
            and query), `{path}`, `{query}`, `{host}`, `{url}`, `{body}`, `{body_sha256}`,
            `{key_id}`, `{header:Name}`.
        timestamp_header, nonce_header: headers that get the timestamp, and a value that is new for
            every request.
        timestamp_unit: seconds or milliseconds of Unix time, or ISO 8601.
        covered: the components that RFC 9421 covers; headers by name in lower case.
        digest: whether the body is covered, by a `Content-Digest` (RFC 9530).
        expires: how long the signature is valid.
        nonce: whether it has a nonce.
        tag: says which application it is for.
    """

    type: Literal["sign"]
    scheme: Literal["hmac", "rfc9421"] = "hmac"
    key: SecretRef
    key_encoding: Literal["text", "hex", "base64"] = "text"
    key_id: PlainOrRef | None = None
    algorithm: Literal[
        "sha256",
        "sha1",
        "sha512",
        "hmac-sha256",
        "ed25519",
        "ecdsa-p256-sha256",
        "ecdsa-p384-sha384",
        "rsa-pss-sha512",
        "rsa-v1_5-sha256",
    ] = "sha256"
    header: HeaderName | None = None
    value: str = Field(default="{signature}", pattern=r"^[\x20-\x7e]*\{signature\}[\x20-\x7e]*$")
    encoding: Literal["hex", "base64"] = "hex"
    signed: str = "{timestamp}.{method}.{target}.{body}"
    timestamp_header: HeaderName | None = None
    timestamp_unit: Literal["s", "ms", "iso"] = "s"
    nonce_header: HeaderName | None = None
    covered: Annotated[tuple[str, ...], Field(min_length=1)] = ("@method", "@target-uri")
    digest: bool = True
    expires: Duration | None = Field(default=None, gt=timedelta(0))
    nonce: bool = False
    tag: str | None = None

    @field_validator("signed", "value")
    @classmethod
    def _has_known_parts(cls, template: str) -> str:
        literal = "".join(SIGNED_REQUEST_PART.split(template)[::2])
        if "{" in literal or "}" in literal:
            raise ValueError(
                "may use {timestamp}, {nonce}, {method}, {target}, {path}, {query}, {host}, {url},"
                " {body}, {body_sha256}, {key_id} and {header:Name} only"
            )
        return template

    @model_validator(mode="before")
    @classmethod
    def _default_algorithm(cls, written: Any) -> Any:
        if isinstance(written, dict) and written.get("scheme") == "rfc9421":
            return {"algorithm": HTTP_SIGNATURE_HMAC, **written}
        return written

    @model_validator(mode="after")
    def _fits_its_scheme(self) -> SignAuth:
        is_hmac = self.scheme == "hmac"
        others = _OF_MESSAGES if is_hmac else _OF_HMACS
        if extra := sorted(self.model_fields_set & others):
            raise ValueError(f"scheme {self.scheme} does not use {', '.join(extra)}")
        if is_hmac != (self.algorithm in _HMACS):
            raise ValueError(f"scheme {self.scheme} has no algorithm {self.algorithm}")
        missing = "header" if is_hmac else "key_id"
        if getattr(self, missing) is None:
            raise ValueError(f"scheme {self.scheme} needs {missing}")
        self._check_parts()
        return self

    def _check_parts(self) -> None:
        if "{signature}" in self.signed:
            raise ValueError("signed cannot contain {signature}")
        for part, field in (("{timestamp}", "timestamp_header"), ("{nonce}", "nonce_header")):
            is_sent = getattr(self, field) is not None or part in self.value
            if self.scheme == "hmac" and part in self.signed and not is_sent:
                raise ValueError(f"signed uses {part}: {field} is required, or {part} in value")

    def credentials(self) -> list[Credential]:
        return [("", self.key)]


_OF_HMACS = frozenset(
    {"header", "value", "encoding", "signed", "timestamp_header", "timestamp_unit", "nonce_header"}
)
_OF_MESSAGES = frozenset({"covered", "digest", "expires", "nonce", "tag"})


AuthSpec = Annotated[
    HeaderAuth | BasicAuth | BearerAuth | OAuth2Auth | SignAuth, Field(discriminator="type")
]
"""How we authenticate to a provider."""


def _file_ref(text: str) -> str:
    if not text.startswith("file:") or not is_secret_ref(text):
        raise ValueError("must be a file reference, file:/path")
    return text


FileRef = Annotated[
    str,
    AfterValidator(_file_ref),
    WithJsonSchema({"type": "string", "pattern": r"^file:[^\x00-\x1f]+$"}),
]
"""A file, as `file:/path`."""


class TlsSpec(Spec):
    """How connections to a provider are secured; files in PEM, read again when they change.

    Attributes:
        ca: the authorities that sign the provider's certificate, instead of the usual ones.
        certificate: ours, with its chain (mutual TLS).
        key: its private key, without a password.
    """

    ca: FileRef | None = None
    certificate: FileRef | None = None
    key: FileRef | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> TlsSpec:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("needs certificate and key together")
        return self


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
        timestamp_header: has the Unix time in seconds or milliseconds, or ISO 8601 (UTC unless it
            names an offset). Unless `signed` has `{timestamp}`, an attacker can replace it: then it
            only detects late deliveries.
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
