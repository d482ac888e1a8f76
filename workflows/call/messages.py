"""What a call has heard: each message once, and every one that changed nothing with its reason."""

from __future__ import annotations

from collections import deque
from datetime import datetime

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from ackbridge.contracts.continuation import MessagesState
    from ackbridge.contracts.messages import MessageKind, ProviderMessage
    from ackbridge.contracts.steps import DUPLICATE, SuppressedMessage

REMEMBERED = 1000
"""Event keys that a continued run still knows. The ledger's index knows every one applied."""


class Messages:
    """Messages waiting to be dealt with, in the order they came.

    Attributes:
        duplicates: how many were suppressed because their event key had been heard.
        tells_arrivals: whether one arrival that came by two ways is told from a provider that
            repeats itself; calls of older workers do not.
    """

    def __init__(self, memory: MessagesState | None = None) -> None:
        memory = memory or MessagesState()
        self._waiting: deque[ProviderMessage] = deque(memory.waiting)
        # A dict for its order: the oldest are forgotten first.
        self._seen: dict[str, None] = dict.fromkeys(memory.seen)
        self._suppressed: list[SuppressedMessage] = list(memory.suppressed)
        self._held: list[ProviderMessage] = list(memory.held)
        self._arrivals: dict[str, tuple[datetime | None, MessageKind]] = {}
        self.duplicates = memory.duplicates
        self.tells_arrivals = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def hear(self, message: ProviderMessage) -> None:
        """Take a message; one that was heard before is suppressed."""
        if self.has_heard(message):
            return
        if message.event_key in self._seen:
            self.duplicates += 1
            self.suppress(message, DUPLICATE)
        else:
            self._seen[message.event_key] = None
            self._arrivals[message.event_key] = _arrival(message)
            self._waiting.append(message)

    def has_heard(self, message: ProviderMessage) -> bool:
        """Whether this very arrival was heard: from the inbox, and by signal as well."""
        is_known = self._arrivals.get(message.event_key) == _arrival(message)
        return self.tells_arrivals and message.received_at is not None and is_known

    @property
    def has_overtaken_answer(self) -> bool:
        """Whether an answer waits behind something else."""
        return any(one.kind is MessageKind.RESPONSE for one in self._waiting) and (
            self._waiting[0].kind is not MessageKind.RESPONSE
        )

    def next(self) -> ProviderMessage:
        """The message that has waited longest."""
        return self._waiting.popleft()

    def next_answer(self) -> ProviderMessage:
        """The answer that has waited longest; there must be one."""
        answer = next(one for one in self._waiting if one.kind is MessageKind.RESPONSE)
        self._waiting.remove(answer)
        return answer

    def suppress(self, message: ProviderMessage, reason: str) -> None:
        """A message changed nothing; the ledger's log will say why."""
        self._suppressed.append(SuppressedMessage(event_key=message.event_key, reason=reason))

    def hold(self, message: ProviderMessage, reason: str) -> None:
        """A message changes nothing until a person decides; the ledger keeps it whole."""
        self._held.append(message)
        self.suppress(message, reason)

    @property
    def has_suppressed(self) -> bool:
        """Whether something waits to be logged."""
        return bool(self._suppressed)

    def take_suppressed(self) -> tuple[SuppressedMessage, ...]:
        """What was suppressed since the last time, for the ledger's log."""
        taken, self._suppressed = tuple(self._suppressed), []
        return taken

    def take_held(self) -> tuple[ProviderMessage, ...]:
        """What is to be held since the last time, for the ledger's inbox."""
        taken, self._held = tuple(self._held), []
        return taken

    def memory(self) -> MessagesState:
        """For the run that continues this one."""
        return MessagesState(
            waiting=tuple(self._waiting),
            seen=tuple(self._seen)[-REMEMBERED:],
            suppressed=tuple(self._suppressed),
            held=tuple(self._held),
            duplicates=self.duplicates,
        )


def _arrival(message: ProviderMessage) -> tuple[datetime | None, MessageKind]:
    """What one arrival has in common, whichever way it came; a contradiction is another one."""
    return message.received_at, message.kind
