"""The errors of Ackbridge, as a tree.

    AckbridgeError
    ├── ConfigurationError            something an operator wrote is wrong
    │   ├── IntegrationFileError      integration files, with file, line and field
    │   ├── UnknownNameError               no such provider or operation
    │   └── SecretError               a reference does not resolve
    ├── SignatureError                        a callback that its provider did not sign, or not now
    ├── UnavailableError                   try again later
    │   ├── TokenRefused              (ackbridge.security) a token endpoint gives no token
    │   ├── LedgerUnavailableError
    │   └── EngineUnavailableError
    ├── BatchNotFoundError            no such batch, or it is over
    ├── TooLarge                      (ackbridge.http.client) an answer beyond its bound
    └── CallError                     a call without the provider's success
        ├── InvalidRequestError       refused before anything was sent
        ├── KeyReusedError            the key stands for another payload
        ├── CallFailedError           ended as failed; `.outcome` says how
        ├── CallCancelledError        ended as cancelled; `.outcome` says by whom
        └── CallNotFoundError         no such call

Messages name fields and references, never secrets or values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ackbridge.contracts.calls import CallOutcome


class AckbridgeError(Exception):
    """The base of every error we raise."""


class ConfigurationError(AckbridgeError):
    """Something an operator wrote is wrong."""


@dataclass(frozen=True)
class Problem:
    """One mistake in an integration file.

    Attributes:
        file: the path as it was given.
        line, column: from 1, or 0 when the mistake is in no line.
        field: dotted path, such as `operations.create_order.request.path`.
        message: what is wrong, and what would be right.
    """

    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.field}: {self.message}"


class IntegrationFileError(ConfigurationError):
    """Integration files do not validate; `problems` holds every mistake found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnknownNameError(ConfigurationError):
    """No provider or operation of that name is configured; the message lists those that are."""


class SecretError(ConfigurationError):
    """A secret reference does not resolve; the message names the reference only."""


class SignatureError(AckbridgeError):
    """A callback that is not from its provider, or too old; the text is safe to log."""


class UnavailableError(AckbridgeError):
    """A part we depend on does not answer; trying again later is right."""


class LedgerUnavailableError(UnavailableError):
    """The database does not answer."""


class EngineUnavailableError(UnavailableError):
    """The Temporal server does not answer, or is not installed."""


class BatchNotFoundError(AckbridgeError):
    """There is no batch with that id, or it is over and takes no orders."""


class CallError(AckbridgeError):
    """A call without the provider's success."""


class InvalidRequestError(CallError):
    """Refused before anything was sent; the message names the field."""


class KeyReusedError(CallError):
    """The key already stands for a call with another payload."""


class CallNotFoundError(CallError):
    """There is no call with that id."""


class CallFailedError(CallError):
    """The call ended as failed.

    Attributes:
        outcome: how, with the notice for the user.
    """

    def __init__(self, outcome: CallOutcome) -> None:
        self.outcome = outcome
        super().__init__(f"{outcome.call_id}: {outcome.reason or 'failed'}")


class CallCancelledError(CallError):
    """The call ended as cancelled.

    Attributes:
        outcome: by whom and why.
    """

    def __init__(self, outcome: CallOutcome) -> None:
        self.outcome = outcome
        super().__init__(f"{outcome.call_id}: {outcome.reason or 'cancelled'}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'shop'?` for a name that is close to a known one, else an empty text."""
    near = get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """`unknown provider 'shp'; known providers: shop, stripe. Did you mean 'shop'?`"""
    names = sorted(known)
    listed = f"known {what}s: {', '.join(names)}." if names else f"there are no {what}s."
    return f"unknown {what} {name!r}; {listed}{did_you_mean(name, names)}".removesuffix(".")
