"""Who acts: roles, authenticated identities, and the settings of their authentication."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AwareDatetime, Field, TypeAdapter, model_validator

from .limits import MAX_ACTOR_LENGTH, NAME_PATTERN, Actor
from .wire import StrictModel, Wire


class Role(StrEnum):
    """What an identity may do. Every role includes `READ`, and `STEER` includes `START`."""

    READ = "read"
    """See calls, payloads and lists, without sensitive fields."""
    START = "start"
    """Start calls, and see all of them: who may start calls is a caller."""
    STEER = "steer"
    """Start calls, cancel and reprocess them, replay messages and notices."""
    SETTLE = "settle"
    """State what happened at a provider: force, resolve, write off, apply, discard."""
    CONFIGURE = "configure"
    """Change flags, breakers, limits, schedules, versions; purge."""


_GRANT: Final = re.compile(rf"({'|'.join(Role)})(:{NAME_PATTERN.strip('^$')})?")

Grant = Annotated[str, Field(pattern=f"^{_GRANT.pattern}$", max_length=80)]
"""A role for every provider, such as `steer`, or for one, such as `steer:stripe`."""


def is_grant(text: str) -> bool:
    return _GRANT.fullmatch(text) is not None


_INCLUDED_IN: Final[Mapping[Role, tuple[Role, ...]]] = {
    Role.READ: tuple(Role),
    Role.START: (Role.START, Role.STEER),
}


class IdentitySource(StrEnum):
    """How the name of an actor is known."""

    TOKEN = "token"  # noqa: S105 -- the name of a source
    """A claim of a JSON Web Token that was verified by us, or by the engine."""
    API_KEY = "api_key"
    CERTIFICATE = "certificate"
    """The subject of the client certificate that the engine has verified."""
    STATED = "stated"
    """Nobody has verified it: `--by`, the operating system's user, or a signal's own text."""


class Identity(Wire):
    """An operator, a service or a program that makes a request.

    Attributes:
        source: how `name` is known.
        roles: none for an identity that was not authenticated by us.
    """

    name: Actor
    source: IdentitySource
    roles: frozenset[Grant] = frozenset()

    @property
    def label(self) -> str:
        """The name, and how it is known: `anna@example.com (certificate)`; a stated one alone."""
        if self.source is IdentitySource.STATED:
            return self.name
        ending = f" ({self.source})"
        return f"{self.name[: MAX_ACTOR_LENGTH - len(ending)]}{ending}"

    def may(self, role: Role, provider: str | None = None) -> bool:
        """Whether it has a role for a provider; None: for every provider."""
        including = _INCLUDED_IN.get(role, (role,))
        return any(
            one in self.roles or (provider is not None and f"{one}:{provider}" in self.roles)
            for one in including
        )


API_KEY_PREFIX: Final = "abk"  # scanners for secrets find keys by it
_SHA256 = r"^[0-9a-f]{64}$"


class ApiKey(StrictModel):
    """One entry of the file of API keys. The key itself is stored nowhere.

    Attributes:
        id: part of the key; names it in logs.
        name: who uses it.
        sha256: of the whole key, in hexadecimal; a key has 256 random bits, so no salt is needed.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    name: Actor
    sha256: Annotated[str, Field(pattern=_SHA256)]
    roles: Annotated[frozenset[Grant], Field(min_length=1)]
    expires_at: AwareDatetime

    def is_valid(self, now: datetime) -> bool:
        return now < self.expires_at


API_KEYS: Final = TypeAdapter(tuple[ApiKey, ...])
"""The content of the file of API keys."""


class AuthSettings(StrictModel):
    """How HTTP clients authenticate: `ACKBRIDGE_AUTH_*`. Without any, protected routes are off.

    Attributes:
        issuer, audience: of accepted JSON Web Tokens (`iss`, `aud`).
        audience_claim: the claim that must be `audience`, for issuers whose access tokens have no
            `aud`, such as `client_id`.
        jwks: the issuer's keys: an `https://` URL, or the path of a file.
        name_claim: the claim with the name of the actor.
        roles_claim: the claim with the roles, as a list or a text with spaces; dots separate the
            names of nested objects.
        role_prefix: of the roles in the claim, such as `ackbridge.`; other roles are ignored.
        api_keys: the path of the file of API keys (`ackbridge api-key`).
    """

    issuer: str | None = None
    audience: str | None = None
    audience_claim: str = "aud"
    jwks: str | None = None
    name_claim: str = "sub"
    roles_claim: str = "roles"
    role_prefix: str = ""
    api_keys: Path | None = None

    @model_validator(mode="after")
    def _tokens_need_all_three(self) -> Self:
        given = [value is not None for value in (self.issuer, self.audience, self.jwks)]
        if any(given) and not all(given):
            raise ValueError("issuer, audience and jwks must be set together")
        return self

    @property
    def is_configured(self) -> bool:
        return self.issuer is not None or self.api_keys is not None
