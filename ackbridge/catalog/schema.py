"""What an integration file may say: one provider, its callbacks, its operations."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from ackbridge.contracts.breaker_policy import BreakerPolicy
from ackbridge.security.specs import AuthSpec, VerifySpec

from .expressions import Expression
from .fields import FilePart, Flag, Name, Positive, StatusCode, is_address
from .operation import Operation
from .reprocessing import Reprocessing


class Replies(FilePart):
    """Which status codes this provider gets, because providers differ."""

    accepted: StatusCode = 200
    """The message is durable, or nothing we wait for."""
    duplicate: StatusCode = 200
    """It has been there before."""
    unmatched: StatusCode = 202
    """It is kept until a call appears that it is about."""
    forged: StatusCode = 401
    """It does not verify."""
    unreadable: StatusCode = 400
    """It is not JSON, or has no event key."""


class Callbacks(FilePart):
    """How this provider calls back, at `<public URL>/callbacks/<provider>`."""

    verify: VerifySpec
    """How a callback proves that it is the provider's own."""
    event_key: Expression
    """What makes two callbacks one; over the callback's document."""
    replies: Replies = Replies()
    """Which status codes this provider gets."""
    max_bytes: int = Field(default=1024 * 1024, gt=0)
    """Larger bodies are refused with 413, unread."""


class Limits(FilePart):
    """What this provider tolerates; with limits, every request goes through its own queue."""

    requests_per_second: float | None = Field(default=None, gt=0)
    """Sends, all workers together; the engine enforces it on the provider's queue."""
    per_tenant: float | None = Field(default=None, gt=0)
    """Sends per second for each value of an operation's `fairness`."""
    concurrent: int | None = Field(default=None, gt=0)
    """Sends at once, in each worker."""


class Health(FilePart):
    """A request that tells whether the provider is up."""

    path: str = Field(pattern=r"^/[!-z|~]*$")
    """From the `/` on; not a template."""
    every: Positive = timedelta(seconds=30)
    """How often it is asked; half open, the breaker asks every `breaker.probe_every`."""
    timeout: Positive = timedelta(seconds=5)
    """Later than this it is no answer."""


class Integration(FilePart):
    """One provider: a file `integrations/<provider>.yaml`."""

    provider: Name
    """Its name, as in call ids and in the path of its callbacks."""
    base_url: str
    """Where its API is; the paths of the operations are put after it."""
    auth: AuthSpec | None = None
    """How we authenticate; secrets are references."""
    callbacks: Callbacks | None = None
    """How it calls back."""
    limits: Limits | None = None
    """What it tolerates."""
    egress: Literal["shared", "dedicated"] = "shared"
    """dedicated: only workers of its own queue may reach it."""
    health: Health | None = None
    """How to see whether it is up."""
    breaker: BreakerPolicy | None = BreakerPolicy()
    """When it is given a pause, and how it is taken up again; null: never by itself."""
    flag: dict[str, Flag] = Field(default_factory=dict)
    """By environment: on, off, internal, or a percentage. One that is not named is on."""
    reprocess: Reprocessing | None = None
    """When its parked calls are taken up again by themselves."""
    operations: dict[Name, Operation] = Field(min_length=1)
    """What it does for us, by name."""

    @field_validator("base_url")
    @classmethod
    def _is_absolute(cls, url: str) -> str:
        if not is_address(url):
            raise ValueError("must be an absolute http or https URL")
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not carry credentials; use auth")
        if parts.query or parts.fragment:
            raise ValueError("must be a plain URL without query and fragment")
        return url.rstrip("/")
