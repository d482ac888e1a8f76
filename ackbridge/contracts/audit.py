"""The audit log: what operators did, in a chain of hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, Self

from pydantic import AwareDatetime, Field

from .limits import MAX_ACTOR_LENGTH
from .wire import Wire, digest

AUDIT_CHANGE: Final = "audit-log"
"""The `workflow.patched` id of histories whose operator requests are audited."""

NOT_KEPT: Final = "(not kept)"

FIRST_HASH: Final = "0" * 64
"""What the first entry has as the hash of its predecessor."""

_HIDDEN: Final = frozenset({"response", "retention"})
"""Arguments that are not kept: data of the provider, or of no interest."""


class AuditOrigin(StrEnum):
    """How a request arrived."""

    SIGNAL = "signal"
    """At a workflow: from our client, another client, or the Temporal UI; see `client`."""
    UPDATE = "update"
    WORKFLOW = "workflow"
    """As the start of a workflow of its own, such as a batch."""
    COMMAND = "command"
    """A command that works on the ledger or on the engine without a workflow."""
    HTTP = "http"


class AuditRequest(Wire):
    """What somebody requested; the argument of the activity `audit`.

    Attributes:
        id: of the request; it is recorded once.
        action: such as `cancel` or `set_flag`.
        subject: the id of the workflow or message that it is about.
        by: the name that the request states, with how it is known, as in `Identity.label`.
        details: the other arguments, but long or private ones.
        arguments_digest: of the arguments as they arrived, to find the event in the history.
    """

    id: str
    at: AwareDatetime
    origin: AuditOrigin
    action: str
    subject: str
    by: str = Field(default="", max_length=MAX_ACTOR_LENGTH)
    reason: str = ""
    details: dict[str, str] = Field(default_factory=dict)
    arguments_digest: str | None = None


class AuditEntry(Wire):
    """One entry of the log.

    Attributes:
        seq: counts from 1, without gaps.
        at: when it was requested.
        client: the identity of the client, as the engine recorded it with the request: what our
            client, another one or the Temporal UI calls itself.
        principal: who the engine says that it was, for an engine that authenticates its clients.
        previous: the hash of the entry before.
        salt: random, so that nobody can guess an encrypted reason by its hash.
    """

    seq: int
    previous: str
    salt: str
    id: str
    at: AwareDatetime
    origin: AuditOrigin
    action: str
    subject: str
    by: str = ""
    reason: str = ""
    details: dict[str, str] = Field(default_factory=dict)
    client: str = ""
    principal: str = ""

    def text(self) -> str:
        """The canonical JSON that the hash is of, in ASCII: a reason may have lone surrogates."""
        fields = {**dict(self), "at": self.at.isoformat(), "origin": str(self.origin)}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `text` has written; raises `ValueError`."""
        return cls.model_validate(json.loads(text))


class Audited(Wire):
    """The result of the activity `audit`: which entry it became, and who it was.

    Attributes:
        hash: of the entry: a copy of the chain that is not in the database.
    """

    seq: int
    hash: str
    by: str
    client: str = ""
    principal: str = ""


def digest_of(arguments: Sequence[Any]) -> str | None:
    """A digest of raw arguments; None: they are no JSON that has one."""
    try:
        return digest(list(arguments))
    except (TypeError, ValueError):
        return None


def describe_arguments(arguments: Mapping[str, Any]) -> dict[str, str]:
    """The arguments of a request besides `by` and `reason`, short enough to be kept."""
    described = {}
    for name, value in arguments.items():
        if name in ("by", "reason") or value is None:
            continue
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        is_kept = name not in _HIDDEN and len(text) <= MAX_ACTOR_LENGTH
        described[name] = text if is_kept else NOT_KEPT
    return described
