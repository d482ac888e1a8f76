"""How a simulated provider speaks, apart from what it does.

The desk works, fails and insists; a speech knows paths, documents and signatures. `shop.py` is the
sandbox's own. Another one makes the same desk a provider of another shape:

    create_provider(speech, behaviour_for=lambda request: Behaviour(silent=True))

Every HTTP request goes to `ProviderDialect.hear`, but for those whose path begins with `/_`: they
are for
tests. What it makes of it goes to the desk, which decides what happens, and asks the speech for the
words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from .behaviour import Behaviour
from .job import Job, Mode, Verdict

News = Literal["completed", "failed", "extended"]
"""What a callback tells."""


@dataclass(frozen=True)
class Incoming:
    """An HTTP request, as it came.

    Attributes:
        path: from the `/` on, still quoted, without the query.
        query: what stands behind the `?`, as it came.
        headers: by lower-case name; of repeated ones the last.
    """

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class DialectReply:
    """What an HTTP request is answered with; `content-length` comes by itself."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def in_json(status: int, document: Any) -> DialectReply:
    """An answer in JSON."""
    return DialectReply(status, json.dumps(document).encode(), {"content-type": "application/json"})


@dataclass(frozen=True)
class WorkRequest:
    """A request to do something.

    Attributes:
        key: the idempotency key; one effect for each. A provider that is sent none has to find
            something else that is the same on every retry.
        content: what `ProviderDialect` wants to find again in `Job.content`.
        call_id: the caller's own id, where the request says it. The journal is asked by it, and
            `fail` counts by it.
        callback_url: where events go; None and there are none.
        behaviour: what it shall do, where the request says so.
    """

    operation: str
    mode: Mode
    key: str
    content: Any = None
    call_id: str | None = None
    callback_url: str | None = None
    behaviour: Behaviour | None = None


@dataclass(frozen=True)
class Whose:
    """Which work is meant: by its id; else by its key; else the latest of a call."""

    work_id: str | None = None
    key: str | None = None
    call_id: str | None = None


@dataclass(frozen=True)
class StatusRequest:
    """A question how a work stands.

    Attributes:
        operation: None where a request does not tell; work of another one is not found.
    """

    operation: str | None
    whose: Whose


@dataclass(frozen=True)
class Acknowledgement:
    """What became of our answer.

    Attributes:
        operation: None where a request does not tell; work of another one is not found.
        key: its own idempotency key; the same again is the same acknowledgement. Without one,
            each verdict counts once for each work.
        body: for the journal, parsed if possible.
    """

    operation: str | None
    whose: Whose
    verdict: Verdict
    key: str | None = None
    body: Any = None


@dataclass(frozen=True)
class Aside:
    """What is answered without any work: health, a token, what is refused or not understood.

    Attributes:
        kind: for the journal, such as `health`, `token`, `unauthorized`, `unknown`, `invalid`.
    """

    kind: str
    answer: DialectReply


Heard = WorkRequest | StatusRequest | Acknowledgement | Aside
"""What an HTTP request turned out to be."""


class ProviderDialect(Protocol):
    """The words of one provider. Called from one event loop; nothing may block."""

    def hear(self, request: Incoming) -> Heard:
        """Understand a request, and check its credentials. Never raises for what was sent."""

    def answer(self, work: Job) -> DialectReply:
        """The receipt; in `sync` mode the response itself, by `work.status`.

        Built once for each idempotency key, and repeated byte by byte.
        """

    def status(self, work: Job) -> DialectReply:
        """How a work stands, by `work.status`, `work.behaviour` (why it failed) and `until`."""

    def acknowledged(self, work: Job, verdict: Verdict) -> DialectReply:
        """An acknowledgement is taken."""

    def trouble(self, status: int, reason: str) -> DialectReply:
        """An error: 4xx or 5xx."""

    def event(self, work: Job, news: News, event_id: str) -> bytes:
        """The body of a callback.

        Args:
            news: what it tells, whatever `work.status` is: a provider may contradict itself.
                For `extended`, `work.until` says until when.
            event_id: what tells two events apart; every copy and every try has the same.
        """

    def sign(self, body: bytes, event_id: str, at: datetime) -> dict[str, str]:
        """The headers of a true callback: its content type, and what proves where it is from."""

    def forge(self, body: bytes, event_id: str, at: datetime) -> dict[str, dict[str, str]]:
        """The headers of false ones, by a name for the journal: `signature`, `stale`.

        Only what a receiver has to refuse: nothing stale where no time is signed.
        """
