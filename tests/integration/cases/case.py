"""A case: what a provider sends, byte by byte, and what is right then.

Each file has an integration, a call of it, the provider's answers and callbacks, and what is
expected. Every provider is named as its case, and the paths of its requests begin with that name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BeforeValidator, Field

from ackbridge.contracts.calls import CallStatus
from ackbridge.contracts.calls import Stage as CallStage
from tests.support.scripted_provider import Answer, Data, Request

from .callback import Callback

PENDING = "pending"
"""Instead of a status: the call has no outcome."""
THE_CALL = "call"
"""The name of a call that is the only one."""
NO_REPLY = (None, "")
"""Of a callback that was not sent, or not answered."""
CLOCK_TOLERANCE = 0.2
"""Seconds."""
TIMER_TOLERANCE = 0.05
"""Seconds that a pause may be shorter."""
GROWTH = 4 / 3

Item = TypeVar("Item")


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


OneOrMany = Annotated[tuple[Item, ...], BeforeValidator(_listed)]


class StartedCall(Data):
    """A call, started `wait` seconds later.

    `expires_at` is in seconds from its start, and may be past.
    """

    operation: str
    key: str = "k1"
    payload: Any = None
    metadata: dict[str, Any] | None = None
    expires_at: float | None = None
    wait: float = 0


class Sent(Data):
    """What the last request of a route has."""

    query: str | None = None
    body: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class ObservedCall:
    """What has become of a call.

    Attributes:
        status: at the end.
        seconds: from the first request to the outcome; None without either.
    """

    status: CallStatus
    seconds: float | None


@dataclass(frozen=True)
class Observed:
    """What there is to judge by.

    Attributes:
        calls: by name.
        requests: all that the provider got.
        replies: the status codes and texts that the callbacks were answered with.
        held: how many messages wait for an operator.
    """

    calls: Mapping[str, ObservedCall]
    requests: list[Request]
    replies: Mapping[int, tuple[int, str]]
    held: int

    def of_route(self, route: str) -> list[Request]:
        """The requests of one route."""
        return [request for request in self.requests if request.route == route]

    def keys(self, route: str) -> list[int]:
        """Which of the distinct idempotency keys each request had, from 1; 0 for none."""
        numbers: dict[str, int] = {}
        keys = [request.headers.get("idempotency-key") for request in self.of_route(route)]
        return [0 if key is None else numbers.setdefault(key, len(numbers) + 1) for key in keys]

    def pauses(self, route: str) -> list[float]:
        """Seconds from each request of a route to the next."""
        return [later.at - one.at for one, later in pairwise(self.of_route(route))]


class ExpectedCall(Data):
    """What becomes of a call.

    Attributes:
        status: of the outcome, or `pending`; one of them.
        effect, code, provider_code, receipt, disputed: of the outcome, or of the call that is
            pending; one of them.
        notice, notice_not: patterns for its texts.
        reason: what it contains.
        response: the whole of it, and null is none; left out, it may be anything.
        within: seconds from the first request to the outcome, at the most.
    """

    status: OneOrMany[str] | None = None
    parked: bool | None = None
    effect: OneOrMany[str] | None = None
    code: OneOrMany[str] | None = None
    provider_code: OneOrMany[str] | None = None
    receipt: OneOrMany[Any] | None = None
    disputed: bool | None = None
    notice: OneOrMany[str] = ()
    notice_not: OneOrMany[str] = ()
    response: Any = None
    reason: OneOrMany[str] = ()
    within: float | None = None


class Expectation(ExpectedCall):
    """What is right.

    Attributes:
        calls: by name, where there are several.
        requests: how many, of the first route or by route: `3`, `2+`, `1-2`.
        gaps: seconds at least from each request to the next, of the first route or by route.
        growing: the last of these pauses of the first route is longer than its first, by a third.
        keys: of the first route, which of the distinct idempotency keys each request has.
        new_key_after: no request of the first route has another key before these routes have
            answered so often.
        last_request: seconds from the first request of the first route to its last, at the most.
        replies: the status codes of the callbacks' answers: `200`, `2xx`.
        reply_bodies: their texts.
        held: how many messages wait for an operator.
        refused: the integration file is refused with these words.
        exit, says, says_not: exit status and output of `ackbridge check`.
    """

    calls: dict[str, ExpectedCall] = Field(default_factory=dict)
    requests: int | str | dict[str, int | str] = Field(default_factory=dict)
    gaps: list[float] | dict[str, list[float]] = Field(default_factory=dict)
    growing: bool = False
    same_key: bool = False
    keys: list[int] | None = None
    new_key_after: dict[str, int] = Field(default_factory=dict)
    last_request: float | None = None
    sent: dict[str, Sent] = Field(default_factory=dict)
    replies: tuple[str | int, ...] = ()
    reply_bodies: tuple[str, ...] = ()
    held: int | None = None
    refused: str | None = None
    exit: OneOrMany[int] = ()
    says: OneOrMany[str] = ()
    says_not: OneOrMany[str] = ()


class Case(Data):
    """The contents of a file, and its name.

    Attributes:
        file: the integration file; `${CASE_PROVIDER}` is the provider's URL.
        new, new_outcome: fields that this case is about.
        call, calls: one call, or several by name.
        provider: the answers by route.
        expect: alternatives.
        limit: seconds until a call without an outcome counts as pending.
        kind: `check`: nothing is called; `ackbridge check` reads the file.
    """

    name: str
    about: str
    file: str
    new: tuple[str, ...] = ()
    new_outcome: tuple[str, ...] = ()
    call: StartedCall | None = None
    calls: dict[str, StartedCall] = Field(default_factory=dict)
    provider: dict[str, OneOrMany[Answer]] = Field(default_factory=dict)
    callbacks: tuple[Callback, ...] = ()
    expect: OneOrMany[Expectation]
    limit: float = 40
    kind: Literal["call", "check"] = "call"

    @property
    def first_route(self) -> str:
        """What the call sends first."""
        return next(iter(self.provider))

    @property
    def all_calls(self) -> Mapping[str, StartedCall]:
        """By name."""
        return self.calls if self.call is None else {THE_CALL: self.call}

    @property
    def is_timed(self) -> bool:
        """Whether a busy machine could be too slow for it."""
        return any(one.growing or one.within is not None for one in self.expect)

    def problems(self, seen: Observed) -> list[str]:
        """What is wrong by the alternative that fits best; empty if one fits."""
        alternatives = [one for one in self.expect if one.refused is None]
        return min((_problems(self.first_route, one, seen) for one in alternatives), key=len)

    def problems_of_refusal(self, said: str) -> list[str]:
        """What is wrong when the integration file is refused."""
        allowed = [one.refused for one in self.expect if one.refused is not None]
        is_expected = any(re.search(text, said, re.IGNORECASE) for text in allowed)
        return [] if is_expected else [f"the file is refused: {said}"]

    def problems_of_check(self, exit_code: int, output: str) -> list[str]:
        """What is wrong with what `ackbridge check` says of the file."""
        (expected,) = self.expect
        wrong_exit = expected.exit and exit_code not in expected.exit
        return [
            *([f"exit {exit_code}"] if wrong_exit else []),
            *_problems_of_text("output", output, expected.says, expected.says_not),
        ]


def load_cases(folder: Path) -> dict[str, Case]:
    """Load every file of a folder, by name."""
    documents = {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}
    return {
        name: Case.model_validate({"name": name, **document})
        for name, document in sorted(documents.items())
    }


def _problems(route: str, expected: Expectation, seen: Observed) -> list[str]:
    return [
        *_problems_of_calls(expected, seen),
        *_problems_of_requests(route, expected, seen),
        *_problems_of_pauses(route, expected, seen),
        *_problems_of_keys(route, expected, seen),
        *_problems_of_callbacks(expected, seen),
    ]


def _problems_of_calls(expected: Expectation, seen: Observed) -> list[str]:
    wanted = expected.calls or {THE_CALL: expected}
    return [
        f"{name}: {problem}"
        for name, one in wanted.items()
        for problem in _problems_of_call(one, seen.calls[name])
    ]


def _problems_of_call(expected: ExpectedCall, seen: ObservedCall) -> list[str]:
    status, outcome = seen.status, seen.status.outcome
    facts = outcome or status
    state = str(outcome.status) if outcome else PENDING
    response = (expected.response,) if "response" in expected.model_fields_set else None
    problems = []
    for field, allowed, found in (
        ("status", expected.status, state),
        ("effect", expected.effect, facts.effect),
        ("code", expected.code, facts.code),
        ("provider_code", expected.provider_code, facts.provider_code),
        ("receipt", expected.receipt, facts.receipt),
        ("disputed", _optional(expected.disputed), facts.disputed),
        ("parked", _optional(expected.parked), status.stage is CallStage.PARKED),
        ("response", response, outcome and outcome.response),
    ):
        if allowed is not None and found not in allowed:
            problems.append(f"{field} is {found!r}, not {' or '.join(map(repr, allowed))}")
    reason = (outcome.reason if outcome else status.last_error) or ""
    missing = [text for text in expected.reason if text.lower() not in reason.lower()]
    problems += [f"reason {reason!r} without {text!r}" for text in missing]
    if expected.within is not None and (seen.seconds is None or seen.seconds > expected.within):
        problems.append(f"took {seen.seconds} s, not {expected.within}")
    notice = facts.notice
    texts = [notice.title, notice.message, notice.alternative] if notice else []
    text = "\n".join(filter(None, texts))
    return problems + _problems_of_text("notice", text, expected.notice, expected.notice_not)


def _problems_of_text(
    name: str, text: str, patterns: Sequence[str], forbidden: Sequence[str]
) -> list[str]:
    missing = [one for one in patterns if not re.search(one, text, re.IGNORECASE)]
    wrong = [one for one in forbidden if re.search(one, text, re.IGNORECASE)]
    return [
        *(f"{name} {text!r} without {pattern!r}" for pattern in missing),
        *(f"{name} {text!r} with {pattern!r}" for pattern in wrong),
    ]


def _problems_of_requests(main: str, expected: Expectation, seen: Observed) -> list[str]:
    counts = expected.requests
    counts = counts if isinstance(counts, dict) else {main: counts}
    problems = []
    for route, count in counts.items():
        number = len(seen.of_route(route))
        least, most = _bounds(count)
        if not least <= number <= most:
            problems.append(f"{number} times {route}, not {count}")
    for route, sent in expected.sent.items():
        found = [_as_sent(sent, request) for request in seen.of_route(route)]
        if found[-1:] != [sent]:
            problems.append(f"{route} with {found[-1:]}, not {sent!r}")
    times = [request.at for request in seen.of_route(main)] or [0]
    span = times[-1] - times[0]
    if expected.last_request is not None and span > expected.last_request + CLOCK_TOLERANCE:
        problems.append(f"{main} again after {span:.1f} s")
    return problems


def _as_sent(wanted: Sent, request: Request) -> Sent:
    """What a request has of what is wanted."""
    headers = {name: request.headers.get(name.lower(), "") for name in wanted.headers}
    return Sent(
        query=None if wanted.query is None else request.query,
        body=None if wanted.body is None else request.body,
        headers=headers,
    )


def _problems_of_pauses(main: str, expected: Expectation, seen: Observed) -> list[str]:
    gaps = expected.gaps
    problems = []
    for route, least in (gaps if isinstance(gaps, dict) else {main: gaps}).items():
        pauses = seen.pauses(route)
        is_long = [
            pause >= gap - TIMER_TOLERANCE for pause, gap in zip(pauses, least, strict=False)
        ]
        if len(pauses) < len(least) or not all(is_long):
            problems.append(f"{route} with pauses {pauses}, not {least}")
    pauses = seen.pauses(main)
    if expected.growing and (not pauses or pauses[-1] < GROWTH * pauses[0]):
        problems.append(f"{main} with pauses {pauses}, which do not grow")
    return problems


def _problems_of_keys(main: str, expected: Expectation, seen: Observed) -> list[str]:
    keys = seen.keys(main)
    problems = []
    if expected.same_key and set(keys) != {1}:
        problems.append(f"keys {keys}, not the same one")
    if expected.keys is not None and keys != expected.keys:
        problems.append(f"keys {keys}, not {expected.keys}")
    for route, count in expected.new_key_after.items():
        answered = [request.answered_at for request in seen.of_route(route)]
        since = answered[count - 1] if len(answered) >= count else None
        for request, key in zip(seen.of_route(main), keys, strict=True):
            if key > 1 and (since is None or request.at < since):
                problems.append(f"a new key before answer {count} of {route}")
    return problems


def _problems_of_callbacks(expected: Expectation, seen: Observed) -> list[str]:
    problems = []
    for number, wanted in enumerate(expected.replies):
        pattern = str(wanted).replace("x", r"\d")
        status, _ = seen.replies.get(number, NO_REPLY)
        if not re.fullmatch(pattern, str(status)):
            problems.append(f"callback {number + 1} was answered with {status}, not {wanted}")
    for number, wanted in enumerate(expected.reply_bodies):
        _, text = seen.replies.get(number, NO_REPLY)
        if text != wanted:
            problems.append(f"callback {number + 1} was answered with {text!r}, not {wanted!r}")
    if expected.held is not None and seen.held != expected.held:
        problems.append(f"{seen.held} messages held, not {expected.held}")
    return problems


def _optional(value: Item | None) -> tuple[Item, ...] | None:
    return None if value is None else (value,)


def _bounds(count: int | str) -> tuple[int, int]:
    least, dash, most = str(count).partition("-")
    if dash:
        return int(least), int(most)
    return int(least.removesuffix("+")), 10**6 if least.endswith("+") else int(least)
