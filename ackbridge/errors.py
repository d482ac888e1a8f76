"""The errors of Ackbridge, as a tree.

    AckbridgeError
    ├── ConfigurationError              settings or integration files are wrong
    │   ├── IntegrationFileError        integration files; has file, line and field
    │   ├── UnknownNameError            no such provider, operation or subscriber
    │   └── SecretError                 a secret reference does not resolve
    ├── SignatureError                  a callback with an invalid or expired signature
    ├── UnavailableError                retry later
    │   ├── TokenError                  a token endpoint issues no token       (ackbridge.security)
    │   ├── EngineUnavailableError      the Temporal server does not answer
    │   │   ├── NamespaceNotFoundError  it does not know the namespace
    │   │   └── WorkerUnavailableError  it answers, but no worker does
    │   ├── KeyServiceError             a key service such as AWS KMS gives no key
    │   ├── LedgerUnavailableError      the database does not answer
    │   ├── ObjectStoreError            the object store of large payloads does not answer
    │   └── ProcessDiedError            a process of a local stack ended       (ackbridge.local)
    ├── ProcessNotStartedError          a child process could not be started   (ackbridge.local)
    ├── BatchNotFoundError              no such batch, or it has ended
    ├── DecryptionError                 stored data does not decrypt
    │   └── MissingKeyError             its key is not among those of this process
    ├── ResponseTooLargeError           a response is longer than its limit    (ackbridge.http)
    └── CallError                       a call without the provider's success
        ├── InvalidRequestError         refused before anything was sent
        ├── KeyReusedError              the key belongs to a call with another payload
        ├── CallFailedError             ended as failed, see `.outcome`
        ├── CallCancelledError          ended as cancelled, see `.outcome`
        ├── CallEndedError              too late, the call has ended
        └── CallNotFoundError           no such call

Messages name fields and references, never secrets or values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ackbridge.contracts.calls import CallOutcome


class AckbridgeError(Exception):
    """The base of every error of Ackbridge."""


class ConfigurationError(AckbridgeError):
    """Settings or integration files are wrong."""


@dataclass(frozen=True)
class Problem:
    """One mistake in an integration file.

    Attributes:
        file: the path as it was given.
        line, column: from 1; 0 if the mistake belongs to no line.
        field: dotted path, such as `operations.create_order.request.path`.
        message: what is wrong, and what would be right.
    """

    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        place = f":{self.line}:{self.column}" if self.line else ""
        return f"{self.file}{place}: {self.field}: {self.message}"


class IntegrationFileError(ConfigurationError):
    """Integration files do not validate; `problems` holds every mistake found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnknownNameError(ConfigurationError):
    """No such provider, operation or subscriber; the message lists the known ones."""


class SecretError(ConfigurationError):
    """A secret reference does not resolve; the message names the reference only."""


class SignatureError(AckbridgeError):
    """A callback with an invalid or expired signature; the message is safe to log."""


class UnavailableError(AckbridgeError):
    """A dependency does not answer; retry later."""


class KeyServiceError(UnavailableError):
    """A key service such as AWS KMS gives no key; the message is safe to log."""


class LedgerUnavailableError(UnavailableError):
    """The database does not answer."""


class ObjectStoreError(UnavailableError):
    """The object store of large payloads does not answer, or has lost one; safe to log."""


class EngineUnavailableError(UnavailableError):
    """The Temporal server does not answer, or is not installed."""


class NamespaceNotFoundError(EngineUnavailableError):
    """The Temporal server does not know the namespace; it may be created later."""


class WorkerUnavailableError(EngineUnavailableError):
    """The Temporal server answers, but no worker does."""


class DecryptionError(AckbridgeError):
    """Stored data does not decrypt: it was changed, or its key is missing; safe to log."""


class MissingKeyError(DecryptionError):
    """The key of encrypted data is not among those of this process; another one may have it."""


class BatchNotFoundError(AckbridgeError):
    """There is no batch with that id, or it has ended."""


class CallError(AckbridgeError):
    """A call without the provider's success."""


class InvalidRequestError(CallError):
    """Refused before anything was sent; the message names the field."""


class KeyReusedError(CallError):
    """The key already belongs to a call with another payload."""


class CallEndedError(CallError):
    """The call has ended and takes no more requests of operators."""


class CallNotFoundError(CallError):
    """There is no call with that id."""


class CallFailedError(CallError):
    """The call ended as failed.

    Attributes:
        outcome: with its code, its effect and the notice for the user.
    """

    def __init__(self, outcome: CallOutcome) -> None:
        self.outcome = outcome
        super().__init__(f"{outcome.call_id}: {outcome.reason or 'failed'}")


class CallCancelledError(CallError):
    """The call ended as cancelled.

    Attributes:
        outcome: with who cancelled it and why.
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
